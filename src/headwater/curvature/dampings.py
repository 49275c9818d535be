"""Inner products uᵀ(Λ + λ)⁻¹u' for a whole grid of λ at the price of two: coordinates with nearly equal
eigenvalues share a weight.

With z = Λ + λ₀ for the smallest λ₀, both sides are divided by √z, and any other λ weights a product by r(z) =
z/(z + λ − λ₀), smooth and between 0 and 1. Coordinates are sorted by z into bins, each WIDTH wider than the
one before. Within a bin r is a straight line through two Chebyshev nodes, so only Σ vw and Σ vw(z − z̄) of
every bin are summed, whatever the number of λ. The relative error of r is at most WIDTH²/32, 8e-5. If λ is a
multiple of each block's mean eigenvalue, z is Λ over that mean plus λ₀: one grid serves all blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from headwater.curvature.kfac import Curvature
from headwater.linalg.damping import Damping

WIDTH = 0.05  # of a bin, relative to z
TOGETHER = 64  # bins whose sums are weighted at a time


@dataclass(frozen=True, eq=False)
class DampingGrid:
    """Queries held with their coordinates in the order of z, and the weights of the bins of z at every λ."""

    queries: Float[Tensor, "q p"]
    order: Int64[Tensor, " p"]
    whitening: Float[Tensor, " p"]
    offsets: Float[Tensor, " p"]  # where z lies in its bin, −1 … 1
    edges: Sequence[int]  # the first coordinate of every bin, and the end
    heights: Float[Tensor, "λ bins"]
    slopes: Float[Tensor, "λ bins"]

    def products(self, u: Float[Tensor, "b p"]) -> Float[Tensor, "b _"]:
        """Products with every query and, last, with itself, one λ after the other: [λ₁ (q+1) | λ₂ (q+1) | …]
        a row."""
        v = (u * self.whitening)[:, self.order]
        tilted = v * self.offsets
        b, q = len(u), len(self.queries)
        out = u.new_zeros(len(self.heights), b * (q + 1))
        for low in range(0, self.heights.shape[1], TOGETHER):
            chunk = slice(low, low + TOGETHER)
            bins = [
                slice(*pair)
                for pair in zip(self.edges[chunk], self.edges[low + 1 : low + 1 + TOGETHER], strict=False)
            ]
            for side, weights in ((v, self.heights), (tilted, self.slopes)):
                out += weights[:, chunk] @ torch.stack(
                    [self._in_bin(v, side, columns) for columns in bins]
                ).flatten(1)
        return out.view(-1, b, q + 1).transpose(0, 1).flatten(1)

    def _in_bin(
        self, v: Float[Tensor, "b p"], side: Float[Tensor, "b p"], columns: slice
    ) -> Float[Tensor, "b q1"]:
        with_itself = (v[:, columns] * side[:, columns]).sum(1, keepdim=True)
        return torch.cat([side[:, columns] @ self.queries[:, columns].mT, with_itself], 1)


def damping_grid(
    curvature: Curvature, gradients: Iterable[Float[Tensor, "_ p"]], dampings: Sequence[Damping]
) -> DampingGrid:
    """The grid of `dampings` for the queries with these `gradients`."""
    least = min(dampings, key=lambda damping: damping.value)
    inverse = curvature.inverse(least)
    alive = inverse > 0  # a dead direction has weight 0 at every λ: any z will do
    z = torch.where(alive, 1 / (inverse * curvature.shift(Damping(1.0, least.absolute))), 1.0)
    order = torch.argsort(z, stable=True)
    z, like = z[order], curvature.blocks[0].left
    number = torch.floor(torch.log(z / z[0]) / log(1 + WIDTH)).long().cpu().numpy()
    edges = np.append(np.unique(number, return_index=True)[1], len(number))
    low, high = z[edges[:-1]], z[edges[1:] - 1]
    middle, half = (low + high) / 2, (high - low) / 2
    node = half / sqrt(2)
    first, last = (_ratios(nodes, dampings, least) for nodes in (middle - node, middle + node))
    slopes = torch.where(half > 0, (last - first) / torch.where(half > 0, 2 * node, 1) * half, 0)
    which = torch.as_tensor(np.repeat(np.arange(len(low)), np.diff(edges)), device=z.device)
    offsets = torch.where(half[which] > 0, (z - middle[which]) / torch.where(half > 0, half, 1)[which], 0)
    whitening = inverse.sqrt().to(like)
    rows = [(curvature.coordinates(block) * whitening)[:, order] for block in gradients]
    queries = torch.cat(rows) if rows else like.new_zeros(0, len(order))
    return DampingGrid(
        queries,
        order,
        whitening,
        offsets.to(like),
        edges.tolist(),
        ((first + last) / 2).to(like),
        slopes.to(like),
    )


def _ratios(
    z: Float64[Tensor, " bins"], dampings: Sequence[Damping], least: Damping
) -> Float64[Tensor, "λ bins"]:
    """z/(z + λ − λ₀) for every λ."""
    return torch.stack([z / (z + damping.value - least.value) for damping in dampings])
