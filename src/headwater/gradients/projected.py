"""Projected per-example gradients, row by row: they consume the layers' gradients and never hold more than
one layer's."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from math import floor, log2
from time import monotonic

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Numbers
from headwater.diffusion.measure import Measurement
from headwater.errors import NonFiniteError
from headwater.examples import Examples
from headwater.gradients.hooks import LayerGradient, as_it_is, check, stream, wide
from headwater.gradients.inputs import Drawn, divisor, drawn, numbers
from headwater.gradients.layers import Layer, MatrixLayer, layers_of, parameters_of
from headwater.gradients.memory import draws_that_fit
from headwater.gradients.spec import GradientSpec
from headwater.gradients.vmap import non_finite
from headwater.linalg.project import AnyProjector, Dense, Identity, Sparse, TwoSided, project
from headwater.linalg.transfer import sent
from headwater.workers import ahead

BLOCK = 128  # examples whose rows are handed on, and written to disk, together
PATIENCE = 20.0  # seconds after which a block is handed on before it is full
SLAB = 2**28  # numbers of unprojected gradients held at once (1 GiB)
TINY = 1e-12  # a gradient shorter than this has no direction

Placed = tuple[int, Float[Tensor, "b w"]]  # a piece of a sketch, and its first coordinate


class Unprojected:
    """The gradient itself, in the order of the model's parameters, which `fold` then projects."""

    def __init__(self, layers: Sequence[Layer], projector: Dense | Sparse | Identity) -> None:
        self.layers, self.fold = layers, projector
        self.width = sum(layer.size for layer in layers)

    def keep(self, layer: Layer, a: Tensor) -> Tensor:
        return a

    def blocks(self, gradient: LayerGradient, b: int) -> Iterator[Placed]:
        for part, block in gradient.parameters(b):
            yield gradient.layer.places[part], block

    def measured(self, gradient: LayerGradient, b: int, squares: Float[Tensor, " b"]) -> Iterator[Placed]:
        """The blocks, whose squared norms are added to `squares`."""
        for place, block in self.blocks(gradient, b):
            squares += block.square().sum(1)
            yield place, block


class TwoSides:
    """L G Rᵀ for every layer whose gradient is a matrix G = Σ g ãᵀ: both sides are shortened before they are
    multiplied.

    The input is shortened in the forward pass (for a convolution by a small convolution), and only the short
    input is held."""

    def __init__(self, layers: Sequence[Layer], projector: TwoSided) -> None:
        self.layers, self.fold = layers, projector.fold
        self.left: dict[str, Tensor] = {}
        self.right: dict[str, Tensor] = {}
        self.places: dict[str, int] = {}
        self.width = 0
        side = projector.side(sum(layer.matrix is not None for layer in layers))
        for layer in layers:
            self.places[layer.name] = self.width
            if layer.matrix is None:
                self.width += layer.size
                continue
            rows, columns = layer.matrix
            like = wide(next(layer.module.parameters()).detach())
            for sides, length, end in ((self.left, rows, "left"), (self.right, columns, "right")):
                matrix = projector.matrix(side, length, layer.name, end)
                sides[layer.name] = sent(matrix, like.device, like.dtype)
            self.width += min(side, rows) * min(side, columns)

    def keep(self, layer: Layer, a: Tensor) -> Tensor:
        return (
            layer.through(a, self.right[layer.name])
            if isinstance(layer, MatrixLayer) and layer.name in self.right
            else a
        )

    def measured(self, gradient: LayerGradient, b: int, squares: Float[Tensor, " b"]) -> Iterator[Placed]:
        """The blocks of a gradient whose inputs are whole; the squared norms of the gradient itself are added
        to `squares`."""
        for _, block in gradient.parameters(b):
            squares += block.square().sum(1)
        short = [(self.keep(gradient.layer, a), g) for a, g in gradient.sides]
        yield from self.blocks(LayerGradient(gradient.layer, short), b)

    def blocks(self, gradient: LayerGradient, b: int) -> Iterator[Placed]:
        layer, place = gradient.layer, self.places[gradient.layer.name]
        if not isinstance(layer, MatrixLayer) or layer.name not in self.left:
            for _, block in gradient.parameters(b):
                yield place, block
                place += block.shape[1]
            return
        for short, g in gradient.sides:
            rows = self.left[layer.name] @ layer.outputs(g).mT @ short
            yield place, rows.view(b, -1, *rows.shape[1:]).sum(1).flatten(1)


