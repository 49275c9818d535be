"""Stable Diffusion 1 and 2: a UNet over latents, conditioned on a CLIP text encoder's hidden states.

(Rombach et al. 2022, arXiv:2112.10752.)
"""

from typing import Any

from headwater.diffusion.denoiser import TextEncoder
from headwater.errors import ModelError
from headwater.models.architecture import Kind, height_and_width
from headwater.models.folders import Pipeline
from headwater.models.text import clip


class StableDiffusion(Kind):
    """UNet2DConditionModel: (x_t, t, encoder_hidden_states)."""

    any_size = True

    def shape(self, config: Any) -> tuple[int, int, int]:
        if config.get("addition_embed_type") or config.get("class_embed_type"):
            raise ModelError(
                "The UNet is conditioned on more than text, as in Stable Diffusion XL; expected version 1 or "
                "2."
            )
        return config["in_channels"], *height_and_width(config)

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder:
        return clip(pipeline, device)
