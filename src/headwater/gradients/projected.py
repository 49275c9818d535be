"""Projected per-example gradients, row by row: consumers of the layers' gradients that never hold more than one layer's."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from math import floor, log2
from time import monotonic

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import AnyDraws
from headwater.diffusion.measure import Measurement
from headwater.examples import Examples
from headwater.gradients.hooks import LayerGradient, check, stream, wide
from headwater.gradients.inputs import Drawn, divisor, drawn
from headwater.gradients.layers import Layer, MatrixLayer, layers_of, parameters_of
from headwater.gradients.memory import draws_that_fit
from headwater.gradients.vmap import non_finite
from headwater.linalg.project import AnyProjector, Dense, Identity, Sparse, TwoSided, project

BLOCK = 128  # examples whose rows are handed on, and kept on disk, together
PATIENCE = 20.0  # seconds after which a block is handed on as it is
SLAB = 2**28  # numbers of whole gradients held at once (1 GiB)


class Exact:
    """The gradient itself, in the order of the model's parameters, and then a projection of it."""

    def __init__(self, layers: Sequence[Layer], projector: Dense | Sparse | Identity) -> None:
        self.layers, self.fold = layers, projector
        self.width = sum(layer.size for layer in layers)

    def keep(self, layer: Layer, a: Tensor) -> Tensor:
        return a

    def blocks(self, gradient: LayerGradient, b: int) -> Iterator[tuple[int, Float[Tensor, "b w"]]]:
        for part, block in gradient.parameters(b):
            yield gradient.layer.places[part], block


class TwoSides:
    """L G Rᵀ for every layer whose gradient is a matrix G = Σ g ãᵀ: both sides are shortened before they are multiplied.

    The input is shortened in the forward pass (for a convolution by a small convolution), and is all that is kept of it.
    """

    def __init__(self, layers: Sequence[Layer], given: TwoSided) -> None:
        self.layers, self.fold = layers, given.fold
        self.left: dict[str, Tensor] = {}
        self.right: dict[str, Tensor] = {}
        self.places: dict[str, int] = {}
        self.width = 0
        side = given.side(sum(layer.matrix is not None for layer in layers))
        for layer in layers:
            self.places[layer.name] = self.width
            if layer.matrix is None:
                self.width += layer.size
                continue
            rows, columns = layer.matrix
            like = wide(next(layer.module.parameters()).detach())
            self.left[layer.name] = torch.as_tensor(given.matrix(side, rows, layer.name, "left")).to(like)
            self.right[layer.name] = torch.as_tensor(given.matrix(side, columns, layer.name, "right")).to(like)
            self.width += min(side, rows) * min(side, columns)

    def keep(self, layer: Layer, a: Tensor) -> Tensor:
        return layer.through(a, self.right[layer.name]) if isinstance(layer, MatrixLayer) and layer.name in self.right else a

    def blocks(self, gradient: LayerGradient, b: int) -> Iterator[tuple[int, Float[Tensor, "b w"]]]:
        layer, place = gradient.layer, self.places[gradient.layer.name]
        if not isinstance(layer, MatrixLayer) or layer.name not in self.left:
            for _, block in gradient.parameters(b):
                yield place, block
                place += block.shape[1]
            return
        for short, g in gradient.sides:
            each = self.left[layer.name] @ layer.outputs(g).mT @ short
            yield place, each.view(b, -1, *each.shape[1:]).sum(1).flatten(1)


def projected(
    model: Denoiser,
    examples: Examples,
    measurement: Measurement,
    draws: AnyDraws,
    projector: AnyProjector,
    *,
    pattern: str = "*",
    normalize: bool = False,
    rows: int | None = None,
) -> Iterator[Float[Tensor, "b k"]]:
    """φ(x) = R ∇_θ mean over draws of m, for all examples in order, in blocks of at most BLOCK rows and, unprojected,
    at most SLAB numbers.

    `rows` draws go through the model at once (None: as many as fit `model.memory`), of a power of two of examples, never from two
    blocks: whoever goes on after a block gets the same numbers. With `normalize`, φ(x) = mean over timesteps of φ_t(x)/‖φ_t(x)‖,
    each φ_t the sum over the noises of one timestep.
    """
    layers = layers_of(model, pattern)
    long = min(BLOCK, power_of_two(SLAB / sum(layer.size for layer in layers)))  # rows of whole gradients held together
    if isinstance(projector, Dense) and not normalize:  # its entries are costly to make: many examples share them
        flat = _blocks(model, examples, measurement, draws, Exact(layers, Identity()), rows, long)
        yield from (project(projector, block) for block in flat)
    else:
        sketch = TwoSides(layers, projector) if isinstance(projector, TwoSided) else Exact(layers, projector)
        height = long if isinstance(projector, Identity) else BLOCK
        yield from _blocks(model, examples, measurement, draws, sketch, rows, height, normalize)