Sketch = Unprojected | TwoSides


def projected(
    model: Denoiser,
    examples: Examples,
    spec: GradientSpec,
    projector: AnyProjector,
    *,
    rows: int | None = None,
    block: int = BLOCK,
    patience: float = PATIENCE,
    host: bool = False,
) -> Iterator[Float[Tensor, "b k"]]:
    """φ(x) = R ∇_θ mean over draws of m, for all examples in order, in blocks of at most `block` rows and,
    unprojected, at most SLAB numbers; of fewer once `patience` seconds are over.

    `rows` draws go through the model at once (None: as many as fit `model.memory`), of a power of two of
    examples, never from two blocks: a caller that resumes after a block gets the same numbers. With
    `spec.normalize`, φ(x) = mean over timesteps of R g_t(x)/‖g_t(x)‖, each g_t the sum of the gradients of
    one timestep's noises, and its norm exact. With `host` the blocks come in the processor's memory: one copy
    of each is then all that a device is waited for.

    Raises NonFiniteError with the example and timestep where a gradient is NaN or inf."""
    low, layers = 0, layers_of(model, spec.pattern)
    for features in _blocks(model, examples, spec, projector, layers, rows, power_of_two(block), patience):
        features = features.cpu() if host else features
        if not (finite := _finite(features)).all():
            raise _error(model, examples, spec, layers, low + int(finite.int().argmin()))
        low += len(features)
        yield features


def _blocks(
    model: Denoiser,
    examples: Examples,
    spec: GradientSpec,
    projector: AnyProjector,
    layers: Sequence[Layer],
    rows: int | None,
    block: int,
    patience: float,
) -> Iterator[Float[Tensor, "b k"]]:
    """The blocks of `projected`, whether finite or not."""
    # unprojected rows held together
    height = min(block, power_of_two(SLAB / sum(layer.size for layer in layers)))
    if (
        isinstance(projector, Dense) and not spec.normalize
    ):  # its entries are costly to draw: many examples share them
        sketch = Unprojected(layers, Identity())
        flat = gathered(_pieces(model, examples, spec, sketch, rows, height), height, patience)
        yield from (project(projector, gradients) for gradients in flat)
        return
    sketch = (
        TwoSides(layers, projector) if isinstance(projector, TwoSided) else Unprojected(layers, projector)
    )
    height = height if isinstance(projector, Identity) else block
    yield from gathered(_pieces(model, examples, spec, sketch, rows, height), height, patience)


def _finite(rows: Float[Tensor, "b k"]) -> Bool[Tensor, " b"]:
    """Whether all numbers of each row are finite; without a copy of them, for there may be many."""
    least, largest = rows.aminmax(dim=1)
    return torch.isfinite(least) & torch.isfinite(largest)


def _error(
    model: Denoiser, examples: Examples, spec: GradientSpec, layers: Sequence[Layer], row: int
) -> NonFiniteError:
    """The error for the example at `row`, whose features are not finite."""
    part = slice(row, row + 1)
    inputs = drawn(model, examples, part, spec.function, spec.draws)
    return non_finite(model, spec.function, *inputs, parameters_of(layers), examples.ids[part])


