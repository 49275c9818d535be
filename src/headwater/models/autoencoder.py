"""Auto-encoders: pictures to latents and back, in the units that a latent diffusion model is trained in."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.diffusion.denoiser import Posterior
from headwater.errors import ModelError
from headwater.models.folders import Pipeline, fingerprint, module_of

COMPONENTS = ("vae", "vqvae")  # its names in pipelines


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


def autoencoder(pipeline: Pipeline, size: tuple[int, int], device: str) -> Encoder | None:
    """The pipeline's auto-encoder for latents of this size, or None."""
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
    height, width = (side * factor_of(config) for side in size)
    scale, shift = config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0
    return Encoder(
        module,
        (config["in_channels"], height, width),
        scale,
        shift,
        fingerprint(module, None, str((scale, shift))),
    )


def factor_of(config: Any) -> int:
    """Pixels per latent along a side."""
    return 2 ** (len(config.get("encoder_block_out_channels") or config["block_out_channels"]) - 1)
