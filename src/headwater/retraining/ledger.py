"""The outcomes of a bank while it is built: arrays with a place for every model, filled from one file per finished job.

A job's file is written whole, entered into the arrays, and removed; a kill at any moment loses none. Arrays carry a checksum for
each model, so that damage is found, named and measured again. numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwater.bank import array, checks, damaged, named, outcome_arrays, outcome_path
from headwater.disk.files import written
from headwater.disk.npz import arrays as read_arrays
from headwater.errors import DataError

Arrays = dict[str, np.ndarray]
Job = tuple[int, int]  # (subset, seed); subset −1 is all the data


class Size(NamedTuple):
    """How many subsets, seeds of a subset, seeds of all the data, queries and stretches of time; which measurements."""

    subsets: int
    seeds: int
    full_seeds: int
    queries: int
    bins: int
    measurements: Sequence[str]

    def empty(self) -> Arrays:
        """Arrays without an outcome."""
        shape = (self.subsets, self.seeds, self.queries)
        found: Arrays = {name: np.full(shape, np.nan, np.float32) for name in dict.fromkeys(("simple", *self.measurements))}
        found["per-timestep"] = np.full((*shape, self.bins), np.nan, np.float16)
        return found | {"full": np.full((self.full_seeds, self.queries), np.nan, np.float32)}


def read(folder: Path, size: Size, told: Callable[[str], None]) -> Arrays:
    """The outcomes so far, with room for all of `size`; those that are damaged are told and left out."""
    found, bad = size.empty(), _damaged(folder, told)
    for name, values in found.items():
        path = outcome_path(folder, name)
        try:
            there = array(path) if path.exists() else values[..., :0] if name == "full" else values[:, :, :0]
            _copy(there, values, name)
        except (DataError, ValueError) as error:
            told(f"{path} is damaged ({error}). Its outcomes are measured again.")
    for job in bad:
        told(f"The outcomes of {named(job)} in {folder} are damaged (their checksum is wrong). They are measured again.")
        _forget(found, job)
    return found


def enter(folder: Path, job: Job, measured: Mapping[str, np.ndarray]) -> None:
    """Write a finished job's file."""
    with written(folder / "parts" / f"{job[0]}_{job[1]}.npz") as file:
        np.savez(file, **measured)  # pyright: ignore[reportArgumentType]


def collect(folder: Path, found: Arrays, told: Callable[[str], None]) -> None:
    """Enter the finished jobs' files into the arrays, in memory and on disk. A damaged one is told: its job is to do again."""
    files = sorted((folder / "parts").glob("*_*.npz"))
    for path in files:
        subset, seed = (int(word) for word in path.stem.split("_"))
        try:
            measured = read_arrays(path, [name for name in found if name != "full"])
        except DataError as error:
            told(f"{error} It is measured again.")
            continue
        for name, values in measured.items():
            if subset >= 0:
                found[name][subset, seed, : len(values)] = values
            elif name == "simple":
                found["full"][seed, : len(values)] = values
    write(folder, found)
    for path in files:
        path.unlink()


def write(folder: Path, found: Arrays) -> None:
    """All outcomes, and then their checksums; the old checksums go first, so that a kill in between is no damage."""
    path = outcome_path(folder, "checks")
    path.unlink(missing_ok=True)
    for name, values in sorted(found.items(), reverse=True):
        save(outcome_path(folder, name), values)
    save(path, checks(found))


def grown(found: Arrays, rows: Sequence[int | None], size: Size) -> Arrays:
    """Larger arrays with the outcomes of the smaller: subset i goes to `rows[i]`, or nowhere."""
    new = size._replace(queries=found["simple"].shape[2]).empty()
    new["full"][: len(found["full"])] = found["full"]
    kept = [i for i, to in enumerate(rows) if to is not None]
    for name, values in found.items():
        if name != "full":
            new[name][[to for to in rows if to is not None], : values.shape[1]] = values[kept]
    return new


def done(found: Arrays, job: Job) -> bool:
    """Whether a job has an outcome for every query and measurement."""
    subset, seed = job
    if subset < 0:
        return bool(np.isfinite(found["full"][seed]).all())
    if not np.isfinite(found["per-timestep"][subset, seed]).any(axis=1).all():  # a stretch of time may be without a draw
        return False
    scalars = (values for name, values in found.items() if name not in ("full", "per-timestep"))
    return all(np.isfinite(values[subset, seed]).all() for values in scalars)


def save(path: Path, values: np.ndarray) -> None:
    """A `.npy` file, whole or not at all."""
    with written(path) as file:
        np.save(file, values)


def _damaged(folder: Path, told: Callable[[str], None]) -> list[Job]:
    """The jobs whose outcomes have another checksum than was written; checksums that cannot be read are told."""
    if not outcome_path(folder, "full").exists():
        return []
    try:
        there = outcome_arrays(folder)
    except DataError:
        return []  # told where that array is read
    try:
        return damaged(folder, there)
    except DataError as error:
        told(f"{error} The outcomes are kept, unverified, and get checksums again.")
        return []


def _copy(there: np.ndarray, to: np.ndarray, name: str) -> None:
    """The outcomes on disk into the array, which may have room for more queries."""
    axis = 1 if name == "full" else 2
    apart = [size for i, size in enumerate(to.shape) if i != axis]
    if there.dtype != to.dtype or [size for i, size in enumerate(there.shape) if i != axis] != apart:
        raise ValueError(f"{there.dtype} {list(there.shape)}, expected {to.dtype} {list(to.shape)}")
    count = min(there.shape[axis], to.shape[axis])
    rows = (slice(None),) * axis + (slice(count),)
    to[rows] = there[rows]


def _forget(found: Arrays, job: Job) -> None:
    subset, seed = job
    for name, values in found.items():
        if subset < 0 and name == "full":
            values[seed] = np.nan
        elif subset >= 0 and name != "full":
            values[subset, seed] = np.nan
