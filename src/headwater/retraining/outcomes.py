"""The losses of a retrained model: measurements averaged over draws that all models of a bank share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.examples import Examples
from headwater.gradients.forward import ROWS, values

BINS = 20  # per-timestep outcomes are means over this many equal parts of the schedule


def outcomes(
    model: Denoiser, queries: Examples, names: Sequence[str], draws: Draws, *, rows: int = ROWS
) -> dict[str, np.ndarray]:
    """Measurements of each query, float32 `[q]`, and `per-timestep`: `simple` in bins, float16 `[q, BINS]`.

    A bin without a draw is NaN. At most `rows` draws go through the model together.
    """
    names = list(dict.fromkeys(("simple", *names)))
    parts = list(values(model, queries, names, draws, rows=rows))
    per_draw = {name: np.concatenate([part.of[name] for part in parts]) for name in names}
    times = np.concatenate([part.t for part in parts])
    means = {
        name: measured.mean(1, dtype=np.float64).astype(np.float32) for name, measured in per_draw.items()
    }
    return means | {"per-timestep": binned(per_draw["simple"], times, model.schedule.T).astype(np.float16)}


def binned(
    measured: Float[np.ndarray, "q d"], times: Int64[np.ndarray, "q d"], T: int
) -> Float[np.ndarray, "q bins"]:
    """The mean of each row's values over each of BINS equal parts of 0 … T−1."""
    q = len(measured)
    place = np.arange(q)[:, None] * BINS + times * BINS // T
    counts = np.bincount(place.ravel(), minlength=q * BINS)
    sums = np.bincount(place.ravel(), measured.ravel().astype(np.float64), minlength=q * BINS)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0).reshape(-1, BINS)
