"""K-FAC's two factors of every layer, as sums with counts: the second moments of its inputs and of its
outputs' gradients.

A layer's gradient of one draw is Σ_s g_s a_sᵀ over positions s. Expand: A = E mean_s a_s a_sᵀ and B = E Σ_s
g_s g_sᵀ; reduce: A = E (mean_s a_s)(mean_s a_s)ᵀ and B = E (Σ_s g_s)(Σ_s g_s)ᵀ. (Eschenhagen et al. 2023,
arXiv:2311.00636, equations 22 and 25; arXiv:2410.13850, equation 12, whose 1/N² with two sums is this product
of means.) A module called twice has twice the positions.

Under reduce Σ_s g_s may cancel to nothing but rounding: the softmax of attention does not feel a constant
added to all keys, so B of `to_k` is zero. E Σ_s ‖g_s‖² is summed beside it, to tell what is rounding.

Cost beside one forward and backward pass: o² a position for B and i² for A; for a 3×3 convolution of stride
1, 2 c² in place of 81 c² (`moments`)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from headwater.curvature.fisher import Fisher, finite, gradient_passes, gradients_that_fit
from headwater.curvature.moments import assembled, of_maps, overlaps, summed
from headwater.curvature.parameters import Factored, columns_of, factored
from headwater.curvature.sums import Sums
from headwater.diffusion.denoiser import Denoiser
from headwater.errors import unknown
from headwater.examples import Examples
from headwater.gradients.hooks import LayerGradient
from headwater.gradients.layers import Layer, MatrixLayer

VARIANTS = ("expand", "reduce")
WIDE = (torch.float32, torch.float64)  # sums of narrower numbers would lose too much
SLAB = 2**24  # numbers of an unfolded input that are held at a time


def factors(
    model: Denoiser,
    examples: Examples,
    fisher: Fisher,
    *,
    variant: str = "expand",
    joint: bool = False,
    pattern: str = "*",
    rows: int | None = None,
) -> Sums:
    """The sums behind the means A and B of every Linear and Conv2d layer, named `layer/A` and `layer/B`;
    under reduce also those behind `layer/size`, the trace of B if nothing cancelled.

    `joint`: weight and bias are one block, with a 1 appended to every a_s. `rows` gradients go through the
    model at a time (None: as many as fit `model.memory`), which changes nothing beyond rounding. Raises a
    NonFiniteError that names the example."""
    if variant not in VARIANTS:
        raise unknown("K-FAC variant", variant, VARIANTS)
    model.check(examples)
    chosen = factored(model, pattern)
    height = rows or gradients_that_fit(model, examples, fisher, chosen.layers, _nothing)
    total = FactorSums(chosen, fisher, variant, joint, model.device)
    count = 0
    for batch in gradient_passes(model, examples, fisher, height):
        total.begin(len(batch.ids))
        batch.stream(model, fisher.measurement, chosen.layers, total, total.keep)
        count += len(batch.ids)
    about = {
        "what": "factors",
        "model": model.fingerprint,
        "fisher": fisher.kind,
        "average": fisher.average,
        "variant": variant,
        "joint": joint,
        "parameters": chosen.pattern,
        "left_out": list(chosen.left_out),
        "dtype": str(model.dtype),
    }
    part = {"examples": examples.fingerprint, "gradients": count, **fisher.manifest()}
    return Sums(about, (part,), {name: tensor.cpu() for name, tensor in total.totals().items()}, total.counts)


def _nothing(layer: Layer, a: Tensor) -> Tensor:
    """Nothing of the input is kept: its share of A is added in the forward pass."""
    return a.new_empty(0)


@dataclass(eq=False)
class FactorSums:
    """Sums, added to pass by pass: A's in the forward pass (expand), or after all calls (reduce); B's in the
    backward pass.

    `weighted`: the layers with a weight, and so with an A, by name. `u`: gradients in the present pass.
    """

    chosen: Factored
    fisher: Fisher
    variant: str
    joint: bool
    device: torch.device
    tensors: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    # of convolutions whose patches are not unfolded
    overlapping: dict[str, Tensor] = field(default_factory=dict)
    finite: bool = True
    weighted: dict[str, MatrixLayer] = field(init=False)
    u: int = 0

    def __post_init__(self) -> None:
        self.weighted = self.chosen.inputs(self.joint)
        for layer in self.chosen.layers:
            o, i = columns_of(layer)
            sizes = {"B": o} | (
                {"A": i + (self.joint and "bias" in layer.places)} if layer.name in self.weighted else {}
            )
            for side, size in sizes.items():
                self.tensors[f"{layer.name}/{side}"] = torch.zeros(
                    size, size, dtype=torch.float64, device=self.device
                )
                self.counts[f"{layer.name}/{side}"] = 0
            if self.variant == "reduce":
                self.tensors[f"{layer.name}/size"] = torch.zeros((), dtype=torch.float64, device=self.device)
                self.counts[f"{layer.name}/size"] = 0

    def begin(self, u: int) -> None:
        """Start a pass of u gradients. For a layer that no gradient reaches, u zeros count."""
        self.u = u
        for layer in self.chosen.layers:
            self.counts[f"{layer.name}/B"] += u
            if self.variant == "reduce":
                self.counts[f"{layer.name}/size"] += u

    def keep(self, layer: Layer, a: Tensor) -> Tensor:
        """Nothing (expand), or the input summed over each gradient's positions, followed by their number
        (reduce)."""
        if layer.name not in self.weighted:
            return _nothing(layer, a)
        if self.variant == "expand":
            self._moment(layer, a)
            return _nothing(layer, a)
        sums, positions = [], 0
        for rows in self._unfolded(layer, a):
            sums.append(rows.sum(1))
            positions = rows.shape[1]
        summed = torch.cat(sums).view(self.u, self.fisher.rows, -1).sum(1)
        return torch.cat([summed, summed.new_full((self.u, 1), positions * self.fisher.rows)], 1)

    def visit(self, gradient: LayerGradient) -> None:
        layer = gradient.layer
        if self.variant == "expand":
            for _, g in gradient.sides:
                self._put(f"{layer.name}/B", self._of_outputs(layer, g / self.fisher.rows))
            return
        sides = [self._outputs(layer, g) for _, g in gradient.sides]
        self._add(f"{layer.name}/B", torch.stack([side.sum(1) for side in sides]).sum(0))
        self.tensors[f"{layer.name}/size"] += torch.stack([side.square().sum() for side in sides]).sum()
        if layer.name in self.weighted:
            total = torch.stack([a for a, _ in gradient.sides]).sum(0)
            self._add(f"{layer.name}/A", total[:, :-1] / total[:, -1:], self.u)

    def totals(self) -> dict[str, Tensor]:
        """All sums, with the moments of overlapping patches assembled."""
        for name, sums in self.overlapping.items():
            self.tensors[name] += assembled(self.weighted[name.removesuffix("/A")], sums)
        self.overlapping.clear()
        return self.tensors

    def _moment(self, layer: Layer, a: Tensor) -> None:
        """Add Σ ã ãᵀ over all rows and positions to A."""
        name, one = f"{layer.name}/A", self.weighted[layer.name]
        if overlaps(one) and "bias" not in one.places and a.dtype in WIDE:
            sums = summed(one, a)
            self.finite = self.finite and finite(sums[0].diagonal())
            self.overlapping[name] = self.overlapping.get(name, 0) + sums.double()
            self.counts[name] += a.shape[0] * a[0, 0].numel()
            return
        for rows in self._unfolded(layer, a):
            self._add(name, rows.flatten(0, 1), rows.shape[0] * rows.shape[1])

    def _of_outputs(self, layer: Layer, g: Tensor) -> Float[Tensor, "o o"]:
        """Σ g gᵀ over all rows and positions."""
        if g.ndim == 4 and g.dtype in WIDE:
            return of_maps(g)
        rows = cast(MatrixLayer, layer).outputs(g).flatten(0, 1)
        return _squared(rows)

    def _unfolded(self, layer: Layer, a: Tensor) -> Iterator[Float[Tensor, "r s i"]]:
        """The inputs at every position, in slabs of rows."""
        one = self.weighted[layer.name]
        size = one.inputs(a[:1]).numel()
        for part in a.split(max(1, SLAB // size)):
            yield one.inputs(part)

    def _outputs(self, layer: Layer, g: Tensor) -> Float[Tensor, "u s o"]:
        """The gradient at every position; for an average over draws, each draw's part."""
        outputs = cast(MatrixLayer, layer).outputs(g)
        return outputs.reshape(self.u, -1, outputs.shape[-1]) / self.fisher.rows

    def _add(self, name: str, rows: Float[Tensor, "r w"], count: int = 0) -> None:
        self._put(name, _squared(rows), count)

    def _put(self, name: str, moment: Float[Tensor, "w w"], count: int = 0) -> None:
        # a NaN or infinity in a row shows in its square
        self.finite = self.finite and finite(moment.diagonal())
        self.tensors[name] += moment
        self.counts[name] += count


def _squared(rows: Float[Tensor, "r w"]) -> Float[Tensor, "w w"]:
    """Σ over rows of row rowᵀ, at least in float32."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return rows.mT @ rows
