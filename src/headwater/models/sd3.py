"""Stable Diffusion 3: a flow transformer over latents and text (Esser et al. 2024, arXiv:2403.03206)."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from headwater.diffusion.denoiser import Condition, TextEncoder
from headwater.models.architecture import Kind, height_and_width, input_channels
from headwater.models.folders import EXPECTED, Pipeline, fingerprint, json_of, of_transformers
from headwater.models.text import MARK, TEST, Prompts, Reader, tokenizer

ENCODERS = {  # component: its tokenizer, and the classes of both
    "text_encoder": ("tokenizer", "CLIPTextModelWithProjection", "CLIPTokenizer"),
    "text_encoder_2": ("tokenizer_2", "CLIPTextModelWithProjection", "CLIPTokenizer"),
    "text_encoder_3": ("tokenizer_3", "T5EncoderModel", "T5TokenizerFast"),
}


T5_TOKENS = 256  # of the pipeline's `max_sequence_length`


@dataclass
class _Network:
    """The part of the network that the pipeline reads to embed prompts: their width."""

    config: SimpleNamespace


class StableDiffusion3(Kind):
    """SD3Transformer2DModel: (x_t, encoder_hidden_states, pooled_projections, T·σ)."""

    part = "transformer"
    any_size = True

    def inputs(
        self, x_t: Tensor, time: Tensor, condition: Condition
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (x_t,), {"timestep": time, **condition}

    def shape(self, config: Any) -> tuple[int, int, int]:
        return input_channels(config), *height_and_width(config)

    def text(self, pipeline: Pipeline, device: str) -> TextEncoder:
        """The pipeline's own encoding with its two or three encoders; T5 is optional."""
        from diffusers import StableDiffusion3Pipeline

        parts: dict[str, Any] = {}
        for name, (words, kind, kind_of_words) in ENCODERS.items():
            present = name != "text_encoder_3" or pipeline.has(name)
            parts[name] = (
                of_transformers(pipeline.part(name), kind, device).requires_grad_(False) if present else None
            )
            parts[words] = tokenizer(pipeline, words, kind_of_words) if present else None
        width = _Network(SimpleNamespace(**json_of(pipeline.part(self.part) / "config.json", EXPECTED)))
        encoders: Any = StableDiffusion3Pipeline(transformer=width, scheduler=None, vae=None, **parts)  # pyright: ignore[reportArgumentType]

        def encode(prompts: list[str]) -> dict[str, Tensor]:
            options = {
                "device": torch.device(device),
                "do_classifier_free_guidance": False,
                "max_sequence_length": T5_TOKENS,
            }
            hidden, _, pooled, _ = encoders.encode_prompt(prompts, prompts, prompts, **options)
            return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

        marks = [fingerprint(parts[name]) for name in ENCODERS if parts[name] is not None]
        tokenizers = [parts[words] for words, *_ in ENCODERS.values() if parts[words] is not None]
        readers = [
            Reader(parts[words], "T5", T5_TOKENS)
            if words == "tokenizer_3"
            # the pipeline cuts for both at the first one's end
            else Reader(parts[words], "CLIP", parts["tokenizer"].model_max_length)
            for words, *_ in ENCODERS.values()
            if parts[words] is not None
        ]
        words = [
            MARK.format(tokens([TEST], truncation=True, max_length=4).input_ids) for tokens in tokenizers
        ]
        return Prompts(encode, fingerprint(torch.nn.Module(), None, *marks, *words), readers)
