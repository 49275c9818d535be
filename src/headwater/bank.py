"""A bank: subsets of a training set and the measured outcome of a model retrained on each. The ground truth; numpy only.

Files: `bank.json`, `train.npz`, `queries.npz`, `subsets.npy` (bool `[m, n]`, True = kept), `outcomes.npy` (float32
`[m, seeds, q]` of `simple`, NaN = not trained yet), `outcomes/<measurement>.npy` alike, `outcomes/per-timestep.npy`
(float16 `[m, seeds, q, t]`), `full.npy` (`[seeds, q]`, the model on all data), `model/`, `checkpoints/step-*/`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from headwater.archive import read_examples
from headwater.core import Examples
from headwater.errors import DataError

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

    def outcomes(self, measurement: str = "simple") -> Float[np.ndarray, "m s q *t"]:
        """Measured outcomes of every subset and seed; NaN where a model is not trained yet."""
        path = self.folder / ("outcomes.npy" if measurement in ("simple", "loss") else f"outcomes/{measurement}.npy")
        if not path.exists():
            known = ["simple", *sorted(p.stem for p in self.folder.glob("outcomes/*.npy"))]
            raise DataError(f"The bank {self.folder} has no outcomes for '{measurement}'. It has: {', '.join(known)}.")
        found = array(path)
        return found if self.chosen is None else found[:, :, list(self.chosen)]

    def finished(self, measurement: str = "simple") -> Float[np.ndarray, "m s q"]:
        """The outcomes fit to compare with: seeds trained on all subsets; if there is none yet, the first seed's subsets so far."""
        return self.outcomes(measurement)[np.ix_(self.rows(), self.seeds())].astype(np.float64)

    def seeds(self) -> list[int]:
        """The places of the seeds in use."""
        done = self.done()
        return [s for s in range(done.shape[1]) if done[:, s].all()] or [0]

    def rows(self) -> list[int]:
        """The subsets in use."""
        return [int(m) for m in np.flatnonzero(self.done()[:, self.seeds()].all(axis=1))]

    def done(self) -> Bool[np.ndarray, "m s"]:
        """Which (subset, seed) models are trained and measured."""
        return np.all(np.isfinite(array(self.folder / "outcomes.npy")), axis=2)


def open_bank(where: str | Path) -> Bank:
    """The bank in a folder, or one that ships with the package, by name (`digits`)."""
    folder = Path(where)
    if not folder.exists() and (SHIPPED / str(where)).is_dir():
        folder = SHIPPED / str(where)
    if not (folder / "bank.json").exists():
        names = ", ".join(sorted(p.name for p in SHIPPED.glob("*/"))) or "none"
        raise DataError(f"There is no bank {where}. Expected a folder made by `headwater bank build`, or one that ships: {names}.")
    info = read_info(folder)
    subsets = array(folder / "subsets.npy")
    train, queries = read_examples(folder / "train.npz"), read_examples(folder / "queries.npz")
    if subsets.shape[1] != len(train):
        raise DataError(f"The bank {folder} has {len(train)} training images but subsets of {subsets.shape[1]}: it is damaged.")
    return Bank(folder, info, train, queries, subsets)


def read_info(folder: Path) -> dict[str, Any]:
    """`bank.json`: what the bank was built from."""
    try:
        return dict(json.loads((folder / "bank.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / 'bank.json'} is damaged: {error}") from error


def array(path: Path) -> np.ndarray:
    """A `.npy` file, never unpickled; damage is told plainly."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Could not read {path}: {error}") from error
