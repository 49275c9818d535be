"""What both engines are given: the draws of some examples, with their labels, in the model's dtype and on its device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, Draws, along_trajectory
from headwater.diffusion.measure import Measurement, trajectory


class Drawn(NamedTuple):
    """Draws of b examples and their labels, one for each draw; None for an unconditional model."""

    draw: Draw
    labels: Int64[Tensor, "*b d"] | None

    def first(self) -> "Drawn":
        """The first draw of the first example."""
        draw, labels = self
        return Drawn(Draw(draw.x[:1], *(part[:1, :1] for part in draw[1:])), None if labels is None else labels[:1, :1])

    def parts(self, size: int) -> Iterator["Drawn"]:
        """The same examples with `size` of their draws at a time."""
        draw, labels = self
        for low in range(0, draw.t.shape[1], size):
            here = slice(low, low + size)
            yield Drawn(Draw(draw.x, *(part[:, here] for part in draw[1:])), None if labels is None else labels[:, here])


def divisor(measurement: Measurement, d: int) -> int:
    """What the sum over a picture's d draws is divided by: its value is their mean, along a path their sum."""
    return 1 if measurement is trajectory else d


def drawn(model: Denoiser, examples: Examples, rows: slice, measurement: Measurement, draws: Draws) -> Drawn:
    """The draws of `examples[rows]`: noised pictures, or for `trajectory` the stored path."""
    like = next(model.module.parameters())
    if measurement is trajectory:
        draw = along_trajectory(examples, rows, model.schedule, like)
    else:
        draw = draws.of(examples, rows, model.schedule, like)
    if model.classes is None or examples.labels is None:
        return Drawn(draw, None)
    return Drawn(draw, torch.as_tensor(examples.labels[rows], device=like.device)[:, None].expand(draw.t.shape))
