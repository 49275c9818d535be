"""A bank: subsets of a training set and the measured outcome of a model retrained on each. The ground truth; numpy only.

Files: `bank.json`, `train.npz`, `queries.npz`, `subsets.npy` (bool `[m, n]`, True = kept), `outcomes.npy` (float32
`[m, seeds, q]` of `simple`, NaN = not trained yet), `outcomes/<measurement>.npy` alike, `outcomes/per-timestep.npy`
(float16 `[m, seeds, q, t]`), `full.npy` (`[seeds, q]`, the model on all data), `outcomes/checks.npy` (uint64 `[m + 1, seeds]`, a
checksum of all outcomes of each model, last that of all data; 0 = none), `model/`, `checkpoints/step-*/`.

The first subsets are for comparison; those after them are for methods that learn from retrained models.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt64

from headwater.disk.npz import read_examples
from headwater.errors import DataError
from headwater.examples import Examples

SHIPPED = Path(__file__).parent / "banks"


@dataclass(frozen=True, eq=False)
class Bank:
    """An open bank. `outcomes(measurement)` are losses: larger means that the retrained model does worse on the query."""

    folder: Path
    info: dict[str, Any]
    train: Examples
    queries: Examples
    subsets: Bool[np.ndarray, "m n"]
    chosen: tuple[int, ...] | None = None  # places of `queries` in the outcomes, where they are only a part

    @property
    def compared(self) -> int:
        """How many subsets are for comparison; the others are for learning."""
        return int(self.info["recipe"]["subsets"])

    def check_made_from(self, train: Examples) -> None:
        """Raise a DataError unless these are the bank's training images, in its order."""
        if self.train.hashes != train.hashes:
            raise DataError(
                f"The bank {self.folder.name} was made from {len(self.train)} other training images than these {len(train)} (or "
                f"the same in another order). Give --train {self.folder}/train.npz."
            )

    def outcomes(self, measurement: str = "simple") -> Float[np.ndarray, "m s q *t"]:
        """Measured outcomes of every subset and seed; NaN where a model is not trained yet."""
        path = outcome_path(self.folder, "simple" if measurement == "loss" else measurement)
        known = ["simple", *_further(self.folder)]
        if measurement not in ("loss", *known):
            raise DataError(f"The bank {self.folder} has no outcomes for '{measurement}'. It has: {', '.join(known)}.")
        return array(path)[:, :, self._places]

    def finished(self, measurement: str = "simple") -> Float[np.ndarray, "m s q"]:
        """The outcomes fit to compare with: seeds trained on all subsets; if there is none yet, the first seed's subsets so far."""
        return self.outcomes(measurement)[np.ix_(self.rows(), self.seeds())].astype(np.float64)

    def seeds(self) -> list[int]:
        """The places of the seeds in use."""
        done = self.done()[: self.compared]
        return [s for s in range(done.shape[1]) if done[:, s].all()] or [0]

    def rows(self) -> list[int]:
        """The subsets to compare with that are in use."""
        return [int(m) for m in np.flatnonzero(self.done()[: self.compared, self.seeds()].all(axis=1))]

    def learning_rows(self) -> list[int]:
        """The trained subsets that methods may learn from: disjoint from those that they are compared with."""
        return [int(m) for m in np.flatnonzero(self.done()[:, 0]) if m >= self.compared]

    def done(self) -> Bool[np.ndarray, "m s"]:
        """Which (subset, seed) models are trained and measured on every query."""
        return np.all(np.isfinite(array(self.folder / "outcomes.npy")[:, :, self._places]), axis=2)

    @property
    def state(self) -> list[Any]:
        """What tells a bank from others and from itself when it has grown: name, trained models, queries, subsets, outcomes."""
        outcomes = hashlib.blake2b(array(self.folder / "outcomes.npy").tobytes(), digest_size=8).hexdigest()
        subsets = [subsets_check(self.subsets), self.compared]
        return [self.folder.name, int(self.done().sum()), self.queries.fingerprint, *subsets, outcomes]

    @property
    def _places(self) -> list[int]:
        """Where the queries are in the outcomes: queries that are still being added come after them."""
        return list(range(len(self.queries)) if self.chosen is None else self.chosen)


def open_bank(where: str | Path) -> Bank:
    """The bank in a folder, or one that ships with the package, by name (`digits`). Damaged outcomes are a DataError."""
    folder = Path(where)
    if not folder.exists() and (SHIPPED / str(where)).is_dir():
        folder = SHIPPED / str(where)
    if not (folder / "bank.json").exists():
        names = ", ".join(sorted(p.name for p in SHIPPED.glob("*/"))) or "none"
        raise DataError(f"There is no bank {where}. Expected a folder made by `headwater bank build`, or one that ships: {names}.")
    info = read_info(folder)
    if not (folder / "queries.npz").exists():
        raise DataError(
            f"The bank {folder} has no queries yet: its first model is not trained, or its pictures were left out. Run "
            f"`headwater bank build {folder}`."
        )
    train, queries = (read_examples(folder / f"{side}.npz") for side in ("train", "queries"))
    bank = Bank(folder, info, train, queries, array(folder / "subsets.npy"))
    _check_whole(bank)
    return bank


