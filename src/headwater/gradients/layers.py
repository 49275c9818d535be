"""Layers whose gradients factor into their input and the gradient of their output.

Both sides have one row per (example, draw). For every kind of layer here the gradient of a row is a sum over
positions s, g_s ã_sᵀ with ã the input (a convolution's: the patch under the kernel; a 1 appended for the
bias), or for a norm g_s ⊙ â_s."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.diffusion.denoiser import Denoiser
from headwater.errors import ModelError


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """One module and its chosen parameters: `places` maps `weight` and `bias` to their first flat
    coordinate."""

    name: str
    module: nn.Module
    places: Mapping[str, int]

    @property
    def size(self) -> int:
        """The number of chosen parameters."""
        return sum(cast(Tensor, getattr(self.module, part)).numel() for part in self.places)

    @property
    def matrix(self) -> tuple[int, int] | None:
        """The gradient's shape as a matrix, where it is a sum of outer products of the two sides; None where
        it is not."""
        return None

    @abstractmethod
    def gradient(self, a: Tensor, g: Tensor, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        """The gradient of each parameter, summed over the rows of each of the b examples (their draws lie
        side by side)."""


class MatrixLayer(Layer):
    """A layer whose gradient is the matrix Σ_s g_s ã_sᵀ, [outputs, inputs (+ 1 for the bias)]."""

    @property
    def matrix(self) -> tuple[int, int] | None:
        if "weight" not in self.places:
            return None
        rows, columns = self.oriented(cast(Tensor, self.module.weight).detach()).shape
        return rows, columns + ("bias" in self.places)

    def oriented(self, weight: Tensor) -> Tensor:
        """The weight as a matrix [outputs, inputs]."""
        return weight.flatten(1)

    @abstractmethod
    def inputs(self, a: Tensor) -> Float[Tensor, "r s i"]:
        """ã at every position, for each row."""

    def outputs(self, g: Tensor) -> Float[Tensor, "r s o"]:
        """The gradient at every position of the output, for each row."""
        return g.reshape(len(g), -1, g.shape[-1])

    @abstractmethod
    def through(self, a: Tensor, matrix: Float[Tensor, "k i"]) -> Float[Tensor, "r s k"]:
        """`inputs(a)` matrixᵀ, without building `inputs(a)`."""


class LinearLayer(MatrixLayer):
    """y = Wx + b at every position."""

    def gradient(self, a: Tensor, g: Tensor, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        outputs = g.reshape(b, -1, g.shape[-1])
        if "weight" in self.places:
            yield "weight", (outputs.mT @ a.reshape(b, -1, a.shape[-1])).flatten(1)
        if "bias" in self.places:
            yield "bias", outputs.sum(1)

    def inputs(self, a: Tensor) -> Float[Tensor, "r s i"]:
        flat = a.reshape(len(a), -1, a.shape[-1])
        return F.pad(flat, (0, 1), value=1.0) if "bias" in self.places else flat

    def through(self, a: Tensor, matrix: Float[Tensor, "k i"]) -> Float[Tensor, "r s k"]:
        flat = a.reshape(len(a), -1, a.shape[-1])
        return F.linear(flat, matrix[:, : flat.shape[-1]], matrix[:, -1] if "bias" in self.places else None)


class ConvLayer(MatrixLayer):
    """A two-dimensional convolution, with any stride, padding, dilation and groups (grouped ones do not
    factor)."""

    @property
    def matrix(self) -> tuple[int, int] | None:
        return super().matrix if cast(nn.Conv2d, self.module).groups == 1 else None

    def padded(self, a: Tensor) -> tuple[Tensor, list[int]]:
        """The input and the zeros that are still to be padded; other paddings are done here."""
        conv = cast(nn.Conv2d, self.module)
        if conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
            return a, list(conv.padding)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        return F.pad(a, conv._reversed_padding_repeated_twice, mode=mode), [0, 0]

    def gradient(self, a: Tensor, g: Tensor, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        if "weight" in self.places:
            conv = cast(nn.Conv2d, self.module)
            a, padding = self.padded(a)
            # torch's weight gradient, one example at a time: its draws are the batch, and nothing is
            # unfolded.
            weights = [
                torch.ops.aten.convolution_backward(
                    g_i,
                    a_i,
                    conv.weight.detach().to(g),
                    None,
                    conv.stride,
                    padding,
                    conv.dilation,
                    False,
                    [0, 0],
                    conv.groups,
                    [False, True, False],
                )[1]
                for a_i, g_i in zip(a.chunk(b), g.chunk(b), strict=True)
            ]
            yield "weight", torch.stack(weights).flatten(1)
        if "bias" in self.places:
            yield "bias", g.sum((2, 3)).view(b, -1, g.shape[1]).sum(1)

    def inputs(self, a: Tensor) -> Float[Tensor, "r s i"]:
        conv = cast(nn.Conv2d, self.module)
        a, padding = self.padded(a)
        patches = F.unfold(
            a,
            cast(Any, conv.kernel_size),
            cast(Any, conv.dilation),
            cast(Any, padding),
            cast(Any, conv.stride),
        ).mT
        return F.pad(patches, (0, 1), value=1.0) if "bias" in self.places else patches

    def outputs(self, g: Tensor) -> Float[Tensor, "r s o"]:
        return g.flatten(2).mT

    def through(self, a: Tensor, matrix: Float[Tensor, "k i"]) -> Float[Tensor, "r s k"]:
        conv = cast(nn.Conv2d, self.module)
        a, padding = self.padded(a)
        kernel = matrix[:, : conv.weight[0].numel()].reshape(-1, *conv.weight.shape[1:])
        bias = matrix[:, -1].contiguous() if "bias" in self.places else None
        return (
            F.conv2d(a, kernel, bias, cast(Any, conv.stride), cast(Any, padding), cast(Any, conv.dilation))
            .flatten(2)
            .mT
        )


class NormLayer(Layer):
    """GroupNorm, LayerNorm, RMSNorm: y = γ ⊙ â + β with â the normalised input."""

    def gradient(self, a: Tensor, g: Tensor, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        if "weight" in self.places:
            yield "weight", self._summed(g * self._normal(a), b)
        if "bias" in self.places:
            yield "bias", self._summed(g, b)

    def _normal(self, a: Tensor) -> Tensor:
        norm = cast(Any, self.module)
        if isinstance(norm, nn.GroupNorm):
            return F.group_norm(a, norm.num_groups, eps=norm.eps)
        if isinstance(norm, nn.LayerNorm):
            return F.layer_norm(a, norm.normalized_shape, eps=norm.eps)
        return F.rms_norm(a, norm.normalized_shape, eps=norm.eps)

    def _summed(self, values: Tensor, b: int) -> Float[Tensor, "b w"]:
        """The sum over positions and draws. A GroupNorm's channels come second, the features of other norms
        last."""
        if isinstance(self.module, nn.GroupNorm):
            return values.reshape(*values.shape[:2], -1).sum(2).view(b, -1, values.shape[1]).sum(1)
        width = cast(Tensor, self.module.weight).numel()
        return values.reshape(b, -1, width).sum(1)


class EmbeddingLayer(MatrixLayer):
    """y = W[index]: the gradient of the output, added at the index. As a matrix it is [features, words]."""

    def oriented(self, weight: Tensor) -> Tensor:
        return weight.mT

    def gradient(self, a: Tensor, g: Tensor, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        weight = cast(Tensor, self.module.weight)
        index = a.reshape(b, -1, 1).expand(-1, -1, weight.shape[1])
        out = g.new_zeros(b, *weight.shape).scatter_add_(1, index, g.reshape(b, -1, weight.shape[1]))
        yield "weight", out.flatten(1)

    def inputs(self, a: Tensor) -> Float[Tensor, "r s i"]:
        weight = cast(Tensor, self.module.weight)
        return F.one_hot(a.reshape(len(a), -1), len(weight)).to(
            torch.promote_types(weight.dtype, torch.float32)
        )

    def through(self, a: Tensor, matrix: Float[Tensor, "k i"]) -> Float[Tensor, "r s k"]:
        return matrix.T[a.reshape(len(a), -1)]


KINDS: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: LinearLayer,
    nn.Conv2d: ConvLayer,
    nn.GroupNorm: NormLayer,
    nn.LayerNorm: NormLayer,
    nn.RMSNorm: NormLayer,
    nn.Embedding: EmbeddingLayer,
}


def layers_of(model: Denoiser, pattern: str = "*") -> list[Layer]:
    """The layers that hold the model's trainable parameters of this name pattern.

    Raises a ModelError that names the parameters that belong to no such layer.
    """
    _refuse_checkpointing(model.module)
    first, place = {}, 0
    for name, parameter in model.parameters(pattern).items():
        first[name], place = place, place + parameter.numel()
    layers, covered = [], set()
    for name, module in model.module.named_modules():
        names = {
            part: f"{name}.{part}" if name else part for part, _ in module.named_parameters(recurse=False)
        }
        places = {part: first[path] for part, path in names.items() if path in first}
        kind = next((layer for base, layer in KINDS.items() if isinstance(module, base)), None)
        if places and kind is not None:
            layers.append(kind(name, module, places))
            covered |= {names[part] for part in places}
    unseen = [name for name in first if name not in covered]
    if unseen:
        raise unseen_parameters(unseen)
    return layers


def parameters_of(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The parameters of these layers by name, without a graph."""
    return {
        f"{layer.name}.{part}".lstrip("."): cast(Tensor, getattr(layer.module, part)).detach()
        for layer in layers
        for part in layer.places
    }


def unseen_parameters(names: list[str]) -> ModelError:
    """The error for parameters whose gradient cannot be read off a layer's input and output."""
    first = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    kinds = ", ".join(kind.__name__ for kind in KINDS)
    return ModelError(
        f"Per-example gradients of {first} cannot be computed: expected parameters of {kinds}, each used by "
        "its own layer alone. Choose other parameters by a name pattern.",
        hint="On the command line: --set parameters=PATTERN.",
    )


def _refuse_checkpointing(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if getattr(part, "gradient_checkpointing", False):
            raise ModelError(
                f"The model's part '{name or type(part).__name__}' uses gradient checkpointing, which runs "
                "layers twice. Switch it off: model.module.disable_gradient_checkpointing()."
            )
