"""What both engines are given: the draws of some examples, with their labels, in the model's dtype and on its device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import AnyDraws, Draw, Journey, along_trajectory
from headwater.diffusion.measure import Measurement, trajectory


class Drawn(NamedTuple):
    """Draws of b examples and their labels, one for each draw; None for an unconditional model."""

    draw: Draw
    labels: Int64[Tensor, "*b d"] | None

    def one(self, i: int, d: int) -> "Drawn":
        """Draw d of example i."""
        (draw, labels), row = self, slice(i, i + 1)
        x = draw.x[row, d : d + 1] if draw.x.shape[1] > 1 else draw.x[row]
        there = None if labels is None else labels[row, d : d + 1]
        return Drawn(Draw(x, *(part[row, d : d + 1] for part in draw[1:])), there)

    def parts(self, size: int) -> Iterator["Drawn"]:
        """The same examples with `size` of their draws at a time."""
        draw, labels = self
        for low in range(0, draw.t.shape[1], size):
            here = slice(low, low + size)
            x = draw.x[:, here] if draw.x.shape[1] > 1 else draw.x
            yield Drawn(Draw(x, *(part[:, here] for part in draw[1:])), None if labels is None else labels[:, here])


def divisor(what: Measurement, d: int) -> int:
    """What the sum over a picture's d draws is divided by: its value is their mean, along a path their sum."""
    return 1 if what is trajectory else d


def drawn(model: Denoiser, examples: Examples, rows: slice, what: Measurement, draws: AnyDraws) -> Drawn:
    """The draws of `examples[rows]`: noised pictures, a path's pictures noised anew, or for `trajectory` the stored path."""
    like = next(model.module.parameters())
    labels = None
    if model.classes is not None and examples.labels is not None:
        labels = torch.as_tensor(examples.labels[rows], device=like.device)[:, None]
    if what is trajectory:
        draw = along_trajectory(examples, rows, model.schedule, like)
    elif isinstance(draws, Journey):
        draw = draws.of(examples, rows, model, labels, like)
    else:
        draw = draws.of(examples, rows, model.schedule, like)
    return Drawn(draw, None if labels is None else labels.expand(draw.t.shape))