def _check_whole(bank: Bank) -> None:
    """Refuse a bank whose files are not what was written, or not of each other."""
    folder, remedy = bank.folder, f"Run `headwater bank build {bank.folder}`"
    if bank.info.get("train") not in (None, bank.train.fingerprint):
        raise DataError(f"{folder / 'train.npz'} does not hold the images that the bank was made from. Delete it. {remedy}.")
    if bank.info.get("subsets") not in (None, subsets_check(bank.subsets)) or bank.subsets.shape[1:] != (len(bank.train),):
        raise DataError(f"{folder / 'subsets.npy'} is damaged (its checksum is wrong). {remedy}: it writes them again.")
    if bad := _damaged_at_rest(folder):
        raise DataError(
            f"Outcomes in the bank {folder} are not what was written (their checksum is wrong): {', '.join(map(named, bad[:3]))}"
            f"{' and more' * (len(bad) > 3)}. {remedy}: it measures them again."
        )


def _damaged_at_rest(folder: Path, attempts: int = 20) -> list[tuple[int, int]]:
    """`damaged`, looked at again while a build is writing."""
    stamp = _stamp(folder)
    bad = damaged(folder, outcome_arrays(folder))
    if bad and attempts and (_stamp(folder) != stamp or stamp == 0):
        time.sleep(0.05)
        return _damaged_at_rest(folder, attempts - 1)
    return bad


def _stamp(folder: Path) -> int:
    """When checksums were written last; 0 while they are not there."""
    try:
        return outcome_path(folder, "checks").stat().st_mtime_ns
    except OSError:
        return 0


def subsets_check(subsets: Bool[np.ndarray, "m n"]) -> str:
    """A checksum of the subsets."""
    return hashlib.blake2b(np.packbits(subsets).tobytes() + str(subsets.shape).encode(), digest_size=8).hexdigest()


def outcome_path(folder: Path, name: str) -> Path:
    """Where the outcomes of a measurement are; `full` is the model of all data, `checks` the checksums."""
    return folder / f"{name}.npy" if name == "full" else folder / ("outcomes.npy" if name == "simple" else f"outcomes/{name}.npy")


def outcome_arrays(folder: Path) -> dict[str, np.ndarray]:
    """All outcomes of all models, by measurement, and `full`."""
    return {name: array(outcome_path(folder, name)) for name in ("simple", "full", *_further(folder))}


def _further(folder: Path) -> list[str]:
    """The measurements beside `simple`."""
    return sorted(path.stem for path in folder.glob("outcomes/*.npy") if path.stem != "checks")


def damaged(folder: Path, arrays: Mapping[str, np.ndarray]) -> list[tuple[int, int]]:
    """The (subset, seed) models whose outcomes are not those that were written; subset −1 is all the data."""
    path = outcome_path(folder, "checks")
    if not path.exists():  # banks had no checksums before 0.2
        return []
    written, found = array(path), checks(arrays)
    if written.shape != found.shape:
        raise DataError(
            f"{path} has the shape {list(written.shape)}; expected {list(found.shape)}. Delete it, and build the bank again."
        )
    last = len(found) - 1
    return [(-1 if m == last else int(m), int(s)) for m, s in np.argwhere(written != found)]


def checks(arrays: Mapping[str, np.ndarray]) -> UInt64[np.ndarray, "all s"]:
    """A checksum of every model's outcomes, the last row that of the models of all data; 0 where nothing is measured."""
    full, others = arrays["full"], {name: values for name, values in sorted(arrays.items()) if name != "full"}
    m, s, _ = others["simple"].shape
    found = np.zeros((m + 1, s), np.uint64)
    for seed in range(s):
        found[m, seed] = _check([full[seed]])
        for row in range(m):
            found[row, seed] = _check([values[row, seed] for values in others.values()])
    return found


def _check(parts: list[np.ndarray]) -> int:
    if not any(np.isfinite(part).any() for part in parts):
        return 0
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest(), "little") or 1


def named(job: tuple[int, int]) -> str:
    """A model of the bank in words."""
    subset, seed = job
    return f"the model of all data, seed {seed}" if subset < 0 else f"subset {subset}, seed {seed}"


def status(bank: Bank) -> list[str]:
    """What a bank holds, in lines of words."""
    done, compared = bank.done(), bank.compared
    split = bank.queries.split or ("all",) * len(bank.queries)
    learning = done[compared:]
    lines = [
        f"bank      {bank.folder}",
        f"train     {len(bank.train)} images of {'×'.join(map(str, bank.train.images.shape[1:]))}",
        f"queries   {', '.join(f'{split.count(name)} {name}' for name in dict.fromkeys(split))}",
        f"models    {int(done[:compared].sum())} of {done[:compared].size} trained ({compared} subsets × {done.shape[1]} seeds)",
        f"in use    {len(bank.rows())} subsets × {len(bank.seeds())} seeds",
    ]
    if len(learning):
        lines.append(f"learning  {int(learning[:, 0].sum())} of {len(learning)} further subsets trained")
    if (bank.folder / "parts" / "added.npz").exists():
        lines.append("added     queries are being added: run `headwater bank build` until it is done")
    return lines


def read_info(folder: Path) -> dict[str, Any]:
    """`bank.json`: what the bank was built from."""
    try:
        info = dict(json.loads((folder / "bank.json").read_text()))
        if not isinstance(info["recipe"], dict) or not isinstance(info["recipe"]["subsets"], int):
            raise ValueError("it holds no recipe")
        return info
    except KeyError as error:
        raise DataError(f"{folder / 'bank.json'} is damaged: it has no {error}.") from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / 'bank.json'} is damaged: {error}") from error


def array(path: Path) -> np.ndarray:
    """A `.npy` file, never unpickled; damage is told plainly."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Could not read {path}: {error}") from error
