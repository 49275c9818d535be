"""Rank correlation and the bootstrap: how well predictions order outcomes, and how sure that is. Numpy
alone."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from headwater import seeds

BLOCK = 2**20  # ranks computed at once, so that they fit the processor's cache


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def ranks(a: Float[np.ndarray, "*b m"]) -> Float64[np.ndarray, "*b m"]:
    """Ranks from 1 to m along the last axis; equal values share their mean rank."""
    return np.array([_ranked(row) for row in a.reshape(-1, a.shape[-1])]).reshape(a.shape)


def spearman(a: Float[np.ndarray, "*b m"], b: Float[np.ndarray, "*b m"]) -> Float64[np.ndarray, "*b"]:
    """Spearman's rank correlation along the last axis, ties by mean rank; 0 where one side is constant."""
    middle = (a.shape[-1] + 1) / 2
    x, y = ranks(a) - middle, ranks(b) - middle
    return _ratio((x * y).sum(-1), np.square(x).sum(-1), np.square(y).sum(-1))


def spearman_resampled(
    a: Float[np.ndarray, "q m"],
    b: Float[np.ndarray, "q m"],
    picks: Int64[np.ndarray, "r m"],
    block: int = BLOCK,
) -> Float64[np.ndarray, "r q"]:
    """`spearman(a[:, pick], b[:, pick])` of every resample `pick`, exactly, without ranking each one again.

    Where a resample holds element j c_j times, twice the centred rank of element i is Σ_j c_j·sign(x_i −
    x_j), ties included: all resamples are one product of matrices, and each correlation is weighted by c.
    These are whole numbers, sums at most m³."""
    r, m = picks.shape
    counts = np.bincount((picks + m * np.arange(r)[:, None]).ravel(), minlength=r * m).reshape(r, m)
    # float32 holds whole numbers up to 2²⁴
    counts = counts.astype(np.float32 if m**3 <= 2**24 else np.float64)
    step = max(1, block // (r * m))
    blocks = [_weighted(a[i : i + step], b[i : i + step], counts) for i in range(0, len(a), step)]
    return np.concatenate(blocks, axis=1)


def resamples(size: int, count: int, *name: str) -> Int64[np.ndarray, "r m"]:
    """`count` bootstrap samples of 0 … size−1, `[count, size]`, of the stream called `name`."""
    return seeds.generator(0, "bootstrap", *name).integers(0, size, size=(count, size))


def interval(mean: float, samples: Float[np.ndarray, " r"]) -> Interval:
    """The percentile interval of bootstrap `samples` around `mean`."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))


def _ranked(row: Float[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    _, place, count = np.unique(row, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _weighted(
    a: Float[np.ndarray, "b m"], b: Float[np.ndarray, "b m"], counts: Float[np.ndarray, "r m"]
) -> Float64[np.ndarray, "r b"]:
    """The weighted correlation of the ranks of a and b in every resample."""
    x, y = _doubled_ranks(a, counts), _doubled_ranks(b, counts)
    weighted_x, weighted_y = counts[:, None] * x, counts[:, None] * y
    sums = [np.einsum("rbm,rbm->rb", *pair) for pair in ((weighted_x, y), (weighted_x, x), (weighted_y, y))]
    return _ratio(*(array.astype(np.float64) for array in sums))


def _doubled_ranks(
    x: Float[np.ndarray, "b m"], counts: Float[np.ndarray, "r m"]
) -> Float[np.ndarray, "r b m"]:
    """2 × (rank − mean rank) of every element, among the elements of each resample."""
    signs = np.sign(x[None] - x.T[:, :, None]).astype(counts.dtype)  # [j, b, i]
    return (counts @ signs.reshape(len(x.T), -1)).reshape(len(counts), *x.shape)


def _ratio(
    product: Float64[np.ndarray, "*b"],
    square_x: Float64[np.ndarray, "*b"],
    square_y: Float64[np.ndarray, "*b"],
) -> Float64[np.ndarray, "*b"]:
    norm = np.sqrt(square_x * square_y)
    return np.divide(product, norm, out=np.zeros(norm.shape), where=norm > 0)
