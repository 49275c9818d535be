"""The outcomes of a bank: arrays with a place for every model, and each model's checksum. numpy only.

Files: `outcomes.npy` (float32 `[m, seeds, q]` of `simple`, NaN = not measured yet),
`outcomes/<measurement>.npy` of the same shape, `outcomes/per-timestep.npy` (float16 `[m, seeds, q, t]`),
`full.npy` (float32 `[seeds, q]`, the models of all data) and `outcomes/checks.npy` (uint64 `[m + 1, seeds]`:
a checksum of all outcomes of each model, 0 = none; the last row is the models of all data). Checksums are
written last, so that damage is found and named, and a kill while writing is no damage.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from headwater.disk.npy import read_npy, write_npy
from headwater.errors import DataError, Warn

Outcomes = dict[str, np.ndarray]  # by measurement, and `full`
Job = tuple[int, int]  # (subset, seed) of a model; subset −1 is all the data


class OutcomeShape(NamedTuple):
    """The sizes of the arrays (seeds of a subset, seeds of all data), and the measurements."""

    subsets: int
    seeds: int
    full_seeds: int
    queries: int
    bins: int
    measurements: Sequence[str]

    def empty(self) -> Outcomes:
        """Arrays without an outcome."""
        shape = (self.subsets, self.seeds, self.queries)
        names = dict.fromkeys(("simple", *self.measurements))
        outcomes: Outcomes = {name: np.full(shape, np.nan, np.float32) for name in names}
        outcomes["per-timestep"] = np.full((*shape, self.bins), np.nan, np.float16)
        return outcomes | {"full": np.full((self.full_seeds, self.queries), np.nan, np.float32)}


def outcome_path(folder: Path, name: str) -> Path:
    """The file of a measurement, of `full` or of `checks`."""
    if name == "full":
        return folder / "full.npy"
    return folder / ("outcomes.npy" if name == "simple" else f"outcomes/{name}.npy")


def measurements_in(folder: Path) -> list[str]:
    """The measurements that the bank has, `simple` first."""
    names = sorted(path.stem for path in folder.glob("outcomes/*.npy"))
    return ["simple", *(name for name in names if name != "checks")]


def write_outcomes(folder: Path, outcomes: Outcomes) -> None:
    """Remove the old checksums, write all outcomes, then their checksums: a kill in between is no damage."""
    path = outcome_path(folder, "checks")
    path.unlink(missing_ok=True)
    for name, values in sorted(outcomes.items(), reverse=True):
        write_npy(outcome_path(folder, name), values)
    write_npy(path, checksums(outcomes))


def read_outcomes(folder: Path) -> Outcomes:
    """All outcomes of all models."""
    return {name: read_npy(outcome_path(folder, name)) for name in (*measurements_in(folder), "full")}


def recover_outcomes(folder: Path, shape: OutcomeShape, warn: Warn) -> Outcomes:
    """The outcomes on disk in arrays of `shape`; damaged ones are NaN, with a warning."""
    outcomes, damaged = shape.empty(), _damaged_or_warn(folder, warn)
    for name, values in outcomes.items():
        path = outcome_path(folder, name)
        try:
            if path.exists():
                _copy_queries(read_npy(path), values, axis=1 if name == "full" else 2)
        except (DataError, ValueError) as error:
            warn(f"{path} is damaged ({error}). Its outcomes are measured again.")
    for job in damaged:
        model = model_in_words(job)
        warn(f"The outcomes of {model} in {folder} are measured again: their checksum is wrong.")
        _forget(outcomes, job)
    return outcomes


def enlarged(outcomes: Outcomes, rows: Sequence[int | None], shape: OutcomeShape) -> Outcomes:
    """Arrays of `shape` with these outcomes: subset i moves to `rows[i]`, or is dropped at None."""
    larger = shape._replace(queries=outcomes["simple"].shape[2]).empty()
    larger["full"][: len(outcomes["full"])] = outcomes["full"]
    sources = [i for i, row in enumerate(rows) if row is not None]
    targets = [row for row in rows if row is not None]
    for name, values in outcomes.items():
        if name != "full":
            larger[name][targets, : values.shape[1]] = values[sources]
    return larger


def checksums(outcomes: Mapping[str, np.ndarray]) -> UInt64[np.ndarray, "all s"]:
    """A checksum of every model's outcomes, all data in the last row; 0 where nothing is measured."""
    full = outcomes["full"]
    arrays = [values for name, values in sorted(outcomes.items()) if name != "full"]
    m, s, _ = outcomes["simple"].shape
    sums = np.zeros((m + 1, s), np.uint64)
    for seed in range(s):
        sums[m, seed] = _checksum([full[seed]])
        for row in range(m):
            sums[row, seed] = _checksum([values[row, seed] for values in arrays])
    return sums


