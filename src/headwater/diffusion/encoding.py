"""What a model with an auto-encoder or a text encoder is shown: latents and embedded prompts, made once and kept in the store."""

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
from headwater.examples import Examples, Text

TOGETHER = 32  # pictures, or prompts, that are encoded at once
DECODED = 16  # pictures decoded at once
VERSION = 1  # of the numbers that given settings stand for


def encoded(model: Denoiser | None, examples: Examples, store: FeatureStore) -> Examples:
    """The examples with `latents` (the mode of each image's) and `text`, as far as the model is shown those."""
    if model is None or (model.latent is None and model.text is None):
        return examples
    latents = None if model.latent is None else posteriors(model, examples, store)[:, 0]
    text = None if model.text is None else embedded(model.text, _prompts(examples), store)
    return replace(examples, latents=latents, text=text)


def posteriors(
    model: Denoiser, examples: Examples, store: FeatureStore, *, mirrored: bool = False
) -> Float32[np.ndarray, "n 2 c h w"]:
    """Mode and standard deviation of every image's latents, or of its mirror image's: the latents of a mirror image are not
    the mirrored latents."""
    latent = model.latent
    if latent is None:
        raise DataError("The model has no auto-encoder: it is shown pixels.")
    settings = {"latents": latent.fingerprint, "mirrored": mirrored, "version": VERSION}

    def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
        for low in range(0, len(positions), TOGETHER):
            rows = positions[low : low + TOGETHER]
            pixels = torch.as_tensor(examples.take(rows).pixels())
            with torch.no_grad():
                found = torch.stack(latent.encode(pixels.flip(-1) if mirrored else pixels), 1)
            if not torch.isfinite(found).all():
                raise _not_finite("image", examples.ids[rows[_first_bad(found)]])
            yield found.flatten(1).float().cpu().numpy()

    rows = replace(store, dtype="float32").rows(settings, examples.hashes, compute)
    return rows.reshape(len(examples), 2, *model.shape)


def embedded(encoder: TextEncoder, prompts: Sequence[str], store: FeatureStore) -> Text:
    """What the text encoder makes of every prompt: of equal prompts once."""
    distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    words, settings = list(distinct), {"text": encoder.fingerprint, "version": VERSION}
    with torch.no_grad():
        shapes = {name: tuple(each.shape[1:]) for name, each in encoder.embed(words[:1]).items()}

    def compute(positions: list[int]) -> Iterator[Float32[np.ndarray, "b _"]]:
        for low in range(0, len(positions), TOGETHER):
            rows = positions[low : low + TOGETHER]
            with torch.no_grad():
                found = torch.cat([each.flatten(1).float() for each in encoder.embed([words[row] for row in rows]).values()], 1)
            if not torch.isfinite(found).all():
                raise _not_finite("prompt", repr(words[rows[_first_bad(found)]]))
            yield found.cpu().numpy()

    keys = [hashlib.blake2b(prompt.encode(), digest_size=12).hexdigest() for prompt in words]
    rows = replace(store, dtype="float32").rows(settings, keys, compute)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    parts = np.split(rows, ends[:-1], axis=1)
    tables = {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    return Text(np.array([distinct[prompt] for prompt in prompts], np.int64), tables)


def condition(model: Denoiser, labels: Int64[np.ndarray, " b"] | None, prompts: Sequence[str] | None) -> Condition:
    """What the model is told of pictures with these labels and prompts, those that it takes."""
    found = {} if labels is None or model.classes is None else {"class_labels": torch.as_tensor(labels, device=model.device)}
    if prompts is None or model.text is None:
        return found
    with torch.no_grad():
        return found | model.text.embed(prompts)


def decoded(model: Denoiser, made: Float[Tensor, "n z y x"]) -> Float[Tensor, "n c h w"]:
    """The pictures that a model made, in [−1, 1]: decoded, if it makes latents."""
    if model.latent is None:
        return made
    with torch.no_grad():
        parts = [model.latent.decode(made[low : low + DECODED]) for low in range(0, len(made), DECODED)]
    return torch.cat(parts).clamp(-1, 1)


def _prompts(examples: Examples) -> Sequence[str]:
    if examples.prompts is None:
        raise DataError("The model is conditioned on prompts and the images have none.")
    return examples.prompts


def _first_bad(found: Tensor) -> int:
    return int((~torch.isfinite(found)).flatten(1).any(1).to(torch.uint8).argmax())


def _not_finite(what: str, name: str) -> NonFiniteError:
    return NonFiniteError(
        f"The encoder made NaN or infinity of {what} {name}. Usual cause: half precision. Use float32, or look at its weights."
    )
