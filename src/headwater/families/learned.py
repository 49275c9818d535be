"""Methods that learn from models of a bank, retrained on subsets, and from their outcomes on the queries.
Numpy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from headwater.bank import Bank, rows_by_content
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.examples import Examples
from headwater.families.fields import check_types

LEAST = 3  # subsets that must remain to compare with
BLOCK = 8192  # training images scored at a time


class LearningSubsets(NamedTuple):
    """The subsets to learn from: their rows in the bank, and the mask of the images in each."""

    rows: tuple[int, ...]
    mask: Bool[np.ndarray, "m n"]


@dataclass(frozen=True, kw_only=True)
class RetrainedMethod:
    """The fields of methods that learn from retrained models.

    `bank`: an open bank of the training images that has outcomes of the queries. `subsets`: rows of the bank
    to learn from (LDS is then measured on all other rows), or a number of its further subsets, which are
    never compared with [default: all further subsets]. `measurement`: the outcome to learn."""

    signed: ClassVar[bool] = True

    bank: Bank | None = field(default=None, repr=False)
    subsets: int | tuple[int, ...] | None = None
    measurement: str = "simple"

    def __post_init__(self) -> None:
        check_types(self)

    def learning_subsets(self, train: Examples) -> LearningSubsets:
        """The subsets to learn from: all trained, none twice, of exactly these training images."""
        bank = needed_bank(self.bank)
        bank.check_made_from(train)
        rows = learning_rows(bank, self.subsets)
        remaining = set(bank.rows()) - set(rows)
        if bank.compared and len(remaining) < LEAST:
            raise OptionError(
                f"subsets names all but {len(remaining)} of the bank's subsets to compare with; expected at "
                f"least {LEAST} to remain: LDS is measured on them."
            )
        return LearningSubsets(rows, bank.subsets[list(rows)])

    def outcomes(self, index: LearningSubsets, queries: Examples) -> Float64[np.ndarray, "m q"]:
        """The outcomes of the queries with the models of these subsets, averaged over seeds."""
        bank = needed_bank(self.bank)
        places = places_in(bank, queries)
        outcomes = bank.outcomes(self.measurement)[list(index.rows)].astype(np.float64)
        if outcomes.ndim != 3:
            raise OptionError(
                f"'{self.measurement}' has several numbers a query; expected one, as with 'simple'."
            )
        return np.nanmean(outcomes, axis=1)[:, places]

    def fit(self, model: object, train: Examples, store: FeatureStore) -> LearningSubsets:
        return self.learning_subsets(train)

    def self_scores(self, index: LearningSubsets) -> Float[np.ndarray, " n"]:
        """Unknown: the bank has no outcomes of the training images."""
        return np.full(index.mask.shape[1], np.nan)

    def resolved(self, index: LearningSubsets) -> dict[str, object]:
        return {"subsets": list(index.rows)}


def needed_bank(bank: Bank | None) -> Bank:
    """The bank of a method that requires one."""
    if bank is None:
        raise OptionError(
            "This method learns from retrained models and needs a `bank` of them.",
            hint="Name one with --bank BANK.",
        )
    return bank


def places_in(bank: Bank, queries: Examples) -> list[int]:
    """The place of each query among the bank's; one that the bank lacks is a DataError."""
    places = rows_by_content(bank.queries)
    pairs = zip(queries.ids, queries.hashes, strict=True)
    if missing := [name for name, content in pairs if content not in places]:
        raise DataError(
            f"The retrained models of the bank {bank.folder.name} have not seen {len(missing)} of the "
            f"{len(queries)} queries, such as {missing[0]}. Add them to the bank: models that are still "
            "cached are not trained again.",
            hint=f"Use `headwater bank build {bank.folder} --add-queries FILE`.",
        )
    return [places[content] for content in queries.hashes]


def learning_rows(bank: Bank, subsets: int | Sequence[int] | None) -> tuple[int, ...]:
    """The rows of the bank that `subsets` stands for."""
    if subsets is None or isinstance(subsets, int):
        return further_rows(bank, subsets)
    trained = np.flatnonzero(bank.done().any(axis=1))
    if bad := [row for row in subsets if row not in trained]:
        raise OptionError(
            f"subsets names {bad[0]}; the bank {bank.folder.name} has {len(trained)} trained subsets, from 0."
        )
    if len(set(subsets)) != len(subsets) or len(subsets) < 2:
        raise OptionError(
            f"subsets has {len(subsets)} rows, {len(set(subsets))} of them different; expected 2 or more, "
            "none twice."
        )
    return tuple(subsets)


def further_rows(bank: Bank, count: int | None) -> tuple[int, ...]:
    """The first of the bank's further subsets, or all of them, never fewer than two."""
    rows = bank.learning_rows()
    if not 2 <= (len(rows) if count is None else count) <= len(rows):
        raise OptionError(
            f"The bank {bank.folder.name} has {len(rows)} trained subsets to learn from; expected "
            f"{'2 or more' if count is None else f'the {count} that subsets asks for (2 or more)'}. "
            "Train more of them, or name subsets to compare with, such as subsets=(0, 1, 2): LDS is "
            "then measured on all other subsets.",
            hint=f"Use `headwater bank build {bank.folder} --learning N`, or --set subsets=0,1,2.",
        )
    return tuple(rows[:count])


def in_blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of n training images, `size` at a time."""
    return (slice(low, min(low + size, n)) for low in range(0, n, size))
