"""The base of the two studios' example: a small Stable Diffusion that has seen photographs and game tiles, and no emoji.

CIFAR-10 and Dungeon Crawl's tiles, brought to 64 pixels; the auto-encoder TAESD and CLIP's tokenizer as they are, a random text
encoder that stays random (its words are told apart, which is all that is asked of it), and a UNet that is trained here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from headwater import load, seeds
from headwater.cli.progress import bar
from headwater.data.cifar import cifar10
from headwater.data.decode import resized
from headwater.disk.npz import arrays
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.models.adapters import Tuning
from headwater.models.train import Recipe, Watch, train

WORDS = 24  # tokens of a prompt
UNNAMED = 10  # of so many images one has no prompt, from which guidance leads away
FULL = Recipe(steps=5000, batch=64, learning_rate=1e-3, betas=(0.9, 0.999), warmup=0.05, dropout=0.0, flips=False, ema=0.999)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The UNet's width and training, and how many photographs it sees."""

    channels: tuple[int, ...] = (64, 128)
    text: int = 64
    photographs: int = 12_000
    tiles: int = 3_984
    side: int = 64
    recipe: Recipe = FULL


def base(how: Base, data: Path, weights: Path, out: Path, store: FeatureStore) -> Path:
    """The pipeline in `out`, trained; one that is there is left as it is. An interrupted training goes on."""
    if (out / "model_index.json").exists():
        return out
    untrained = out.with_name(out.name + "-untrained")
    if not (untrained / "model_index.json").exists():
        _save(network(how), how, weights, untrained)
    seen, state = pictures(how, data), out.with_name(out.name + ".state.safetensors")
    model = load(untrained, size=seen.shape[1:])
    with bar("train the base") as tick:
        made = train(Tuning(model, store), seen, how.recipe, 0, watch=Watch(state, tick))
    _save(made.module, how, weights, out)
    state.unlink()
    return out


def pictures(how: Base, data: Path) -> Examples:
    """What the base is trained on, with prompts."""
    photographs = cifar10().take(range(how.photographs))
    tiles = arrays(data / "crawl_tiles_32.npz", ("images", "folder"))
    some = slice(0, how.tiles)
    images = [resized(each, how.side) for each in (photographs.images, tiles["images"][some])]
    prompts = [f"a photo of a {name}" for name in photographs.groups or ()]
    prompts += [f"a tile of {name.replace('/', ' ')}" for name in tiles["folder"][some]]
    prompts = ["" if i % UNNAMED == 0 else prompt for i, prompt in enumerate(prompts)]
    ids = [f"base-{i:05d}" for i in range(len(prompts))]
    return Examples(np.concatenate(images), ids=tuple(ids), prompts=tuple(prompts))


def network(how: Base) -> UNet2DConditionModel:
    """The UNet as it is before training: attention to the prompt at every resolution."""
    deep = len(how.channels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.key(0, "studio base", bits=64) >> 1)
        return UNet2DConditionModel(
            sample_size=how.side // 8,
            in_channels=4,
            out_channels=4,
            block_out_channels=how.channels,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * deep,
            up_block_types=("CrossAttnUpBlock2D",) * deep,
            norm_num_groups=min(32, how.channels[0]),
            cross_attention_dim=how.text,
            attention_head_dim=4,
        )


def _save(module: Any, how: Base, weights: Path, out: Path) -> None:
    """The whole pipeline, as diffusers writes it."""
    words = CLIPTokenizer.from_pretrained(weights / "clip_tokenizer", model_max_length=WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.key(0, "studio text", bits=64) >> 1)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=how.text,
                intermediate_size=2 * how.text,
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
