"""The outer products that curvature is the mean of: whose gradients, of which draws, and how they go through the model."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, Draws, PseudoTargets
from headwater.diffusion.measure import Measurement, pseudo, simple
from headwater.errors import NonFiniteError, OptionError, unknown
from headwater.examples import Examples
from headwater.gradients.hooks import Keep, check
from headwater.gradients.inputs import Drawn, drawn
from headwater.gradients.layers import MatrixLayer, parameters_of
from headwater.gradients.memory import draws_that_fit
from headwater.gradients.vmap import non_finite

KINDS = ("model", "loss")


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """E[g gᵀ] over the examples and their draws; by `kind`, with d pixel values:

    `model`: g = √(2/d) Jᵀη with η ~ N(0, I), so that E[g gᵀ] = E[Jᵀ(2/d)J], the Gauss–Newton matrix of the mean training loss
    (arXiv:2410.13850, equations 9 and 10). `loss`: g = ∇ of a draw's own loss, the empirical Fisher (equation 11); with `average`
    an example's draws are averaged first, as TRAK does. `seed` names η: give the pass that corrects eigenvalues another one than
    the pass that found the eigenvectors.
    """

    draws: Draws = field(default_factory=lambda: Draws(10, "antithetic"))
    kind: str = "model"
    average: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of Fisher", self.kind, KINDS)
        if self.average and self.kind == "model":
            raise OptionError(
                "average is true for the kind 'model'; pseudo-gradients have mean zero, and averaging them shrinks the curvature. "
                "Use kind 'loss', or average false."
            )

    @property
    def measurement(self) -> Measurement:
        """What is differentiated."""
        return pseudo if self.kind == "model" else simple

    @property
    def rows(self) -> int:
        """Draws that make up one gradient: all of an example's if they are averaged, else one."""
        return self.draws.count if self.average else 1

    def drawn(self, model: Denoiser, examples: Examples, here: slice) -> Drawn:
        """The draws of `examples[here]`, one gradient a row: [u, rows]."""
        draws = PseudoTargets(self.draws, self.seed) if self.kind == "model" else self.draws
        (draw, condition), r = drawn(model, examples, here, self.measurement, draws), self.rows
        x = draw.x.expand_as(draw.x_t) if r == 1 else draw.x
        parts = [part.reshape(-1, min(r, part.shape[1]), *part.shape[2:]) for part in (x, *draw[1:])]
        return Drawn(Draw(*parts), {name: each.reshape(-1, r, *each.shape[2:]) for name, each in condition.items()})

    def manifest(self) -> dict[str, object]:
        """All of it, in words that JSON keeps."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Pass:
    """Gradients that go through the model together, one a row of `given`, and the ids of their examples."""

    given: Drawn
    ids: tuple[str, ...]

    def rows(self, here: slice) -> "Pass":
        """The gradients at `here`."""
        draw, condition = self.given
        given = Drawn(Draw(*(part[here] for part in draw)), {name: each[here] for name, each in condition.items()})
        return Pass(given, self.ids[here])

    def then(self, other: "Pass") -> "Pass":
        """Those of both, one after the other."""
        (draw, condition), (more, their) = self.given, other.given
        joined = Draw(*(torch.cat(pair) for pair in zip(draw, more, strict=True)))
        both = {name: torch.cat([each, their[name]]) for name, each in condition.items()}
        return Pass(Drawn(joined, both), self.ids + other.ids)

    def non_finite(self, model: Denoiser, measurement: Measurement, layers: Sequence[MatrixLayer]) -> NonFiniteError:
        """The error that names the example and timestep of a gradient that is not finite."""
        return non_finite(model, measurement, *self.given, parameters_of(layers), self.ids)


def passes(model: Denoiser, examples: Examples, fisher: Fisher, height: int, group: int = 1) -> Iterator[Pass]:
    """All gradients in order, `height` at a time; the last passes are a multiple of `group`, and what then remains."""
    per = fisher.draws.count // fisher.rows
    step, waiting = max(1, height // per), None
    for low in range(0, len(examples), step):
        here = slice(low, min(low + step, len(examples)))
        ids = tuple(name for name in examples.ids[here] for _ in range(per))
        found = Pass(fisher.drawn(model, examples, here), ids)
        waiting = found if waiting is None else waiting.then(found)
        while len(waiting.ids) >= height:
            yield waiting.rows(slice(height))
            waiting = waiting.rows(slice(height, None))
    whole = 0 if waiting is None else len(waiting.ids) // group * group
    for here in (slice(whole), slice(whole, None)):
        if waiting is not None and waiting.ids[here]:
            yield waiting.rows(here)


def gradients_that_fit(
    model: Denoiser, examples: Examples, fisher: Fisher, layers: Sequence[MatrixLayer], keep: Keep, group: int = 1
) -> int:
    """How many gradients go through at once, a multiple of `group` whatever `model.memory` says.

    Also refuses, by name, parameters whose gradients the layers do not show.
    """
    one = fisher.drawn(model, examples, slice(0, 1)).one(0, 0)
    check(model, fisher.measurement, one, layers)
    fit = draws_that_fit(model, fisher.measurement, one, layers, keep) // fisher.rows
    return max(group, fit // group * group)


def finite(*values: Tensor) -> bool:
    """Whether all of these are free of NaN and infinity."""
    return all(bool(torch.isfinite(each).all()) for each in values)