def damaged_models(folder: Path, outcomes: Mapping[str, np.ndarray]) -> list[Job]:
    """The models whose outcomes are not what was written."""
    path = outcome_path(folder, "checks")
    if not path.exists():  # banks had no checksums before 0.2
        return []
    expected, actual = read_npy(path), checksums(outcomes)
    if expected.shape != actual.shape:
        shapes = f"{list(expected.shape)}; expected {list(actual.shape)}"
        raise DataError(f"{path} has the shape {shapes}. Delete it, and build the bank again.")
    last = len(actual) - 1
    return [(-1 if m == last else int(m), int(s)) for m, s in np.argwhere(expected != actual)]


def damaged_at_rest(folder: Path, attempts: int = 20) -> list[Job]:
    """`damaged_models` of the bank in a folder, where a build may be writing: then it looks again."""
    stamp = _stamp(folder)
    damaged = damaged_models(folder, read_outcomes(folder))
    if damaged and attempts and (_stamp(folder) != stamp or stamp == 0):
        time.sleep(0.05)
        return damaged_at_rest(folder, attempts - 1)
    return damaged


def model_in_words(job: Job) -> str:
    """`subset 3, seed 0`, or `the model of all data, seed 0`."""
    subset, seed = job
    return f"the model of all data, seed {seed}" if subset < 0 else f"subset {subset}, seed {seed}"


def _stamp(folder: Path) -> int:
    """The time at which checksums were last written; 0 while there are none."""
    try:
        return outcome_path(folder, "checks").stat().st_mtime_ns
    except OSError:
        return 0


def _checksum(parts: list[np.ndarray]) -> int:
    if not any(np.isfinite(part).any() for part in parts):
        return 0
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest(), "little") or 1


def _damaged_or_warn(folder: Path, warn: Warn) -> list[Job]:
    """The damaged models, or none where the checksums cannot be read, with a warning."""
    if not outcome_path(folder, "full").exists():
        return []
    try:
        outcomes = read_outcomes(folder)
    except DataError:
        return []  # the caller reads that array too, and warns
    try:
        return damaged_models(folder, outcomes)
    except DataError as error:
        warn(f"{error} The outcomes are kept, unverified, and get checksums again.")
        return []


def _copy_queries(saved: np.ndarray, values: np.ndarray, axis: int) -> None:
    """Copy saved outcomes into an array that may have room for more queries along `axis`."""
    sizes, expected = ([size for i, size in enumerate(array.shape) if i != axis] for array in (saved, values))
    if saved.dtype != values.dtype or saved.ndim != values.ndim or sizes != expected:
        raise ValueError(f"{saved.dtype} {list(saved.shape)}, expected {values.dtype} {list(values.shape)}")
    rows = (slice(None),) * axis + (slice(min(saved.shape[axis], values.shape[axis])),)
    values[rows] = saved[rows]


def _forget(outcomes: Outcomes, job: Job) -> None:
    subset, seed = job
    for name, values in outcomes.items():
        if subset < 0 and name == "full":
            values[seed] = np.nan
        elif subset >= 0 and name != "full":
            values[subset, seed] = np.nan
