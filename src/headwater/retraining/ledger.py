"""The finished jobs of a build: a file for each until its outcomes are in the bank's arrays.

A job's file is written whole, entered into the arrays, and removed; a kill at any moment loses none.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headwater.disk.files import written
from headwater.disk.npz import arrays as read_arrays
from headwater.disk.outcomes import Job, Outcomes, write_outcomes
from headwater.errors import DataError, Warn


def save_job(folder: Path, job: Job, outcomes: Mapping[str, np.ndarray]) -> None:
    """Write a finished job's file."""
    with written(folder / "parts" / f"{job[0]}_{job[1]}.npz") as file:
        np.savez(file, **outcomes)  # pyright: ignore[reportArgumentType]


def collect(folder: Path, outcomes: Outcomes, warn: Warn) -> None:
    """Enter the finished jobs' files into the arrays, in memory and on disk; warn of damaged ones."""
    files = sorted((folder / "parts").glob("*_*.npz"))
    for path in files:
        subset, seed = (int(word) for word in path.stem.split("_"))
        try:
            measured = read_arrays(path, [name for name in outcomes if name != "full"])
        except DataError as error:
            warn(f"{error} It is measured again.")
        else:
            _enter(outcomes, (subset, seed), measured)
    write_outcomes(folder, outcomes)
    for path in files:
        path.unlink()


def _enter(outcomes: Outcomes, job: Job, measured: Mapping[str, np.ndarray]) -> None:
    """Write a job's outcomes into their places in the arrays."""
    subset, seed = job
    for name, values in measured.items():
        if subset >= 0:
            outcomes[name][subset, seed, : len(values)] = values
        elif name == "simple":
            outcomes["full"][seed, : len(values)] = values


def is_done(outcomes: Outcomes, job: Job) -> bool:
    """Whether a job has an outcome for every query and measurement."""
    subset, seed = job
    if subset < 0:
        return bool(np.isfinite(outcomes["full"][seed]).all())
    binned = np.isfinite(outcomes["per-timestep"][subset, seed])
    if not binned.any(axis=1).all():  # a bin may be without a draw
        return False
    scalars = (values for name, values in outcomes.items() if name not in ("full", "per-timestep"))
    return all(np.isfinite(values[subset, seed]).all() for values in scalars)
