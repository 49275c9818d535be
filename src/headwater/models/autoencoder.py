"""Auto-encoders: pictures to latents and back, in the units that a latent diffusion model is trained in."""

import math
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import VQModel
from jaxtyping import Float
from torch import Tensor

from headwater.diffusion.denoiser import Posterior
from headwater.errors import ModelError
from headwater.models.folders import EXPECTED, Pipeline, class_of, fingerprint, json_of, module_of

COMPONENTS = ("vae", "vqvae")  # its names in pipelines
KNOWN_UNITS = {  # auto-encoder and network: Stable Diffusion's scale, for years written in code alone
    ("AutoencoderKL", "UNet2DConditionModel"),
    ("AutoencoderKL", "DiTTransformer2DModel"),
}
SHIFTED = ("SD3Transformer2DModel",)  # networks trained on latents with a shift


@dataclass(frozen=True, eq=False)
class Encoder:
    """z = (e(x) − shift) · scale of one of diffusers' auto-encoders: AutoencoderKL, AutoencoderTiny, VQModel.

    KL's has a posterior: attribution uses its mode, training its samples. The others are deterministic.
    """

    module: Any
    shape: tuple[int, int, int]
    scale: float
    shift: float
    fingerprint: str

    def encode(self, pixels: Float[Tensor, "b c h w"]) -> Posterior:
        """The latents' mode and standard deviation."""
        encoding = self.module.encode(pixels.to(self._like))
        if hasattr(encoding, "latent_dist"):
            mode, deviation = encoding.latent_dist.mode(), encoding.latent_dist.std
        else:
            mode = encoding.latents
            deviation = torch.zeros_like(mode)
        return Posterior((mode - self.shift) * self.scale, deviation * self.scale)

    def decode(self, latents: Float[Tensor, "b z y x"]) -> Float[Tensor, "b c h w"]:
        """Pictures in model units, not clipped."""
        return self.module.decode(latents.to(self._like) / self.scale + self.shift).sample

    @property
    def _like(self) -> Tensor:
        return next(self.module.parameters())


def autoencoder(pipeline: Pipeline, shape: tuple[int, int, int], device: str) -> Encoder | None:
    """The pipeline's auto-encoder for latents of this shape, or None."""
    name = next((name for name in COMPONENTS if pipeline.has(name)), None)
    if name is None:
        return None
    module: Any = module_of(pipeline.part(name), device).eval()
    module.requires_grad_(False)
    config = module.config
    if not hasattr(module, "encode"):
        raise ModelError(
            f"The {name} of {pipeline.path} is a {type(module).__name__}; expected one of diffusers' "
            "auto-encoders."
        )
    if config["latent_channels"] != shape[0]:
        raise ModelError(
            f"The {name} of {pipeline.path} makes latents of {config['latent_channels']} channels; the "
            f"network takes {shape[0]}."
        )
    height, width = (side * factor_of(config) for side in shape[1:])
    scale, shift = units(pipeline.part(name), config)
    return Encoder(
        module,
        (config["in_channels"], height, width),
        scale,
        shift,
        fingerprint(module, None, str((scale, shift))),
    )


def units(folder: Path, config: Any) -> tuple[float, float]:
    """Scale and shift of the auto-encoder's latents; a ModelError for units of another kind."""
    assumed, shift = assumed_scale(folder), config.get("shift_factor") or 0.0
    scale = config["scaling_factor"] if assumed is None else assumed
    per_channel = [name for name in ("latents_mean", "latents_std") if config.get(name) is not None]
    if per_channel:
        raise ModelError(
            f"The auto-encoder in {folder} has {per_channel[0]}, units of its own for each channel; expected "
            "one scaling_factor for all."
        )
    numbers = all(isinstance(number, int | float) and math.isfinite(number) for number in (scale, shift))
    if not numbers or scale <= 0:
        raise ModelError(
            f"The auto-encoder in {folder} has scaling_factor {scale} and shift_factor {shift}; expected "
            "finite numbers, the first above 0."
        )
    return scale, shift


def assumed_scale(folder: Path) -> float | None:
    """The scale of latents where the auto-encoder's config names none; None if it does.

    diffusers' own default, which was in the pipelines' code before. Of a VQModel 1: such models were trained
    on latents as they are (Rombach et al. 2022)."""
    if json_of(folder / "config.json", EXPECTED).get("scaling_factor") is not None:
        return None
    kind = getattr(diffusers, str(class_of(folder)), None)
    default = signature(kind).parameters.get("scaling_factor") if kind not in (None, VQModel) else None
    return 1.0 if default is None else default.default


def notes_on_units(pipeline: Pipeline, network: str) -> list[str]:
    """A note where the units of latents are assumed, and are not those that everybody trains in.

    `network` is its class."""
    name = next((name for name in COMPONENTS if pipeline.has(name)), None)
    if name is None:
        return []
    place, unsaid = pipeline.part(name), []
    scale, encoder = assumed_scale(place), class_of(place)
    if scale is not None and encoder != "AutoencoderTiny" and (encoder, network) not in KNOWN_UNITS:
        unsaid.append(f"scaling_factor ({scale:g} is assumed)")
    if network in SHIFTED and "shift_factor" not in json_of(place / "config.json", EXPECTED):
        unsaid.append("shift_factor (0 is assumed)")
    if not unsaid:
        return []
    return [
        f"The {name} of {pipeline.path} names no {' and no '.join(unsaid)}. If the network was trained on "
        "latents of other units, write them into its config.json."
    ]


def factor_of(config: Any) -> int:
    """Pixels per latent along a side."""
    return 2 ** (len(config.get("encoder_block_out_channels") or config["block_out_channels"]) - 1)
