"""Stable Diffusion 1 and 2: a UNet over the latents of an auto-encoder, conditioned on a CLIP text encoder's hidden states.

(Rombach et al. 2022, arXiv:2112.10752.)
"""

from typing import Any

from headwater.diffusion.denoiser import TextEncoder
from headwater.errors import ModelError
from headwater.models.architecture import Kind, sides
from headwater.models.folders import Pipeline
from headwater.models.text import clip


class StableDiffusion(Kind):
    """UNet2DConditionModel: (x_t, t, encoder_hidden_states)."""

    any_size = True

    def shape(self, config: Any) -> tuple[int, int, int]:
        if config.get("addition_embed_type") or config.get("class_embed_type"):
            raise ModelError("The UNet is conditioned on more than text, as Stable Diffusion XL's; expected one of version 1 or 2.")
        return config["in_channels"], *sides(config)

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder:
        return clip(pipeline, device)
