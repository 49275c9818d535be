"""The two sides of vᵀ(F + λI)⁻¹g for many λ: queries' gradients v held, training images' gradients g streamed
past them.

In eigen-coordinates a damping scales each element. A query is held whitened, u_v/√(Λ + λ₀) with λ₀ the
smallest λ, so that a typical gradient has the same variance in every direction: compression then costs all
directions equally. A streamed u_g is multiplied as u_g √(Λ + λ₀)/(Λ + λ), for every λ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from headwater.curvature.compression import Held, Piece, held
from headwater.curvature.dampings import DampingGrid, damping_grid
from headwater.curvature.kfac import Curvature
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients.projected import BLOCK, gathered, power_of_two, projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.damping import Damping
from headwater.linalg.project import Identity
from headwater.workers import in_order

MANY = 4  # from this number of dampings on, a grid is cheaper


@dataclass(frozen=True, eq=False)
class Side:
    """The held queries at one λ, and the weights of a streamed gradient's coordinates: with queries, and with
    itself."""

    queries: Sequence[Held]
    weights: Float[Tensor, " p"]
    self_weights: Float[Tensor, " p"]

    def products(self, u: Float[Tensor, "b p"]) -> Float[Tensor, "b q1"]:
        """Products with every query and, last, with itself."""
        with_itself = (u.square() @ self.self_weights)[:, None]
        weighted = u * self.weights if self.queries else u
        return torch.cat([*(block.times(weighted).mT for block in self.queries), with_itself], 1)


def query_sides(
    curvature: Curvature,
    gradients: Iterable[Float[Tensor, "_ p"]],
    dampings: Sequence[Damping],
    *,
    compression: str = "float32",
) -> Sequence[Side | DampingGrid]:
    """The queries' side at each damping, all with the same held queries; MANY or more, without compression,
    as one grid."""
    if compression == "float32" and len(dampings) >= MANY:
        return [damping_grid(curvature, gradients, dampings)]
    inverses = [curvature.inverse(damping) for damping in dampings]
    whitening = torch.stack(inverses).amax(0).sqrt()
    pieces, rows = pieces_of(curvature), map(curvature.coordinates, gradients)
    queries = [held(u * whitening.to(u), pieces, compression) for u in rows]
    like = curvature.blocks[0].left
    return [Side(queries, _over(inverse, whitening).to(like), inverse.to(like)) for inverse in inverses]


def refined_side(
    curvature: Curvature, x: Float[Tensor, "q p"], inverse: Float64[Tensor, " p"], compression: str
) -> Side:
    """The queries' side when x = (G + λI)⁻¹v has already been solved iteratively, for one λ."""
    u, whitening = curvature.coordinates(x), inverse.sqrt()
    queries = held(u * _over(torch.ones_like(inverse), whitening).to(u), pieces_of(curvature), compression)
    return Side([queries], whitening.to(u), inverse.to(u))


def pieces_of(curvature: Curvature) -> list[Piece]:
    """Every parameter tensor of the curvature's blocks, in order."""
    return sorted(
        Piece(first, len(block.left), width) for block in curvature.blocks for first, width in block.columns
    )


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a/b, and 0 where b is 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


class Streamed(NamedTuple):
    """The training images' gradients of the loss, streamed past the sides."""

    model: Denoiser
    examples: Examples
    curvature: Curvature
    draws: Draws
    normalize: bool
    sides: Sequence[Side | DampingGrid]

    def products(self, images: slice, block: int = BLOCK) -> Iterator[Float[Tensor, "b _"]]:
        """A row for each of these images: its products with each side, one side after the other.

        At most `block` rows at a time."""
        chosen = self.examples.take(np.arange(len(self.examples))[images])
        spec = GradientSpec("simple", self.draws, self.curvature.pattern, self.normalize)
        for gradients in projected(self.model, chosen, spec, Identity(), block=block):
            u = self.curvature.coordinates(gradients)
            yield torch.cat([side.products(u) for side in self.sides], 1)

    def through(self, store: FeatureStore) -> Iterator[Float32[np.ndarray, "b _"]]:
        """The rows of all images in order, computed by the store's crew, a block for each job."""
        block = power_of_two(store.rows_together(BLOCK))
        if store.crew is None:
            rows = gathered(self.products(slice(None), block), block)
            yield from (products.float().cpu().numpy() for products in rows)
            return
        parts = [slice(low, low + block) for low in range(0, len(self.examples), block)]
        travelling = self._replace(model=self.model.alone())
        yield from in_order(store.crew.work(_products, travelling, parts), parts)


def _products(streamed: Streamed, images: slice) -> Float32[np.ndarray, "b _"]:
    return torch.cat(list(streamed.products(images))).float().cpu().numpy()
