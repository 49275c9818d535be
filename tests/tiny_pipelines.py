"""The smallest pipelines of diffusers, one of each family, with random weights."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    LDMPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WORDS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def tokenizer(folder):
    """A byte-pair tokenizer of single letters."""
    folder.mkdir(exist_ok=True)
    vocabulary = [*WORDS, *(f"{letter}</w>" for letter in WORDS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


def text_config(width, **changes):
    sizes = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextConfig(
        vocab_size=54, max_position_embeddings=8, bos_token_id=52, eos_token_id=53, **sizes, **changes
    )


def kl(channels=2):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {
        "block_out_channels": (8, 8),
        "latent_channels": channels,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return AutoencoderKL(**blocks, **sizes, scaling_factor=0.3, shift_factor=0.1)


def stable(words):
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        kl(), CLIPTextModel(text_config(8)), tokenizer(words), unet, scheduler, **parts
    )


def latent():
    unet = UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vq = VQModel(
        **blocks, block_out_channels=(8, 8), latent_channels=2, norm_num_groups=4, num_vq_embeddings=16
    )
    return LDMPipeline(vq, unet, DDIMScheduler(clip_sample=False))


def dit():
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=2,
        out_channels=4,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=3,
        norm_num_groups=2,
    )
    for parameter in transformer.parameters():  # its gates begin at 0, where no gradient passes
        torch.nn.init.normal_(parameter, std=0.2)
    return DiTPipeline(transformer, kl(), DDIMScheduler(clip_sample=False))


def t5():
    """A T5 encoder of width 16 and its tokenizer of single letters."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -1.0)]
    token = T5TokenizerFast(vocab=[*marks, *((letter, -2.0) for letter in WORDS)], extra_ids=0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(token), **sizes)), token


def sd3(words, encoder=None, encoders_tokenizer=None):
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=2,
        out_channels=2,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_projection_dim=8,
        joint_attention_dim=16,
        pooled_projection_dim=12,
        pos_embed_max_size=8,
    )
    texts = [CLIPTextModelWithProjection(text_config(8, projection_dim=6)) for _ in range(2)]
    token = tokenizer(words)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return StableDiffusion3Pipeline(
        transformer, scheduler, kl(), texts[0], token, texts[1], token, encoder, encoders_tokenizer
    )
