"""What both engines are given: the draws of some examples and what conditions them, on its device, in its dtype or float32."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.draws import AnyDraws, Draw, Journey, along_trajectory
from headwater.diffusion.measure import Measurement, trajectory
from headwater.examples import Examples


class Drawn(NamedTuple):
    """Draws of b examples and what conditions them, [b, d, …] under the network's own names; nothing for an unconditional model."""

    draw: Draw
    condition: Condition

    @property
    def flat(self) -> Condition:
        """The condition of every draw, one after the other."""
        return {name: each.flatten(0, 1) for name, each in self.condition.items()}

    def one(self, i: int, d: int) -> "Drawn":
        """Draw d of example i."""
        (draw, condition), row = self, slice(i, i + 1)
        x = draw.x[row, d : d + 1] if draw.x.shape[1] > 1 else draw.x[row]
        there = {name: each[row, d : d + 1] for name, each in condition.items()}
        return Drawn(Draw(x, *(part[row, d : d + 1] for part in draw[1:])), there)

    def parts(self, size: int) -> Iterator["Drawn"]:
        """The same examples with `size` of their draws at a time."""
        draw, condition = self
        for low in range(0, draw.t.shape[1], size):
            here = slice(low, low + size)
            x = draw.x[:, here] if draw.x.shape[1] > 1 else draw.x
            yield Drawn(Draw(x, *(part[:, here] for part in draw[1:])), {name: each[:, here] for name, each in condition.items()})


def divisor(what: Measurement, d: int) -> int:
    """What the sum over a picture's d draws is divided by: its value is their mean, along a path their sum."""
    return 1 if what is trajectory else d


def drawn(model: Denoiser, examples: Examples, rows: slice, what: Measurement, draws: AnyDraws) -> Drawn:
    """The draws of `examples[rows]`: noised pictures, a path's pictures noised anew, or for `trajectory` the stored path."""
    like = model.like
    condition = {name: each[:, None] for name, each in conditions(model, examples, rows, like).items()}
    if what is trajectory:
        draw = along_trajectory(examples, rows, model.schedule, like)
    elif isinstance(draws, Journey):
        draw = draws.of(examples, rows, model, condition, like)
    else:
        draw = draws.of(examples, rows, model.schedule, like)
    d = draw.t.shape[1]
    return Drawn(draw, {name: each.expand(-1, d, *each.shape[2:]) for name, each in condition.items()})


def conditions(model: Denoiser, examples: Examples, rows: slice, like: Tensor) -> Condition:
    """What conditions the model on each of `examples[rows]`: its label, what became of its prompt, or nothing."""
    found: dict[str, Tensor] = {}
    if model.classes is not None and examples.labels is not None:
        found["class_labels"] = torch.as_tensor(examples.labels[rows], device=like.device)
    if model.text is not None and examples.text is not None:
        places, back = np.unique(examples.text.which[rows], return_inverse=True)
        for name, table in examples.text.tables.items():
            found[name] = torch.as_tensor(table[places]).to(like)[torch.as_tensor(back, device=like.device)]
    return found
