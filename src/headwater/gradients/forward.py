"""Measurements of every draw by forward passes alone, as many draws at a time as are worth while."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.examples import Examples
from headwater.gradients.inputs import drawn

ROWS = 1024  # draws that go through a model together
PIXELS = 2**22  # pixel values that go through a model together


class Values(NamedTuple):
    """Named measurements of each draw of some examples, and the draws' timesteps."""

    of: dict[str, Float[np.ndarray, "b d"]]
    t: Int64[np.ndarray, "b d"]


def values(
    model: Denoiser, examples: Examples, names: Sequence[str], draws: Draws, *, rows: int = ROWS
) -> Iterator[Values]:
    """The named measurements of every draw of all examples, some examples at a time, in order.

    At most `rows` draws go through the model together, fewer of large pictures.
    With `trajectory` among them the draws are the steps of the path by which each picture was sampled.
    """
    rows = rows_at_once(model, rows)
    height = max(1, rows // draws.count)
    for start in range(0, len(examples), height):
        part = slice(start, min(start + height, len(examples)))
        yield _values(model, examples, part, names, draws, rows)


def rows_at_once(model: Denoiser, rows: int = ROWS) -> int:
    """The number of draws that go through the model together, without a graph: at most `rows`."""
    return max(1, min(rows, PIXELS // int(np.prod(model.shape))))


def _values(
    model: Denoiser, examples: Examples, part: slice, names: Sequence[str], draws: Draws, rows: int
) -> Values:
    along = "trajectory" if "trajectory" in names else "simple"
    inputs = drawn(model, examples, part, measurement(along), draws)
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for piece in inputs.parts(rows):
        draw = piece.draw
        with torch.no_grad():
            output = model.predict(draw.x_t.flatten(0, 1), draw.t.reshape(-1), piece.flat).view_as(draw.x_t)
            for name in names:
                values[name].append(measurement(name)(output, draw, model.schedule))
    arrays = {name: torch.cat(parts, 1).float().cpu().numpy() for name, parts in values.items()}
    return Values(arrays, inputs.draw.t.cpu().numpy())
