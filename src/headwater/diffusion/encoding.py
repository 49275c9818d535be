"""Latents and embedded prompts, computed once and stored."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from headwater.diffusion.denoiser import Condition, Denoiser, TextEncoder
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, NonFiniteError
from headwater.examples import Examples, Text, with_channels

TOGETHER = 32  # pictures, or prompts, encoded at once
DECODED = 16  # pictures decoded at once
VERSION = 1  # of the numbers stored under given settings


def encoded(model: Denoiser | None, examples: Examples, store: FeatureStore) -> Examples:
    """The examples with the channels, `latents` (their mode) and `text` that the model takes."""
    if model is None:
        return examples
    examples = with_channels(examples, model.pictures[0])
    if model.latent is None and model.text is None:
        return examples
    latents = None if model.latent is None else posteriors(model, examples, store)[:, 0]
    text = None if model.text is None else embedded_prompts(model.text, _prompts(examples), store)
    return replace(examples, latents=latents, text=text)


def posteriors(
    model: Denoiser, examples: Examples, store: FeatureStore, *, mirrored: bool = False
) -> Float32[np.ndarray, "n 2 c h w"]:
    """Mode and standard deviation of the images' latents, or of their mirror images' latents."""
    latent = model.latent
    if latent is None:
        raise DataError("The model has no auto-encoder: it takes pixels.")
    examples = with_channels(examples, model.pictures[0])
    settings = {"latents": latent.fingerprint, "mirrored": mirrored, "version": VERSION}

    def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
        for low in range(0, len(positions), TOGETHER):
            rows = positions[low : low + TOGETHER]
            pixels = torch.as_tensor(examples.take(rows).pixels())
            with torch.no_grad():
                posterior = torch.stack(latent.encode(pixels.flip(-1) if mirrored else pixels), 1)
            if not torch.isfinite(posterior).all():
                raise _not_finite("image", examples.ids[rows[_first_bad(posterior)]])
            yield posterior.flatten(1).float().cpu().numpy()

    rows = replace(store, dtype="float32").rows(settings, examples.hashes, compute)
    return rows.reshape(len(examples), 2, *model.shape)


def embedded_prompts(encoder: TextEncoder, prompts: Sequence[str], store: FeatureStore) -> Text:
    """The encoded prompts; equal prompts are encoded once."""
    distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    words, settings = list(distinct), {"text": encoder.fingerprint, "version": VERSION}
    with torch.no_grad():
        shapes = {name: tuple(table.shape[1:]) for name, table in encoder.embed(words[:1]).items()}

    def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
        for low in range(0, len(positions), TOGETHER):
            rows = positions[low : low + TOGETHER]
            with torch.no_grad():
                tables = encoder.embed([words[row] for row in rows])
            block = torch.cat([table.flatten(1).float() for table in tables.values()], 1)
            if not torch.isfinite(block).all():
                raise _not_finite("prompt", repr(words[rows[_first_bad(block)]]))
            yield block.cpu().numpy()

    keys = [hashlib.blake2b(prompt.encode(), digest_size=12).hexdigest() for prompt in words]
    rows = replace(store, dtype="float32").rows(settings, keys, compute)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(rows, ends[:-1], axis=1)
    tables = {
        name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
    return Text(np.array([distinct[prompt] for prompt in prompts], np.int64), tables)


def notes_on_prompts(encoder: TextEncoder | None, prompts: Sequence[str] | None, kind: str) -> list[str]:
    """Notes on prompts of the `kind` of images that are longer than the encoder sees."""
    if encoder is None or prompts is None:
        return []
    return [
        f"{cut.prompts:,} of the {len(prompts):,} captions of the {kind} are longer than the {cut.tokens} "
        f"tokens that {cut.encoder} sees: the rest is cut off, as in training."
        for cut in encoder.cuts(prompts)
        if cut.prompts
    ]


def condition(
    model: Denoiser, labels: Int64[np.ndarray, " b"] | None, prompts: Sequence[str] | None
) -> Condition:
    """The model's condition for pictures with these labels and prompts, as far as it takes them."""
    by_label = (
        {}
        if labels is None or model.classes is None
        else {"class_labels": torch.as_tensor(labels, device=model.device)}
    )
    if prompts is None or model.text is None:
        return by_label
    with torch.no_grad():
        return by_label | model.text.embed(prompts)


def decoded(model: Denoiser, outputs: Float[Tensor, "n z y x"]) -> Float[Tensor, "n c h w"]:
    """The model's sampled outputs as pictures in [−1, 1]: decoded if they are latents."""
    if model.latent is None:
        return outputs
    with torch.no_grad():
        parts = [model.latent.decode(outputs[low : low + DECODED]) for low in range(0, len(outputs), DECODED)]
    return torch.cat(parts).clamp(-1, 1)


def _prompts(examples: Examples) -> Sequence[str]:
    if examples.prompts is None:
        raise DataError("The model is conditioned on prompts and the images have none.")
    return examples.prompts


def _first_bad(block: Tensor) -> int:
    return int((~torch.isfinite(block)).flatten(1).any(1).to(torch.uint8).argmax())


def _not_finite(kind: str, name: str) -> NonFiniteError:
    return NonFiniteError(
        f"The encoder made NaN or infinity of {kind} {name}. Usual cause: half precision. Use float32, or "
        "check its weights."
    )
