"""What methods learn from: models of a bank retrained on subsets, and what each made of the queries. Numpy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from headwater.bank import Bank
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples

LEAST = 3  # subsets that must be left to compare with
BLOCK = 8192  # training images scored at a time


class Learned(NamedTuple):
    """The subsets to learn from: their rows in the bank, and which images each kept."""

    rows: tuple[int, ...]
    kept: Bool[np.ndarray, "m n"]


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """The fields of methods that learn from retrained models.

    `bank`: an open bank that was made from the training images; it must have the queries. `subsets`: rows of the bank to learn
    from (LDS is then measured on the others), or how many of its further subsets [default: all of those, none is compared with].
    `measurement`: which of its outcomes.
    """

    signed: ClassVar[bool] = True

    bank: Bank | None = field(default=None, repr=False)
    subsets: int | tuple[int, ...] | None = None
    measurement: str = "simple"

    def learned(self, train: Examples) -> Learned:
        """The subsets to learn from; all trained, none twice, of these very training images."""
        bank = needed(self.bank)
        bank.check_made_from(train)
        rows = chosen(bank, self.subsets)
        left = set(bank.rows()) - set(rows)
        if bank.compared and len(left) < LEAST:
            raise OptionError(
                f"subsets names all but {len(left)} of the bank's subsets to compare with; expected at least {LEAST} left, for LDS "
                "is measured on those."
            )
        return Learned(rows, bank.subsets[list(rows)])

    def outcomes(self, index: Learned, queries: Examples) -> Float64[np.ndarray, "m q"]:
        """What the models of these subsets made of the queries, the mean over their seeds."""
        bank = needed(self.bank)
        places = {content: place for place, content in enumerate(bank.queries.hashes)}
        missing = [name for name, content in zip(queries.ids, queries.hashes, strict=True) if content not in places]
        if missing:
            raise DataError(
                f"The retrained models of the bank {bank.folder.name} have not seen {len(missing)} of the {len(queries)} queries, "
                f"such as {missing[0]}. Add them with `headwater bank build {bank.folder} --add-queries FILE`: models that were "
                "kept are not trained again."
            )
        found = bank.outcomes(self.measurement)[list(index.rows)].astype(np.float64)
        if found.ndim != 3:
            raise OptionError(f"'{self.measurement}' has several numbers a query; expected one, as of 'simple'.")
        return np.nanmean(found, axis=1)[:, [places[content] for content in queries.hashes]]

    def fit(self, model: object, train: Examples, store: FeatureStore | None = None) -> Learned:
        return self.learned(train)

    def self_scores(self, index: Learned) -> Float[np.ndarray, " n"]:
        """Not known: no retrained model has measured the training images themselves."""
        return np.full(index.kept.shape[1], np.nan)

    def resolved(self, index: Learned) -> dict[str, object]:
        return {"subsets": list(index.rows)}


def needed(bank: Bank | None) -> Bank:
    """The bank, of a method that cannot do without one."""
    if bank is None:
        raise OptionError("This method learns from retrained models and needs a bank of them. Name one with --bank BANK.")
    return bank


def chosen(bank: Bank, subsets: int | Sequence[int] | None) -> tuple[int, ...]:
    """The rows of the bank that `subsets` names."""
    further = bank.learning_rows()
    if subsets is None or isinstance(subsets, int):
        count = len(further) if subsets is None else subsets
        if not 2 <= count <= len(further):
            raise OptionError(
                f"The bank {bank.folder.name} has {len(further)} trained subsets to learn from; expected "
                f"{'2 or more' if subsets is None else f'the {count} that subsets asks for (2 or more)'}. Give it more with "
                f"`headwater bank build {bank.folder} --learning N`, or name some of those to compare with, such as "
                "--set subsets=0,1,2: LDS is then measured on the others."
            )
        return tuple(further[:count])
    done = np.flatnonzero(bank.done().any(axis=1))
    if bad := [row for row in subsets if row not in done]:
        raise OptionError(f"subsets names {bad[0]}; the bank {bank.folder.name} has {len(done)} trained subsets, from 0.")
    if len(set(subsets)) != len(subsets) or len(subsets) < 2:
        raise OptionError(
            f"subsets has {len(subsets)} rows, {len(set(subsets))} of them different; expected 2 or more, none twice."
        )
    return tuple(subsets)


def in_blocks(n: int) -> Iterator[slice]:
    """Training images, some at a time."""
    return (slice(low, min(low + BLOCK, n)) for low in range(0, n, BLOCK))
