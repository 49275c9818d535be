"""What a retrained model makes of each query: measurements averaged over draws that all models of a bank share."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement
from headwater.gradients.drawn import drawn

BINS = 20  # per-timestep outcomes are means over this many stretches of the schedule
ROWS = 1024  # draws that go through a model together, fewer of large pictures
PIXELS = 2**22  # pixel values that go through a model together


def outcomes(model: Denoiser, queries: Examples, names: Sequence[str], draws: Draws) -> dict[str, np.ndarray]:
    """The named measurements of each query, float32 `[q]`, and `per-timestep`, `simple` in BINS stretches, float16 `[q, BINS]`.

    A stretch without a draw is NaN.
    """
    wanted = dict.fromkeys(("simple", *names))
    parts = [_per_draw(model, queries, rows, list(wanted), draws) for rows in _batches(model, queries, draws)]
    found = {name: np.concatenate([values[name] for values, _ in parts]) for name in wanted}
    times = np.concatenate([t for _, t in parts])
    out: dict[str, np.ndarray] = {name: found[name].mean(1, dtype=np.float64).astype(np.float32) for name in wanted}
    return out | {"per-timestep": binned(found["simple"], times, model.schedule.T).astype(np.float16)}


def binned(values: Float[np.ndarray, "q d"], times: Int64[np.ndarray, "q d"], T: int) -> Float[np.ndarray, "q bins"]:
    """The mean of each row's values over each of BINS equal stretches of 0 … T−1."""
    place = np.arange(len(values))[:, None] * BINS + times * BINS // T
    counts = np.bincount(place.ravel(), minlength=len(values) * BINS)
    sums = np.bincount(place.ravel(), values.ravel().astype(np.float64), minlength=len(values) * BINS)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0).reshape(-1, BINS)


def _batches(model: Denoiser, queries: Examples, draws: Draws) -> list[slice]:
    steps = draws.timesteps if isinstance(draws.timesteps, int) else len(draws.timesteps)
    height = max(1, rows_at_once(model) // (steps * draws.noises))
    return [slice(start, min(start + height, len(queries))) for start in range(0, len(queries), height)]


def rows_at_once(model: Denoiser) -> int:
    """How many draws go through the model together, without a graph."""
    return max(1, min(ROWS, PIXELS // int(np.prod(model.shape))))


def _per_draw(
    model: Denoiser, queries: Examples, rows: slice, names: Sequence[str], draws: Draws
) -> tuple[dict[str, Float[np.ndarray, "b d"]], Int64[np.ndarray, "b d"]]:
    """Each measurement of each draw of the queries at `rows`, and the draws' timesteps."""
    given = drawn(model, queries, rows, measurement("simple"), draws)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for draw, labels in given.parts(rows_at_once(model)):
        flat = None if labels is None else labels.reshape(-1)
        with torch.no_grad():
            output = model.predict(draw.x_t.flatten(0, 1), draw.t.reshape(-1), flat).view_as(draw.x_t)
            for name in names:
                found[name].append(measurement(name)(output, draw, model.schedule))
    return {name: torch.cat(each, 1).float().cpu().numpy() for name, each in found.items()}, given.draw.t.cpu().numpy()
