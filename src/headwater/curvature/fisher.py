"""The outer products behind a curvature: whose gradients, of which draws, and in which batches they are
computed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, Draws, PseudoTargets
from headwater.diffusion.measure import Measurement, pseudo, simple_sum
from headwater.errors import OptionError, unknown
from headwater.examples import Examples
from headwater.gradients.hooks import Keep, LayerGradient, as_it_is, check, stream
from headwater.gradients.inputs import Drawn, drawn
from headwater.gradients.layers import MatrixLayer, parameters_of
from headwater.gradients.memory import draws_that_fit
from headwater.gradients.vmap import non_finite

KINDS = ("model", "loss")


@runtime_checkable
class Total(Protocol):
    """Sums over gradients, added to layer by layer, and whether all of them are finite."""

    finite: bool

    def visit(self, gradient: LayerGradient) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """E[g gᵀ] over the examples and their draws; by `kind`, with d pixel values:

    `model`: g = √(2/d) Jᵀη with η ~ N(0, I), so that E[g gᵀ] = E[Jᵀ(2/d)J], the Gauss–Newton matrix of the
    mean training loss (arXiv:2410.13850, equations 9 and 10). `loss`: g = √d ∇ of a draw's mean loss, the
    empirical Fisher (equation 11). Its loss is a sum, L = dℓ, and no homogeneous function of it:
    ∇Mᵀ E[∇L∇Lᵀ]⁻¹ ∇L / d, which predicts the change of the mean loss, is ∇mᵀ (d E[∇ℓ∇ℓᵀ])⁻¹ ∇ℓ. With
    `average` an example's draws are averaged first, as in TRAK. `seed` names η: the pass that corrects
    eigenvalues needs another seed than the pass that gave the eigenvectors."""

    draws: Draws = field(default_factory=lambda: Draws(10, "antithetic"))
    kind: str = "model"
    average: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of Fisher", self.kind, KINDS)
        if self.average and self.kind == "model":
            raise OptionError(
                "average is true for the kind 'model'; pseudo-gradients have mean zero, and averaging them "
                "shrinks the curvature. Use kind 'loss', or average false."
            )

    @property
    def measurement(self) -> Measurement:
        """The function whose gradients are taken."""
        return pseudo if self.kind == "model" else simple_sum

    @property
    def rows(self) -> int:
        """Draws in one gradient: all draws of an example if they are averaged, else one."""
        return self.draws.count if self.average else 1

    def drawn(self, model: Denoiser, examples: Examples, rows: slice) -> Drawn:
        """The draws of `examples[rows]`, one gradient a row: [u, r]."""
        draws = PseudoTargets(self.draws, self.seed) if self.kind == "model" else self.draws
        (draw, condition), r = drawn(model, examples, rows, self.measurement, draws), self.rows
        x = draw.x.expand_as(draw.x_t) if r == 1 else draw.x
        parts = [part.reshape(-1, min(r, part.shape[1]), *part.shape[2:]) for part in (x, *draw[1:])]
        return Drawn(
            Draw(*parts), {name: value.reshape(-1, r, *value.shape[2:]) for name, value in condition.items()}
        )

    def manifest(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self) | {"draws": self.draws.manifest()}


@dataclass(frozen=True, eq=False)
class Pass:
    """Inputs of the gradients that are taken together, one a row, and the ids of their examples."""

    inputs: Drawn
    ids: tuple[str, ...]

    def take(self, rows: slice) -> "Pass":
        """The gradients at `rows`."""
        draw, condition = self.inputs
        inputs = Drawn(
            Draw(*(part[rows] for part in draw)), {name: value[rows] for name, value in condition.items()}
        )
        return Pass(inputs, self.ids[rows])

    def then(self, following: "Pass") -> "Pass":
        """One pass of both, in this order."""
        (draw, condition), (next_draw, next_condition) = self.inputs, following.inputs
        joined = Draw(*(torch.cat(pair) for pair in zip(draw, next_draw, strict=True)))
        conditions = {name: torch.cat([value, next_condition[name]]) for name, value in condition.items()}
        return Pass(Drawn(joined, conditions), self.ids + following.ids)

    def stream(
        self,
        model: Denoiser,
        measurement: Measurement,
        layers: Sequence[MatrixLayer],
        total: Total,
        keep: Keep = as_it_is,
    ) -> None:
        """Add the gradients to `total`. One that is not finite is an error, which names its example and
        timestep."""
        stream(model, measurement, self.inputs, layers, total.visit, keep)
        if not total.finite:
            raise non_finite(model, measurement, *self.inputs, parameters_of(layers), self.ids)


def gradient_passes(
    model: Denoiser, examples: Examples, fisher: Fisher, height: int, group: int = 1
) -> Iterator[Pass]:
    """All gradients in order, `height` at a time. The rest comes as a multiple of `group`, then the
    remainder."""
    per = fisher.draws.count // fisher.rows
    step, waiting = max(1, height // per), None
    for low in range(0, len(examples), step):
        rows = slice(low, min(low + step, len(examples)))
        ids = tuple(name for name in examples.ids[rows] for _ in range(per))
        batch = Pass(fisher.drawn(model, examples, rows), ids)
        waiting = batch if waiting is None else waiting.then(batch)
        while len(waiting.ids) >= height:
            yield waiting.take(slice(height))
            waiting = waiting.take(slice(height, None))
    grouped = 0 if waiting is None else len(waiting.ids) // group * group
    for rows in (slice(grouped), slice(grouped, None)):
        if waiting is not None and waiting.ids[rows]:
            yield waiting.take(rows)


def gradients_that_fit(
    model: Denoiser,
    examples: Examples,
    fisher: Fisher,
    layers: Sequence[MatrixLayer],
    keep: Keep,
    group: int = 1,
) -> int:
    """The number of gradients to take at a time: a multiple of `group`, however small `model.memory` is.

    Also refuses, by name, parameters whose gradients the layers do not give.
    """
    one = fisher.drawn(model, examples, slice(0, 1)).one(0, 0)
    check(model, fisher.measurement, one, layers)
    fit = draws_that_fit(model, fisher.measurement, one, layers, keep) // fisher.rows
    return max(group, fit // group * group)


def finite(*values: Tensor) -> bool:
    """Whether all values are free of NaN and infinity."""
    return all(bool(torch.isfinite(value).all()) for value in values)
