"""Kronecker-factored curvature covers the parameters of Linear and Conv2d layers; all others are left out,
and named."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from torch import Tensor, nn

from headwater.diffusion.denoiser import Denoiser
from headwater.errors import ModelError
from headwater.gradients.layers import ConvLayer, Layer, LinearLayer, MatrixLayer, layers_of


class BlockPlace(NamedTuple):
    """A block's layer, the height o of its matrix, and the matrix's pieces of columns (first coordinate,
    number)."""

    name: str
    layer: str
    height: int
    columns: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Factored:
    """The layers with curvature. `pattern` matches exactly their parameters: its gradients are the vectors
    [·, p]."""

    layers: tuple[MatrixLayer, ...]
    pattern: str
    left_out: tuple[str, ...]

    def places(self, joint: bool) -> tuple[BlockPlace, ...]:
        """Weight and bias as two blocks or, if `joint`, as one block with the bias as its last column."""
        return tuple(place for layer in self.layers for place in _places(layer, joint))

    def inputs(self, joint: bool) -> dict[str, MatrixLayer]:
        """Each layer with a weight. Its `inputs` have a 1 appended for the bias only if `joint`."""
        weighted = [layer for layer in self.layers if "weight" in layer.places]
        return {
            layer.name: layer if joint else replace(layer, places={"weight": layer.places["weight"]})
            for layer in weighted
        }


def factored(model: Denoiser, pattern: str = "*") -> Factored:
    """The Linear and Conv2d layers among the model's trainable parameters that match `pattern`."""
    parameters = model.parameters(pattern)
    chosen = _with_curvature(model, parameters)
    if not chosen:
        first = ", ".join(list(parameters)[:3])
        raise ModelError(
            f"No Linear or Conv2d layer has parameters that match '{pattern}' (seen: {first}): K-FAC has "
            "nothing to factor. Choose other `parameters`.",
            hint="Use --set parameters=PATTERN.",
        )
    exact = "|".join(chosen)
    layers = tuple(cast(MatrixLayer, layer) for layer in layers_of(model, exact))
    return Factored(layers, exact, tuple(name for name in parameters if name not in set(chosen)))


def _with_curvature(model: Denoiser, parameters: Container[str]) -> list[str]:
    """Those of these parameters that belong to Linear and Conv2d layers."""
    chosen = []
    for name, module in model.module.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            names = [f"{name}.{part}" if name else part for part, _ in module.named_parameters(recurse=False)]
            matching = [parameter for parameter in names if parameter in parameters]
            chosen += matching
            if isinstance(module, nn.Conv2d) and module.groups > 1 and matching:
                raise ModelError(
                    f"The convolution '{name}' has {module.groups} groups; K-FAC here expects convolutions "
                    "with one. Choose `parameters` without it.",
                    hint="Use --set parameters=PATTERN.",
                )
    return chosen


def columns_of(layer: Layer) -> tuple[int, int]:
    """(o, i) of the layer's weight, without the bias."""
    weight = cast(Tensor, layer.module.weight)
    return weight.shape[0], weight[0].numel()


def factor_numbers(model: Denoiser) -> int:
    """The total size of the factors of all layers; 0 for a model without such layers."""
    try:
        layers = factored(model).layers
    except ModelError:
        return 0
    return sum(o * o + i * i for o, i in map(columns_of, layers))


def _places(layer: MatrixLayer, joint: bool) -> Sequence[BlockPlace]:
    assert isinstance(layer, LinearLayer | ConvLayer)
    height, width = columns_of(layer)
    pieces = {"weight": width, "bias": 1}
    columns = [
        (part, (layer.places[part], pieces[part])) for part in ("weight", "bias") if part in layer.places
    ]
    if joint and len(columns) == 2:
        return [BlockPlace(layer.name, layer.name, height, tuple(piece for _, piece in columns))]
    return [
        BlockPlace(f"{layer.name}.{part}".lstrip("."), layer.name, height, (piece,))
        for part, piece in columns
    ]