def _blocks(
    model: Denoiser,
    examples: Examples,
    measurement: Measurement,
    draws: AnyDraws,
    sketch: Exact | TwoSides,
    rows: int | None,
    block: int,
    normalize: bool = False,
) -> Iterator[Float[Tensor, "b k"]]:
    first = drawn(model, examples, slice(0, 1), measurement, draws)
    check(model, measurement, first, sketch.layers)
    rows = rows or draws_that_fit(model, measurement, first.one(0, 0), sketch.layers, sketch.keep)
    d = first.draw.t.shape[1]

    def of(here: slice) -> Float[Tensor, "b k"]:
        given = drawn(model, examples, here, measurement, draws)
        pieces = given.parts(max(1, rows // draws.noises) * draws.noises)
        if normalize:
            found = _sum(_normalised(model, measurement, part, sketch, draws.noises) for part in pieces) * draws.noises / d
        else:
            found = _sum(_rows(model, measurement, part, sketch, len(part.draw.t)) for part in pieces) / divisor(measurement, d)
        if not torch.isfinite(found).all():
            raise non_finite(model, measurement, *given, parameters_of(sketch.layers), examples.ids[here])
        return found

    height = min(block, power_of_two(rows / d))
    batches = (slice(low, min(low + height, len(examples))) for low in range(0, len(examples), height))
    yield from gathered((of(here) for here in batches), block)


def _sum(rows: Iterable[Float[Tensor, "b k"]]) -> Float[Tensor, "b k"]:
    return reduce(Tensor.add_, rows)


def _rows(
    model: Denoiser, measurement: Measurement, given: Drawn, sketch: Exact | TwoSides, count: int
) -> Float[Tensor, "count k"]:
    """The folded sketch of Σ m in `count` rows, each a sum over its equal share of the draws."""
    like = given.draw.x_t
    dtype = torch.promote_types(like.dtype, torch.float32)
    out = torch.zeros(count, sketch.fold.width(sketch.width), device=like.device, dtype=dtype)

    def visit(gradient: LayerGradient) -> None:
        for place, block in sketch.blocks(gradient, count):
            sketch.fold.add(out, block.to(dtype), place)

    stream(model, measurement, given, sketch.layers, visit, sketch.keep)
    return out


def _normalised(
    model: Denoiser, measurement: Measurement, given: Drawn, sketch: Exact | TwoSides, noises: int
) -> Float[Tensor, "b k"]:
    """Σ_t φ_t/‖φ_t‖ over the timesteps of these draws, the noises of a timestep lying side by side."""
    b, d = given.draw.t.shape
    each = _rows(model, measurement, given, sketch, b * d)
    return torch.nn.functional.normalize(each.view(b, d // noises, noises, -1).sum(2), dim=2).sum(1)


def power_of_two(size: float) -> int:
    """The largest power of two that is at most `size`; 1 if there is none."""
    return 2 ** max(0, floor(log2(size)))


def gathered(blocks: Iterable[Float[Tensor, "_ k"]], height: int) -> Iterator[Float[Tensor, "_ k"]]:
    """The same rows in blocks `height` high, a multiple of those given; lower at the end, and where PATIENCE has run out."""
    slab: Tensor | None = None
    filled, since = 0, monotonic()
    for block in blocks:
        slab = block.new_empty(height, block.shape[1]) if slab is None else slab
        slab[filled : filled + len(block)] = block
        filled += len(block)
        if filled == height or monotonic() - since > PATIENCE:
            yield slab[:filled]
            slab, filled, since = None, 0, monotonic()
    if slab is not None:
        yield slab[:filled]
