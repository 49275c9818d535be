"""UNet2DModel: named configurations, untrained models, saving."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors import SafetensorError
from torch import nn

from headwater import seeds
from headwater.diffusion.denoiser import DIFFUSERS, Denoiser, Family, check_shape
from headwater.diffusion.schedule import Schedule, linear
from headwater.errors import DataError, StorageError, unknown
from headwater.examples import COLOUR, Examples, with_channels
from headwater.models.architecture import Kind, check_inputs, height_and_width, input_channels
from headwater.models.folders import fingerprint
from headwater.models.training_data import Material

# Zheng et al. 2023 (D-TRAK), section 4.2. The authors' code adds scale_shift to the paper's networks.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "digits": {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
        "attention_head_dim": None,
    },
    "cifar": {
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "celeba": {
        "sample_size": 64,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "attention_head_dim": 8,
    },
}
for _name in ("cifar", "celeba"):
    CONFIGURATIONS[f"{_name}-scale-shift"] = CONFIGURATIONS[_name] | {
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 32,
    }


def configuration(name: str, **changes: Any) -> dict[str, Any]:
    """The named configuration with `changes`, as keyword arguments of UNet2DModel."""
    if name not in CONFIGURATIONS:
        raise unknown("model configuration", name, CONFIGURATIONS)
    return CONFIGURATIONS[name] | changes


@dataclass(frozen=True, eq=False)
class Network:
    """A UNet2DModel to train: its keyword arguments, and the schedule with its prediction type."""

    config: Mapping[str, Any]
    schedule: Schedule = field(default_factory=linear)

    @property
    def family(self) -> Family:
        return DIFFUSERS

    @property
    def dropouts(self) -> str:
        return "*"

    def fresh(self, seed: int) -> UNet2DModel:
        """The network with the initial weights of stream (seed, "weights")."""
        with torch.random.fork_rng(devices=[]):  # diffusers' constructors draw from torch's global generator
            torch.default_generator.manual_seed(seeds.key(seed, "weights", bits=64) >> 1)
            return UNet2DModel(**self.config)

    def finished(self, module: nn.Module) -> Denoiser:
        """The Denoiser around a trained network."""
        assert isinstance(module, UNet2DModel)
        return of_module(module, self.schedule)

    def check(self, examples: Examples) -> None:
        """Raise a DataError for images of another size, or labels without a class."""
        side, channels, classes = (
            self.config.get(name) for name in ("sample_size", "in_channels", "num_class_embeds")
        )
        height, width = (side, side) if isinstance(side, int) else tuple(side or examples.shape[1:])
        examples = with_channels(examples, channels or COLOUR)
        check_shape(examples.shape, (channels or COLOUR, height, width), "the recipe's network")
        labels = examples.labels
        if classes is not None and (labels is None or not 0 <= labels.min() <= labels.max() < classes):
            span = "none" if labels is None else f"{labels.min()} … {labels.max()}"
            raise DataError(
                f"The recipe's network has {classes} classes, and the labels of the images are {span}; "
                f"expected 0 … {classes - 1}."
            )

    def notes(self, examples: Examples) -> list[str]:
        """None: the network sees the whole pictures."""
        return []

    def settings(self, examples: Examples) -> dict[str, Any]:
        """The configuration and the schedule."""
        schedule = hashlib.blake2b(self.schedule.beta.tobytes(), digest_size=8).hexdigest()
        return {"network": dict(self.config), "schedule": [schedule, self.schedule.prediction]}

    def material(self, examples: Examples, device: str, *, flips: bool) -> Material:
        """The images' pixels, and the labels if the network is class-conditional."""
        conditional = self.config.get("num_class_embeds") is not None
        if conditional and examples.labels is None:
            raise DataError("The network is class-conditional and the images have no labels.")
        labels = torch.as_tensor(examples.labels, device=device) if conditional else None
        examples = with_channels(examples, self.config.get("in_channels") or COLOUR)
        return Material(torch.as_tensor(examples.pixels(), device=device), labels=labels)

    def save(self, model: Denoiser, folder: Path) -> None:
        """Write the model as a diffusers pipeline."""
        save_pipeline(model, folder)


def new(config: Mapping[str, Any], seed: int, schedule: Schedule | None = None) -> Denoiser:
    """An untrained model with the initial weights of stream (seed, "weights")."""
    network = Network(config, schedule or linear())
    return of_module(network.fresh(seed), network.schedule)


class PixelUNet(Kind):
    """UNet2DModel: (x_t, t[, class_labels]) over pixels, or latents in a pipeline with an auto-encoder."""

    def shape(self, config: Any) -> tuple[int, int, int]:
        check_inputs(config, {"class_embed_type": (None,), "time_embedding_type": ("positional", "learned")})
        return input_channels(config), *height_and_width(config)

    def classes(self, config: Any) -> int | None:
        return config.get("num_class_embeds")


def of_module(module: UNet2DModel, schedule: Schedule) -> Denoiser:
    """The Denoiser around a UNet2DModel. Raises NonFiniteError if a weight is NaN or inf."""
    kind, config = PixelUNet(), module.config
    mark = fingerprint(module, schedule)
    return Denoiser(module, schedule, kind.shape(config), mark, kind.classes(config), family=kind)


def save_pipeline(model: Denoiser, folder: str | Path) -> None:
    """Write a DDPMPipeline folder that `load` and diffusers both read; `model_index.json` comes last."""
    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.part")
    assert isinstance(model.module, UNet2DModel)
    schedule = model.schedule
    plain = np.array_equal(schedule.beta, linear(schedule.T).beta)
    betas = None if plain else schedule.beta.tolist()
    scheduler = DDPMScheduler(
        schedule.T, 1e-4, 0.02, trained_betas=betas, prediction_type=cast(Any, schedule.prediction)
    )
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    shutil.rmtree(part, ignore_errors=True)
    try:
        model.module.save_pretrained(part / "unet")
        scheduler.save_pretrained(part / "scheduler")
        (part / "model_index.json").write_text(json.dumps(index, indent=2))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StorageError(
            f"Could not write the model {folder}: {error}. Free some space or name another folder.",
            hint="Then run the same command again.",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").unlink(missing_ok=True)
    for name in ("scheduler", "unet"):  # weights without a scheduler would get DDPM's schedule
        shutil.rmtree(folder / name, ignore_errors=True)
        (part / name).replace(folder / name)
    (part / "model_index.json").replace(folder / "model_index.json")
    part.rmdir()
