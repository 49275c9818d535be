"""Which parameters have Kronecker-factored curvature: those of Linear and Conv2d layers. The others are left out, and named."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from torch import Tensor, nn

from headwater.diffusion.denoiser import Denoiser
from headwater.errors import ModelError
from headwater.gradients.layers import ConvLayer, Layer, LinearLayer, MatrixLayer, layers_of


class Place(NamedTuple):
    """A block to be: its layer, the height o of its matrix, and the matrix's pieces of columns (first coordinate, number)."""

    name: str
    layer: str
    height: int
    columns: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Factored:
    """The layers with curvature. `pattern` names exactly their parameters: gradients of that pattern are its vectors [·, p]."""

    layers: tuple[MatrixLayer, ...]
    pattern: str
    left_out: tuple[str, ...]

    def places(self, joint: bool) -> tuple[Place, ...]:
        """Weight and bias as blocks of their own, or as one block, the bias its last column."""
        return tuple(place for layer in self.layers for place in _places(layer, joint))

    def inputs(self, joint: bool) -> dict[str, MatrixLayer]:
        """Each layer with a weight, as that whose `inputs` are wanted: with a 1 appended for the bias only if `joint`."""
        weighted = [layer for layer in self.layers if "weight" in layer.places]
        return {layer.name: layer if joint else replace(layer, places={"weight": layer.places["weight"]}) for layer in weighted}


def factored(model: Denoiser, pattern: str = "*") -> Factored:
    """The Linear and Conv2d layers among the model's trainable parameters of that name pattern."""
    wanted, chosen = model.parameters(pattern), []
    for name, module in model.module.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            own = [f"{name}.{part}" if name else part for part, _ in module.named_parameters(recurse=False)]
            chosen += [each for each in own if each in wanted]
            if isinstance(module, nn.Conv2d) and module.groups > 1 and any(each in wanted for each in own):
                raise ModelError(
                    f"The convolution '{name}' has {module.groups} groups; K-FAC here expects convolutions with one. "
                    "Leave it out with --set parameters=PATTERN."
                )
    if not chosen:
        some = ", ".join(list(wanted)[:3])
        raise ModelError(
            f"No Linear or Conv2d layer has parameters that match '{pattern}' (seen: {some}): K-FAC has nothing to factor. "
            "Choose others with --set parameters=PATTERN."
        )
    exact = "|".join(chosen)
    layers = tuple(cast(MatrixLayer, layer) for layer in layers_of(model, exact))
    return Factored(layers, exact, tuple(name for name in wanted if name not in set(chosen)))


def columns_of(layer: Layer) -> tuple[int, int]:
    """(o, i) of the layer's weight, without the bias."""
    weight = cast(Tensor, layer.module.weight)
    return weight.shape[0], weight[0].numel()


def factor_numbers(model: Denoiser) -> int:
    """How many numbers the factors of all layers have; a model without such layers has none."""
    try:
        layers = factored(model).layers
    except ModelError:
        return 0
    return sum(o * o + i * i for o, i in map(columns_of, layers))


def _places(layer: MatrixLayer, joint: bool) -> Sequence[Place]:
    assert isinstance(layer, LinearLayer | ConvLayer)
    height, width = columns_of(layer)
    pieces = {"weight": width, "bias": 1}
    found = [(part, (layer.places[part], pieces[part])) for part in ("weight", "bias") if part in layer.places]
    if joint and len(found) == 2:
        return [Place(layer.name, layer.name, height, tuple(columns for _, columns in found))]
    return [Place(f"{layer.name}.{part}".lstrip("."), layer.name, height, (columns,)) for part, columns in found]
