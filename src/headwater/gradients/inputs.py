"""The inputs of both engines: the draws of some examples and their conditions, on the model's device, in its
dtype or float32."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.draws import AnyDraws, Draw, Draws, Journey, Numbers, along_trajectory
from headwater.diffusion.measure import Measurement, trajectory
from headwater.examples import Examples
from headwater.linalg.transfer import sent


class Drawn(NamedTuple):
    """Draws of b examples, and their conditions [b, d, …] by the network's argument names; none for an
    unconditional model."""

    draw: Draw
    condition: Condition

    @property
    def flat(self) -> Condition:
        """The condition of every draw, one after the other."""
        return {name: table.flatten(0, 1) for name, table in self.condition.items()}

    def one(self, i: int, d: int) -> "Drawn":
        """Draw d of example i."""
        (draw, condition), row = self, slice(i, i + 1)
        x = draw.x[row, d : d + 1] if draw.x.shape[1] > 1 else draw.x[row]
        row_condition = {name: table[row, d : d + 1] for name, table in condition.items()}
        return Drawn(Draw(x, *(part[row, d : d + 1] for part in draw[1:])), row_condition)

    def parts(self, size: int) -> Iterator["Drawn"]:
        """All examples, with `size` of their draws at a time."""
        draw, condition = self
        for low in range(0, draw.t.shape[1], size):
            piece = slice(low, low + size)
            x = draw.x[:, piece] if draw.x.shape[1] > 1 else draw.x
            piece_condition = {name: table[:, piece] for name, table in condition.items()}
            yield Drawn(Draw(x, *(part[:, piece] for part in draw[1:])), piece_condition)


def divisor(measurement: Measurement, d: int) -> int:
    """The divisor of the sum over a picture's d draws: d, as its value is their mean, but 1 along a path."""
    return 1 if measurement is trajectory else d


def numbers(
    model: Denoiser, examples: Examples, rows: slice, measurement: Measurement, draws: AnyDraws
) -> Numbers | None:
    """The numbers that `drawn` needs and that no device has to compute; None where it draws from a path."""
    if measurement is trajectory or not isinstance(draws, Draws):
        return None
    return draws.numbers(examples, rows, model.schedule.T)


def drawn(
    model: Denoiser,
    examples: Examples,
    rows: slice,
    measurement: Measurement,
    draws: AnyDraws,
    named: Numbers | None = None,
) -> Drawn:
    """The draws of `examples[rows]`: noised pictures (of the numbers `named`, if they are drawn already), a
    path's pictures noised again, or for `trajectory` the stored path."""
    like = model.like
    condition = {name: table[:, None] for name, table in conditions(model, examples, rows, like).items()}
    if named is not None:
        draw = named.noised(model.schedule, like)
    elif measurement is trajectory:
        draw = along_trajectory(examples, rows, model.schedule, like)
    elif isinstance(draws, Journey):
        draw = draws.of(examples, rows, model, condition, like)
    else:
        draw = draws.of(examples, rows, model.schedule, like)
    d = draw.t.shape[1]
    return Drawn(draw, {name: table.expand(-1, d, *table.shape[2:]) for name, table in condition.items()})


def conditions(model: Denoiser, examples: Examples, rows: slice, like: Tensor) -> Condition:
    """The model's condition for each of `examples[rows]`: its label, its embedded prompt, or nothing."""
    condition: dict[str, Tensor] = {}
    if model.classes is not None and examples.labels is not None:
        condition["class_labels"] = sent(examples.labels[rows], like.device)
    if examples.text is not None:
        places, back = np.unique(examples.text.which[rows], return_inverse=True)
        for name, table in examples.text.tables.items():
            condition[name] = sent(table[places], like.device, like.dtype)[sent(back, like.device)]
    return condition
