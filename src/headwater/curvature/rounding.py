"""How much of a score rounding decides: the score beside the one that other rounding would have given.

A factor of few gradients has eigenvalues that are rounding beside its largest. Their eigenvectors are loose:
other rounding would have turned them among themselves, and changed EK-FAC's eigenvalues. Gradients of other
draws do reach there, and under a small λ their products there count most."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from headwater.curvature.kfac import Curvature
from headwater.linalg.damping import Damping
from headwater.linalg.kron import Block

AVERAGED = 1 / 16  # of the rounding of one product, in the mean of many
MOST = 0.01  # of its own influence that a query may owe to rounding without a word
ROWS = 8  # queries that are looked at


def precision(about: Mapping[str, Any]) -> float:
    """The rounding of a factor's eigenvalue beside the largest: products are rounded at least to float32, and
    a gradient's own rounding is squared."""
    dtype = getattr(torch, about["dtype"].removeprefix("torch."))
    wide = torch.promote_types(dtype, torch.float32)
    return max(torch.finfo(dtype).eps ** 2, torch.finfo(wide).eps)


def with_loose(block: Block, eps: float) -> Block:
    """A block of K-FAC with its loose eigenvectors marked on both sides."""
    rows, columns = block.values.sum(1), block.values.sum(0)
    return replace(block, loose=(rows < eps * rows.max(), columns < eps * columns.max()))


def otherwise(block: Block, eps: float) -> Float64[Tensor, "o i"]:
    """Eigenvalues that other rounding could have given: the mean over loose eigenvectors, and rounding."""
    values = block.values.clone()
    if block.loose is None:
        return values
    rows, columns = block.loose
    for side, loose in ((values, columns), (values.T, rows)):
        if bool(loose.any()):
            largest = side.amax(1, keepdim=True)
            side[:, loose] = side[:, loose].mean(1, keepdim=True) + AVERAGED * eps * largest
    return values


def decided_by_rounding(curvature: Curvature, v: Float[Tensor, "q p"], damping: Damping) -> float:
    """The mean over vectors v of |s′ − s|/s, with s = vᵀ(F + λI)⁻¹v and s′ the same of `otherwise`."""
    squares = curvature.coordinates(v[:ROWS]).double().square()
    inverse, shift = curvature.inverse(damping), curvature.shift(damping)
    eps = precision(curvature.about)
    other = curvature.flat(lambda block: otherwise(block, eps)) + shift
    s, changed = squares @ inverse, squares @ torch.where(inverse > 0, 1 / other, 0)
    return float(torch.where(s > 0, (changed - s).abs() / s, 0).mean())
