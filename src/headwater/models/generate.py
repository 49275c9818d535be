"""Pictures sampled from a model, as queries."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.encoding import condition, decoded
from headwater.diffusion.sample import SAMPLERS, conditioned, sample
from headwater.disk.store import unheard
from headwater.errors import NonFiniteError, OptionError, unknown
from headwater.examples import Examples, to_uint8

BATCH = 256  # pictures sampled together


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The settings of a sampler. `steps` None: 50 for ddim, all for ddpm; `guidance` g ≠ 1 leads away from
    the empty prompt's output; with `keep_path` every state x_t of the sampler's path is kept."""

    sampler: str = "ddim"
    steps: int | None = None
    guidance: float = 1.0
    keep_path: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if not math.isfinite(self.guidance):
            raise OptionError(f"guidance is {self.guidance}; expected a finite number.")

    def count(self, T: int) -> int:
        """The number of steps for a schedule of T timesteps."""
        return self.steps if self.steps is not None else 50 if self.sampler == "ddim" else T


def pictures(
    model: Denoiser,
    count: int,
    seed: int = 0,
    *,
    sampling: Sampling | None = None,
    label: int | None = None,
    prompts: Sequence[str] | None = None,
    tick: Callable[[int, int], None] = unheard,
) -> Examples:
    """`count` generated pictures as 8-bit queries, with their prompts and the latents they were decoded from.

    A conditional model takes class `label`, or all classes in turn; a text model the `prompts` in turn.
    """
    sampling = sampling or Sampling()
    labels, words = _labels(model, count, label), _words(model, count, prompts)
    starts = range(0, count, BATCH)
    batches = []
    for start in starts:
        rows = slice(start, min(start + BATCH, count))
        arguments = condition(
            model, None if labels is None else labels[rows], None if words is None else words[rows]
        )

        def on_step(step: int, total: int, start: int = start) -> None:
            tick(start // BATCH * total + step, len(starts) * total)

        batches.append(_batch(model, range(rows.start, rows.stop), seed, sampling, arguments, on_step))
    return Examples(
        np.concatenate([batch.images for batch in batches]),
        ids=tuple(f"generated-{i:03d}" for i in range(count)),
        labels=labels,
        prompts=words,
        split=("gen",) * count,
        latents=None if model.latent is None else np.concatenate([batch.outputs for batch in batches]),
        trajectory=np.concatenate([batch.path for batch in batches]) if sampling.keep_path else None,
        trajectory_timesteps=batches[-1].timesteps if sampling.keep_path else None,
    )


class _Batch(NamedTuple):
    """8-bit pictures, the model's outputs before decoding, and the sampler's path (empty unless kept)."""

    images: UInt8[np.ndarray, "b h w c"]
    outputs: Float32[np.ndarray, "b z y x"]
    path: Float32[np.ndarray, "b s z y x"]
    timesteps: Int64[np.ndarray, " s"]


def _batch(
    model: Denoiser,
    indices: range,
    seed: int,
    sampling: Sampling,
    arguments: Condition,
    on_step: Callable[[int, int], None],
) -> _Batch:
    samples = sample(
        model,
        indices,
        seed,
        sampler=sampling.sampler,
        steps=sampling.count(model.schedule.T),
        predict=conditioned(model, arguments, sampling.guidance),
        keep_path=sampling.keep_path,
        on_step=on_step,
    )
    if not torch.isfinite(samples.pictures).all():
        raise NonFiniteError(
            f"Among pictures {indices.start} to {indices.stop - 1} there is NaN or infinity, of weights in "
            f"{str(model.dtype)[6:]}. Usual causes: half precision, or weights that have diverged. Use "
            "bfloat16 or float32.",
            hint="That is --dtype bfloat16 or --dtype float32.",
        )
    images = to_uint8(decoded(model, samples.pictures).float().cpu().numpy())
    path = torch.empty(0) if samples.path is None else samples.path
    return _Batch(
        images, samples.pictures.float().cpu().numpy(), path.float().cpu().numpy(), samples.timesteps
    )


def _words(model: Denoiser, count: int, prompts: Sequence[str] | None) -> tuple[str, ...] | None:
    if model.text is None:
        if prompts:
            raise OptionError(
                f"The prompt is '{prompts[0]}', but the model takes no prompts.", hint="Leave --prompt out."
            )
        return None
    if not prompts:
        raise OptionError(
            "The model makes pictures of prompts, and there is none. Give one or more.", hint="Use --prompt."
        )
    return tuple(prompts[i % len(prompts)] for i in range(count))


def _labels(model: Denoiser, count: int, label: int | None) -> np.ndarray | None:
    if model.classes is None:
        if label is not None:
            raise OptionError(
                f"label is {label}, but the model is not class-conditional.", hint="Leave --label out."
            )
        return None
    if label is None:
        return np.arange(count, dtype=np.int64) % model.classes
    if not 0 <= label < model.classes:
        raise OptionError(
            f"label is {label}; the model has classes 0 … {model.classes - 1}.", hint="Change --label."
        )
    return np.full(count, label, np.int64)
