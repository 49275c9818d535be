"""A bank: subsets of a training set and the measured outcome of a model retrained on each. No torch.

Files: `bank.json` (what it was built from), `train.npz`, `queries.npz`, `subsets.npy` (bool `[m, n]`, True =
kept), `model/`, `checkpoints/step-*/`, and the outcomes, whose files `headwater.disk.outcomes` describes.

The first subsets are for comparison; those after them are for methods that learn from retrained models.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from headwater.disk.files import written
from headwater.disk.npy import read_npy, write_npy
from headwater.disk.npz import read_examples
from headwater.disk.outcomes import damaged_at_rest, measurements_in, model_in_words, outcome_path
from headwater.errors import DataError
from headwater.examples import Examples, with_channels

SHIPPED = Path(__file__).parent / "banks"


@dataclass(frozen=True, eq=False)
class Bank:
    """An open bank. `outcomes(measurement)` are losses: a larger one is a worse model of the query."""

    folder: Path
    info: dict[str, Any]
    train: Examples
    queries: Examples
    subsets: Bool[np.ndarray, "m n"]
    chosen: tuple[int, ...] | None = None  # places of `queries` in the outcomes, where they are only a part

    @property
    def compared(self) -> int:
        """The number of subsets for comparison; the others are for learning."""
        return int(self.info["recipe"]["subsets"])

    def check_made_from(self, train: Examples) -> None:
        """Raise a DataError unless these are the bank's training images, in its order."""
        if self.train.hashes != with_channels(train, self.train.shape[0]).hashes:
            raise DataError(
                f"The bank {self.folder.name} was made from {len(self.train)} other training images than "
                f"these {len(train)} (or the same in another order).",
                hint=f"Give --train {self.folder}/train.npz.",
            )

    def outcomes(self, measurement: str = "simple") -> Float[np.ndarray, "m s q *t"]:
        """Measured outcomes of every subset and seed; NaN where a model is not trained yet."""
        name, known = "simple" if measurement == "loss" else measurement, measurements_in(self.folder)
        if name not in known:
            raise DataError(
                f"The bank {self.folder} has no outcomes for '{name}'. It has: {', '.join(known)}."
            )
        return read_npy(outcome_path(self.folder, name))[:, :, self._places]

    def finished(self, measurement: str = "simple") -> Float[np.ndarray, "m s q"]:
        """The outcomes for comparison: of `rows` and `seeds`."""
        return self.outcomes(measurement)[np.ix_(self.rows(), self.seeds())].astype(np.float64)

    def seeds(self) -> list[int]:
        """The places of the seeds in use."""
        trained = self.done()[: self.compared]
        return [s for s in range(trained.shape[1]) if trained[:, s].all()] or [0]

    def rows(self) -> list[int]:
        """The subsets for comparison that are in use."""
        return [int(m) for m in np.flatnonzero(self.done()[: self.compared, self.seeds()].all(axis=1))]

    def learning_rows(self) -> list[int]:
        """The trained subsets that methods may learn from: none is compared with."""
        return [int(m) for m in np.flatnonzero(self.done()[:, 0]) if m >= self.compared]

    def done(self) -> Bool[np.ndarray, "m s"]:
        """True for the (subset, seed) models that are trained and measured on every query."""
        return np.all(np.isfinite(read_npy(self.folder / "outcomes.npy")[:, :, self._places]), axis=2)

    @property
    def state(self) -> list[Any]:
        """A mark that differs between banks, and of one bank before and after it has grown."""
        outcomes = hashlib.blake2b(
            read_npy(self.folder / "outcomes.npy").tobytes(), digest_size=8
        ).hexdigest()
        subsets = [subsets_checksum(self.subsets), self.compared]
        return [self.folder.name, int(self.done().sum()), self.queries.fingerprint, *subsets, outcomes]

    @property
    def _places(self) -> list[int]:
        """The places of the queries in the outcomes: queries that are still being added come after them."""
        return list(range(len(self.queries)) if self.chosen is None else self.chosen)


