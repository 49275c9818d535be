"""The base model of the two studios: a small Stable Diffusion that has seen photographs and game tiles, and
no emoji.

It is trained on CIFAR-10 and Dungeon Crawl's tiles, resized to 64 pixels. The auto-encoder TAESD and CLIP's
tokenizer are used as they are; the text encoder is random and stays so (it only has to tell words apart); the
UNet is trained here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from headwater import load, seeds
from headwater.cli.progress import progress_bar
from headwater.data.cifar import cifar10
from headwater.data.decode import resized
from headwater.disk.npz import arrays
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.models.adapters import Tuning
from headwater.models.train import Recipe, Watch, train

WORDS = 24  # tokens of a prompt
UNNAMED = 10  # one image in this many has no prompt: guidance leads away from it
FULL = Recipe(
    steps=5000,
    batch=64,
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    warmup=0.05,
    dropout=0.0,
    flips=False,
    ema=0.999,
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The UNet's width and training, and how many photographs it sees."""

    channels: tuple[int, ...] = (64, 128)
    text: int = 64
    photographs: int = 12_000
    tiles: int = 3_984
    side: int = 64
    recipe: Recipe = FULL


def base(config: Base, data: Path, weights: Path, out: Path, store: FeatureStore) -> Path:
    """The pipeline in `out`, trained unless it exists. An interrupted training is resumed."""
    if (out / "model_index.json").exists():
        return out
    untrained = out.with_name(out.name + "-untrained")
    if not (untrained / "model_index.json").exists():
        _save(network(config), config, weights, untrained)
    examples, state = pictures(config, data), out.with_name(out.name + ".state.safetensors")
    model = load(untrained, size=examples.shape[1:])
    with progress_bar("train the base") as tick:
        trained = train(Tuning(model, store), examples, config.recipe, 0, watch=Watch(state, tick))
    _save(trained.module, config, weights, out)
    state.unlink()
    return out


def pictures(config: Base, data: Path) -> Examples:
    """The training images of the base model, with prompts."""
    photographs = cifar10().take(range(config.photographs))
    tiles = arrays(data / "crawl_tiles_32.npz", ("images", "folder"))
    first = slice(0, config.tiles)
    images = [resized(part, config.side) for part in (photographs.images, tiles["images"][first])]
    prompts = [f"a photo of a {name}" for name in photographs.groups or ()]
    prompts += [f"a tile of {name.replace('/', ' ')}" for name in tiles["folder"][first]]
    prompts = ["" if i % UNNAMED == 0 else prompt for i, prompt in enumerate(prompts)]
    ids = [f"base-{i:05d}" for i in range(len(prompts))]
    return Examples(np.concatenate(images), ids=tuple(ids), prompts=tuple(prompts))


def network(config: Base) -> UNet2DConditionModel:
    """The untrained UNet: attention to the prompt at every resolution."""
    deep = len(config.channels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.key(0, "studio base", bits=64) >> 1)
        return UNet2DConditionModel(
            sample_size=config.side // 8,
            in_channels=4,
            out_channels=4,
            block_out_channels=config.channels,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * deep,
            up_block_types=("CrossAttnUpBlock2D",) * deep,
            norm_num_groups=min(32, config.channels[0]),
            cross_attention_dim=config.text,
            attention_head_dim=4,
        )


def _save(module: Any, config: Base, weights: Path, out: Path) -> None:
    """The whole pipeline, as diffusers writes it."""
    words = CLIPTokenizer.from_pretrained(weights / "clip_tokenizer", model_max_length=WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.key(0, "studio text", bits=64) >> 1)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=config.text,
                intermediate_size=2 * config.text,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=WORDS,
                bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id,
            )
        )
    StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(weights / "taesd"),  # pyright: ignore[reportArgumentType]
        text_encoder=text,
        tokenizer=words,
        unet=module,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    ).save_pretrained(out)
