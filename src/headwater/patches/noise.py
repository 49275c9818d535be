"""Noisy forms of a picture: x_t = √ᾱ x + σε, σ² = 1 − ᾱ."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from headwater import seeds


class Noisy(NamedTuple):
    """x_t = √ᾱ x + σε, with √ᾱ and σ² = 1 − ᾱ."""

    x_t: Float[np.ndarray, "c h w"]
    signal: float
    variance: float


def noised(
    x: Float32[np.ndarray, "c h w"], content: str | None, t: int, alpha_bar: float, noises: int, seed: int
) -> Iterator[Noisy]:
    """x_t for each of `noises` draws of ε, seeded by the picture's content, or shared by all pictures if it
    is None.

    Without noises: √ᾱ_t x alone.
    """
    signal, variance = float(np.sqrt(alpha_bar)), 1 - alpha_bar
    for j in range(max(1, noises)):
        name = ("shared noise", t, j) if content is None else ("noise", content, t, j)
        epsilon = seeds.normal(x.shape, seed, *name) if noises else np.zeros_like(x)
        yield Noisy((signal * x + np.sqrt(variance) * epsilon).astype(np.float32), signal, variance)
