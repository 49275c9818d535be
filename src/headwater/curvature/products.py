"""The two sides of vᵀ(F + λI)⁻¹g: queries' gradients v held, training images' gradients g streamed past them, for many λ at once.

In eigen-coordinates a damping is one scale an element. Held are the whitened u_v/√(Λ + λ₀) with λ₀ the smallest λ, in which a
gradient of typical size has the same variance everywhere: compression then costs every direction alike. A streamed u_g meets them
as u_g √(Λ + λ₀)/(Λ + λ), for every λ.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from headwater.curvature.compression import Held, Piece, held
from headwater.curvature.dampings import Grid, grid
from headwater.curvature.kfac import Curvature
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients.projected import BLOCK, gathered, projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.damping import Damping
from headwater.linalg.project import Identity
from headwater.workers import in_order

MANY = 4  # dampings from which on a grid is the cheaper


@dataclass(frozen=True, eq=False)
class Side:
    """What a streamed gradient meets at one λ: held queries, how its coordinates count for them, and how for itself."""

    queries: Sequence[Held]
    weights: Float[Tensor, " p"]
    own: Float[Tensor, " p"]

    def products(self, u: Float[Tensor, "b p"]) -> Float[Tensor, "b q1"]:
        """With every query, and last with itself."""
        mine = (u.square() @ self.own)[:, None]
        weighted = u * self.weights if self.queries else u
        return torch.cat([*(each.times(weighted).mT for each in self.queries), mine], 1)


def sides(
    curvature: Curvature,
    gradients: Iterable[Float[Tensor, "_ p"]],
    dampings: Sequence[Damping],
    *,
    compression: str = "float32",
) -> Sequence[Side | Grid]:
    """The queries' side for these dampings. All share the held queries; many dampings of whole queries are a Grid."""
    if compression == "float32" and len(dampings) >= MANY:
        return [grid(curvature, gradients, dampings)]
    inverses = [curvature.inverse(damping) for damping in dampings]
    whitening = torch.stack(inverses).amax(0).sqrt()
    pieces, kept = pieces_of(curvature), []
    for block in gradients:
        u = curvature.coordinates(block)
        kept.append(held(u * whitening.to(u), pieces, compression))
    like = curvature.blocks[0].left
    return [Side(kept, _over(inverse, whitening).to(like), inverse.to(like)) for inverse in inverses]


def refined(curvature: Curvature, x: Float[Tensor, "q p"], inverse: Float64[Tensor, " p"], compression: str) -> Side:
    """The same of solutions x = (G + λI)⁻¹v found by other means, at one λ."""
    u, whitening = curvature.coordinates(x), inverse.sqrt()
    kept = held(u * _over(torch.ones_like(inverse), whitening).to(u), pieces_of(curvature), compression)
    return Side([kept], whitening.to(u), inverse.to(u))


def pieces_of(curvature: Curvature) -> list[Piece]:
    """Every parameter tensor of its blocks, in order."""
    return sorted(Piece(first, len(block.left), width) for block in curvature.blocks for first, width in block.columns)


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and 0 where b is."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


class Streamed(NamedTuple):
    """Training images whose gradients of the loss go past the sides."""

    model: Denoiser
    examples: Examples
    curvature: Curvature
    draws: Draws
    normalize: bool
    sides: Sequence[Side | Grid]

    def products(self, here: slice) -> Iterator[Float[Tensor, "b _"]]:
        """A row for each image of those at `here`: what each side makes of it, one after the other."""
        chosen = self.examples.take(np.arange(len(self.examples))[here])
        spec = GradientSpec("simple", self.draws, self.curvature.pattern, self.normalize)
        for block in projected(self.model, chosen, spec, Identity()):
            u = self.curvature.coordinates(block)
            yield torch.cat([side.products(u) for side in self.sides], 1)

    def through(self, store: FeatureStore) -> Iterator[Float32[np.ndarray, "b _"]]:
        """The rows of all images in order, computed by the store's crew."""
        if store.crew is None:
            yield from (block.float().cpu().numpy() for block in gathered(self.products(slice(None)), BLOCK))
            return
        parts = [slice(low, low + BLOCK) for low in range(0, len(self.examples), BLOCK)]
        yield from in_order(store.crew.work(_products, self, parts), parts)


def _products(what: Streamed, here: slice) -> Float32[np.ndarray, "b _"]:
    return torch.cat(list(what.products(here))).float().cpu().numpy()
