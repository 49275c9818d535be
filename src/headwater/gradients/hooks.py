"""Per-example gradients for little more than a training step, read off every layer's input and output and
never held in full.

One forward and one backward pass over a batch of (example, draw) rows. The parameters are frozen, so autograd
builds no weight gradient of its own; a tensor hook hands over the gradient of each layer's output.
(Goodfellow 2015, arXiv:1510.01799; for convolutions Rochette et al. 2019, arXiv:1912.06015.)"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import AnyDraws
from headwater.diffusion.measure import Measurement
from headwater.errors import ModelError
from headwater.examples import Examples
from headwater.gradients.inputs import Drawn, divisor, drawn
from headwater.gradients.layers import Layer, layers_of, parameters_of, unseen_parameters
from headwater.gradients.vmap import non_finite


class LayerGradient(NamedTuple):
    """One layer's gradient in factors: (input side as `keep` left it, output side), one pair for each call of
    the layer."""

    layer: Layer
    sides: Sequence[tuple[Tensor, Tensor]]

    def parameters(self, b: int) -> Iterator[tuple[str, Float[Tensor, "b w"]]]:
        """The exact gradient of each of its parameters, summed over each example's draws. Needs unchanged
        inputs."""
        calls = [dict(self.layer.gradient(a, g, b)) for a, g in self.sides]
        for part in calls[0]:
            yield part, sum((call[part] for call in calls[1:]), calls[0][part])


Keep = Callable[[Layer, Tensor], Tensor]


def as_it_is(layer: Layer, a: Tensor) -> Tensor:
    """Keep a layer's input, unchanged, until its gradient arrives."""
    return a


def wide(a: Tensor) -> Tensor:
    """The tensor in float32 if it has half precision: no product, sum or projection is computed in half
    precision."""
    return a.to(torch.promote_types(a.dtype, torch.float32)) if a.is_floating_point() else a


def stream(
    model: Denoiser,
    measurement: Measurement,
    inputs: Drawn,
    layers: Sequence[Layer],
    visit: Callable[[LayerGradient], None],
    keep: Keep = as_it_is,
) -> None:
    """Hand each layer's gradient of Σ_rows m(row) to `visit` as soon as the backward pass has reached it;
    then forget it.

    A row is one draw of one example. `keep` maps a layer's input to the tensor that is held from the forward
    pass on; an input held unchanged stays in the network's dtype and is visited in float32. Memory: as for a
    training step of this batch, without its weight gradients."""
    count = inputs.draw.t.numel()
    called: dict[str, int] = defaultdict(int)
    waiting: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def arrived(layer: Layer, held: list[Tensor], g: Tensor) -> None:
        waiting[layer.name].append((wide(held.pop()), lifted.undone(wide(g))))
        if len(waiting[layer.name]) == called[layer.name]:
            visit(LayerGradient(layer, waiting.pop(layer.name)))

    def watch(layer: Layer, a: Tensor, output: Tensor) -> Tensor:
        if len(a) != count:
            raise ModelError(
                f"The layer {layer.name} sees {len(a)} rows for {count} pictures: their gradients cannot be "
                "told apart."
            )
        called[layer.name] += 1
        a, widened = a.detach(), wide(a.detach())
        side = keep(layer, widened)
        held = [a if side is widened else side]
        output = output if output.requires_grad else output.requires_grad_()
        output.register_hook(lambda g: arrived(layer, held, g))
        return output

    frozen = {name: parameter.detach() for name, parameter in model.module.named_parameters()}
    hooks = [
        layer.module.register_forward_hook(
            lambda module, args, output, layer=layer: watch(layer, args[0], cast(Tensor, output))
        )
        for layer in layers
    ]
    try:
        with torch.enable_grad():
            output, lifted = _measured(model, measurement, inputs, frozen)
    finally:
        for hook in hooks:
            hook.remove()
    if output.requires_grad:
        output.backward(lifted.g)
    by_name = {layer.name: layer for layer in layers}
    for name in list(waiting):  # some calls of these layers did not reach the output
        visit(LayerGradient(by_name[name], waiting.pop(name)))