def _pieces(
    model: Denoiser, examples: Examples, spec: GradientSpec, sketch: Sketch, rows: int | None, block: int
) -> Iterator[Float[Tensor, "b k"]]:
    """The rows of a power of two of examples at a time, up to `block`: as many as go through the model."""
    measurement, draws = spec.function, spec.draws
    first = drawn(model, examples, slice(0, 1), measurement, draws)
    check(model, measurement, first, sketch.layers)
    keep = as_it_is if spec.normalize else sketch.keep
    rows = rows or draws_that_fit(model, measurement, first.one(0, 0), sketch.layers, keep)
    d = first.draw.t.shape[1]

    def of(part: slice, named: Numbers | None) -> Float[Tensor, "b k"]:
        inputs = drawn(model, examples, part, measurement, draws, named)
        pieces = inputs.parts(max(1, rows // draws.noises) * draws.noises)
        if spec.normalize:
            sums = (_normalised(model, measurement, piece, sketch, draws.noises) for piece in pieces)
            return _sum(sums) * draws.noises / d
        sums = (_rows(model, measurement, piece, sketch, len(piece.draw.t)) for piece in pieces)
        return _sum(sums) / divisor(measurement, d)

    height = min(block, power_of_two(rows / d))
    parts = [slice(low, min(low + height, len(examples))) for low in range(0, len(examples), height)]
    named = (numbers(model, examples, part, measurement, draws) for part in parts)
    # On a processor the thread is of no use: it takes the time that it saves from the pass.
    yield from map(of, parts, named if model.device.type == "cpu" else ahead(named))


def _sum(rows: Iterable[Float[Tensor, "b k"]]) -> Float[Tensor, "b k"]:
    return reduce(Tensor.add_, rows)


def _rows(
    model: Denoiser, measurement: Measurement, inputs: Drawn, sketch: Sketch, count: int
) -> Float[Tensor, "count k"]:
    """The folded sketch of Σ m in `count` rows, each a sum over its equal share of the draws."""
    out = _zeros(inputs, count, sketch)

    def visit(gradient: LayerGradient) -> None:
        for place, block in sketch.blocks(gradient, count):
            sketch.fold.add(out, block.to(out), place)

    stream(model, measurement, inputs, sketch.layers, visit, sketch.keep)
    return out


def _zeros(inputs: Drawn, count: int, sketch: Sketch) -> Float[Tensor, "count k"]:
    like = inputs.draw.x_t
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.zeros(count, sketch.fold.width(sketch.width), device=like.device, dtype=dtype)


def _normalised(
    model: Denoiser, measurement: Measurement, inputs: Drawn, sketch: Sketch, noises: int
) -> Float[Tensor, "b k"]:
    """Σ_t R g_t/‖g_t‖ over the timesteps of these draws, the noises of a timestep lying side by side."""
    b, d = inputs.draw.t.shape
    out = _zeros(inputs, count := b * d // noises, sketch)
    squares = out.new_zeros(count)

    def visit(gradient: LayerGradient) -> None:
        for place, block in sketch.measured(gradient, count, squares):
            sketch.fold.add(out, block.to(out), place)

    stream(model, measurement, inputs, sketch.layers, visit)
    return (out / squares.sqrt().clamp(min=TINY)[:, None]).view(b, d // noises, -1).sum(1)


def power_of_two(size: float) -> int:
    """The largest power of two that is at most `size`; 1 if there is none."""
    return 2 ** max(0, floor(log2(size)))


def gathered(
    blocks: Iterable[Float[Tensor, "_ k"]], height: int, patience: float = PATIENCE
) -> Iterator[Float[Tensor, "_ k"]]:
    """All rows in blocks of `height` rows, a multiple of the input blocks' height; lower at the end, or once
    `patience` seconds are over."""
    slab: Tensor | None = None
    filled, since = 0, monotonic()
    for block in blocks:
        slab = block.new_empty(height, block.shape[1]) if slab is None else slab
        slab[filled : filled + len(block)] = block
        filled += len(block)
        if filled == height or monotonic() - since > patience:
            yield slab[:filled]
            slab, filled, since = None, 0, monotonic()
    if slab is not None:
        yield slab[:filled]
