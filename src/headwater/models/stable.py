"""Stable Diffusion 1 and 2: a UNet over latents, conditioned on a CLIP text encoder's hidden states.

(Rombach et al. 2022, arXiv:2112.10752.)
"""

from typing import Any

from headwater.diffusion.denoiser import TextEncoder
from headwater.models.architecture import Kind, check_inputs, height_and_width, input_channels
from headwater.models.folders import Pipeline
from headwater.models.text import clip

TAKEN = {  # entries of the config that may ask for further inputs: the values that do not
    "num_class_embeds": (None,),
    "class_embed_type": (None,),
    "addition_embed_type": (None,),
    "time_cond_proj_dim": (None,),
    "encoder_hid_dim_type": (None, "text_proj"),
    "attention_type": ("default",),
}


class StableDiffusion(Kind):
    """UNet2DConditionModel: (x_t, t, encoder_hidden_states)."""

    any_size = True

    def shape(self, config: Any) -> tuple[int, int, int]:
        check_inputs(config, TAKEN)
        return input_channels(config), *height_and_width(config)

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder:
        return clip(pipeline, device)