def open_bank(where: str | Path) -> Bank:
    """The bank in a folder, or one that ships with the package (`digits`). Damage is a DataError."""
    folder = _folder(where)
    info = read_info(folder)
    if not (folder / "queries.npz").exists():
        raise DataError(
            f"The bank {folder} has no queries: its model is not trained yet, or its pictures were left out.",
            hint=f"Run `headwater bank build {folder}`.",
        )
    train, queries = (read_examples(folder / f"{side}.npz") for side in ("train", "queries"))
    bank = Bank(folder, info, train, queries, read_npy(folder / "subsets.npy"))
    _check_whole(bank)
    return bank


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


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write `bank.json`."""
    with written(folder / "bank.json", "w") as file:
        json.dump(info, file, indent=1)


def write_subsets(folder: Path, subsets: Bool[np.ndarray, "m n"]) -> None:
    """Write `subsets.npy`."""
    write_npy(folder / "subsets.npy", subsets)


def subsets_checksum(subsets: Bool[np.ndarray, "m n"]) -> str:
    """The checksum that `bank.json` keeps of the subsets."""
    return hashlib.blake2b(
        np.packbits(subsets).tobytes() + str(subsets.shape).encode(), digest_size=8
    ).hexdigest()


def status(bank: Bank) -> list[str]:
    """The contents of a bank, in lines of words."""
    trained, learning = np.split(bank.done(), [bank.compared])
    compared, seeds = trained.shape
    split = bank.queries.split or ("all",) * len(bank.queries)
    lines = [
        f"bank      {bank.folder}",
        f"train     {len(bank.train)} images of {'×'.join(map(str, bank.train.images.shape[1:]))}",
        f"queries   {', '.join(f'{split.count(name)} {name}' for name in dict.fromkeys(split))}",
        f"models    {int(trained.sum())} of {trained.size} trained ({compared} subsets × {seeds} seeds)",
        f"in use    {len(bank.rows())} subsets × {len(bank.seeds())} seeds",
    ]
    if len(learning):
        lines.append(f"learning  {int(learning[:, 0].sum())} of {len(learning)} further subsets trained")
    if (bank.folder / "parts" / "added.npz").exists():
        lines.append("added     queries are being added: run `headwater bank build` until it is done")
    return lines


def _folder(where: str | Path) -> Path:
    """The folder of a bank, or of one that ships."""
    folder = Path(where)
    if not folder.exists() and (SHIPPED / str(where)).is_dir():
        folder = SHIPPED / str(where)
    if not (folder / "bank.json").exists():
        names = ", ".join(sorted(path.name for path in SHIPPED.glob("*/"))) or "none"
        raise DataError(
            f"There is no bank {where}. Expected the folder of a bank, or one that ships: {names}.",
            hint="Make one with `headwater bank build`.",
        )
    return folder


def rows_by_content(queries: Examples) -> dict[str, int]:
    """The row of each picture among the queries of a bank or a run, by the hash of its content."""
    return {content: row for row, content in enumerate(queries.hashes)}


def _check_whole(bank: Bank) -> None:
    """Raise a DataError where the bank's files are damaged or do not belong together."""
    folder, remedy = bank.folder, f"Run `headwater bank build {bank.folder}`"
    if bank.info.get("train") not in (None, bank.train.fingerprint):
        raise DataError(
            f"{folder / 'train.npz'} does not hold the images that the bank was made from. Delete it.",
            hint=f"{remedy}.",
        )
    right_size = bank.subsets.shape[1:] == (len(bank.train),)
    if bank.info.get("subsets") not in (None, subsets_checksum(bank.subsets)) or not right_size:
        raise DataError(
            f"{folder / 'subsets.npy'} is damaged (its checksum is wrong).",
            hint=f"{remedy}: it writes them again.",
        )
    if damaged := damaged_at_rest(folder):
        models = ", ".join(map(model_in_words, damaged[:3])) + " and more" * (len(damaged) > 3)
        raise DataError(
            f"Outcomes in the bank {folder} are not what was written (their checksum is wrong): {models}.",
            hint=f"{remedy}: it measures them again.",
        )
