"""Rank correlation and the bootstrap: how well predictions order outcomes, and how sure that is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import rankdata

from headwater import seeds


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def spearman(a: Float[np.ndarray, "*b m"], b: Float[np.ndarray, "*b m"]) -> Float64[np.ndarray, "*b"]:
    """Spearman's rank correlation along the last axis, ties by mean rank; 0 where one side is constant."""
    x, y = rankdata(a, axis=-1), rankdata(b, axis=-1)
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    norm = np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))
    return np.divide((x * y).sum(-1), norm, out=np.zeros(norm.shape), where=norm > 0)


def resamples(size: int, count: int, *name: str) -> np.ndarray:
    """`count` bootstrap samples of 0 … size−1, int64 `[count, size]`, of the stream called `name`."""
    return seeds.stream(0, "bootstrap", *name).integers(0, size, size=(count, size))


def interval(mean: float, samples: Float[np.ndarray, " r"]) -> Interval:
    """The percentile interval of bootstrap `samples` around `mean`."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))