class Lifted(NamedTuple):
    """The gradient of each row's measurement by the network's output; in float16, times the power of two that
    brings its largest entry near 1. A mean's gradient would underflow: the smallest number of float16 is
    6e-8."""

    g: Float[Tensor, "r c h w"]
    by: Float[Tensor, " r"] | None = None

    @classmethod
    def of(cls, model: Denoiser, g: Float[Tensor, "r c h w"]) -> "Lifted":
        """g, lifted if the network is in float16."""
        if model.dtype != torch.float16:
            return cls(g)
        by = g.flatten(1).abs().amax(1).clamp(min=2.0**-60).log2().round().neg().exp2()
        return cls(g * by[:, None, None, None], by)

    def undone(self, g: Tensor) -> Tensor:
        """Divide a gradient that was computed from this one, row by row, by the power of two."""
        return g if self.by is None else g / self.by.view(-1, *[1] * (g.ndim - 1))


def _measured(
    model: Denoiser, measurement: Measurement, inputs: Drawn, parameters: dict[str, Tensor]
) -> tuple[Float[Tensor, "r c h w"], Lifted]:
    """The network's output for every draw, from one pass over all of them, and the gradients of their
    measurements by it."""
    draw = inputs.draw
    output = model.predict(draw.x_t.flatten(0, 1), draw.t.reshape(-1), inputs.flat, parameters)
    leaf = output.detach().requires_grad_()
    total = measurement(leaf.view_as(draw.x_t), draw, model.schedule).sum()
    return output, Lifted.of(model, *torch.autograd.grad(total, leaf))


def gradients(
    model: Denoiser,
    examples: Examples,
    measurement: Measurement,
    draws: AnyDraws,
    *,
    pattern: str = "*",
    batch: int = 16,
) -> Iterator[Float[Tensor, "b p"]]:
    """Gradients of `measurement` for all examples, `batch` at a time, in order. The rows are those of
    `vmap.gradients`, sooner."""
    layers = layers_of(model, pattern)
    p = sum(parameter.numel() for parameter in model.parameters(pattern).values())
    for start in range(0, len(examples), batch):
        rows = slice(start, min(start + batch, len(examples)))
        inputs = drawn(model, examples, rows, measurement, draws)
        b, d = inputs.draw.t.shape
        count = divisor(measurement, d)
        out = inputs.draw.x_t.new_zeros(b, p)

        def visit(gradient: LayerGradient, out: Tensor = out, b: int = b, count: int = count) -> None:
            for part, block in gradient.parameters(b):
                place = gradient.layer.places[part]
                out[:, place : place + block.shape[1]] += block / count

        if start == 0:
            check(model, measurement, inputs, layers)
        stream(model, measurement, inputs, layers, visit)
        if not torch.isfinite(out).all():
            raise non_finite(model, measurement, *inputs, model.parameters(pattern), examples.ids[rows])
        yield out


def check(model: Denoiser, measurement: Measurement, inputs: Drawn, layers: Sequence[Layer]) -> None:
    """Raise a ModelError that names the parameters whose gradient the layers do not show: shared, or used
    outside their layer.

    One draw's gradient, by hooks and by autograd, must agree up to the rounding of the model's dtype.
    """
    one = inputs.one(0, 0)
    blocks: dict[str, Tensor] = {}

    def visit(gradient: LayerGradient) -> None:
        for part, block in gradient.parameters(1):
            blocks[f"{gradient.layer.name}.{part}".lstrip(".")] = block[0].double()

    stream(model, measurement, one, layers, visit)
    live = {name: parameter.requires_grad_() for name, parameter in parameters_of(layers).items()}
    with torch.enable_grad():
        output, lifted = _measured(model, measurement, one, live)
    if not output.requires_grad:
        return
    gradients = torch.autograd.grad(output, list(live.values()), lifted.g, allow_unused=True)
    expected = {
        name: lifted.undone(g.flatten().double()[None])[0]
        for name, g in zip(live, gradients, strict=True)
        if g is not None
    }
    size = sum(float(g.square().sum()) for g in expected.values()) ** 0.5
    rounding = 32 * torch.finfo(model.dtype).eps * size
    wrong = [
        name
        for name, g in expected.items()
        if float((blocks.get(name, torch.zeros_like(g)) - g).norm()) > 0.05 * float(g.norm()) + rounding
    ]
    if wrong:
        raise unseen_parameters(wrong)
