"""What a retrained model makes of each query: measurements averaged over draws that all models of a bank share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.examples import Examples
from headwater.gradients.forward import values

BINS = 20  # per-timestep outcomes are means over this many stretches of the schedule


def outcomes(model: Denoiser, queries: Examples, names: Sequence[str], draws: Draws) -> dict[str, np.ndarray]:
    """The named measurements of each query, float32 `[q]`, and `per-timestep`, `simple` in BINS stretches, float16 `[q, BINS]`.

    A stretch without a draw is NaN.
    """
    wanted = dict.fromkeys(("simple", *names))
    parts = list(values(model, queries, list(wanted), draws))
    found = {name: np.concatenate([part.of[name] for part in parts]) for name in wanted}
    times = np.concatenate([part.t for part in parts])
    out: dict[str, np.ndarray] = {name: found[name].mean(1, dtype=np.float64).astype(np.float32) for name in wanted}
    return out | {"per-timestep": binned(found["simple"], times, model.schedule.T).astype(np.float16)}


def binned(each: Float[np.ndarray, "q d"], times: Int64[np.ndarray, "q d"], T: int) -> Float[np.ndarray, "q bins"]:
    """The mean of each row's values over each of BINS equal stretches of 0 … T−1."""
    place = np.arange(len(each))[:, None] * BINS + times * BINS // T
    counts = np.bincount(place.ravel(), minlength=len(each) * BINS)
    sums = np.bincount(place.ravel(), each.ravel().astype(np.float64), minlength=len(each) * BINS)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0).reshape(-1, BINS)
