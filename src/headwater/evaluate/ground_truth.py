"""Runs against a bank: how well do scores predict real retraining? Numpy only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from headwater.bank import Bank, rows_by_content
from headwater.errors import DataError, unknown
from headwater.evaluate.lds import (
    LDS,
    LDSComparison,
    against,
    ceiling,
    compare_lds,
    oracle,
    reachable,
    retrainings,
)
from headwater.linalg.rank import Interval
from headwater.methods.random import Random
from headwater.run import Run, open_run
from headwater.scores import dense

OVER = {"subsets": LDS.mean, "queries": LDS.mean_over_queries}  # what an interval is resampled over
BLOCK = 2**22  # random scores made at a time
DECIMALS = 4  # of a figure that is written down


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """The LDS of one split: its mean and distribution over queries, and the references.

    `standard_error` needs two queries, `reachable` several seeds. The LDS of every query, and their mean in
    each resample of the subsets, are recorded in run folders only.
    """

    queries: int
    lds: Interval
    standard_error: float | None
    quartiles: Sequence[float]
    below: float  # the share of queries below 0
    references: Mapping[str, Interval]
    reachable: float | None
    per_query: Sequence[float] | None = None
    resampled: Sequence[float] | None = None

    def as_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"queries": self.queries, **_flat("lds", self.lds)}
        if self.standard_error is not None:
            record["standard_error"] = round(self.standard_error, DECIMALS)
        record |= {"quartiles": _rounded(self.quartiles), "below": round(self.below, DECIMALS)}
        for name, reference in self.references.items():
            record |= _flat(name, reference)
        if self.reachable is not None:
            record["reachable"] = round(self.reachable, DECIMALS)
        if self.per_query is not None and self.resampled is not None:
            record |= {"each": _rounded(self.per_query), "resampled": _rounded(self.resampled, 5)}
        return record


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The LDS of one run's scores, of every query and per split. Unsigned methods have no `sign`."""

    bank: str
    queries: str  # their fingerprint
    measurement: str
    subsets: int
    seeds: int
    over: str
    sign: str | None
    splits: Mapping[str, SplitFigures]
    per_query: Sequence[float]
    left_out: Sequence[int] | None = None  # recorded in run folders only

    def as_json(self) -> dict[str, Any]:
        record = {
            "bank": self.bank,
            "queries": self.queries,
            "measurement": self.measurement,
            "subsets": self.subsets,
            "seeds": self.seeds,
            "over": self.over,
            "sign": self.sign,
            "splits": {name: figures.as_json() for name, figures in self.splits.items()},
            "per_query": _rounded(self.per_query),
        }
        return record if self.left_out is None else record | {"left_out": list(self.left_out)}


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """Run a minus run b on one split."""

    a: str
    b: str
    split: str
    comparison: LDSComparison

    def as_json(self) -> dict[str, Any]:
        pair = self.comparison
        return {
            "a": self.a,
            "b": self.b,
            "split": self.split,
            "difference": round(pair.over_subsets.mean, DECIMALS),
            "above": round(pair.above, DECIMALS),
            "below": round(pair.below, DECIMALS),
            "over_subsets": _rounded(pair.over_subsets[1:]),
            "over_queries": _rounded(pair.over_queries[1:]),
        }


@dataclass(frozen=True, kw_only=True)
class RunsFigures:
    """The figures of several runs by folder, and of every pair of them."""

    runs: Mapping[str, RunFigures]
    pairs: Sequence[PairFigures]

    def as_json(self) -> dict[str, Any]:
        runs = {name: figures.as_json() for name, figures in self.runs.items()}
        return {"runs": runs, "paired": [pair.as_json() for pair in self.pairs]}


def of_run(folder: Path, bank: Bank, measurement: str = "simple", over: str = "subsets") -> RunFigures:
    """LDS of a run folder's scores per query split. Its queries must be among the bank's, in any order."""
    (figures,) = of_runs([folder], bank, measurement, over).runs.values()
    return figures


def of_runs(
    folders: Sequence[Path], bank: Bank, measurement: str = "simple", over: str = "subsets"
) -> RunsFigures:
    """LDS of several runs and of each pair, on the queries they share and subsets none learned from."""
    if over not in OVER:
        raise unknown("resampling over", over, OVER)
    runs = {str(folder): open_run(folder) for folder in dict.fromkeys(folders)}
    places, rows = shared_queries(list(runs.values()), bank)
    resolved = [run.info.get("resolved") or {} for run in runs.values()]
    learned_from = sorted({m for fields in resolved for m in fields.get("subsets") or []})
    yardstick = Yardstick(part_of(bank, places), learned_from, measurement, over)
    pairs = zip(runs.items(), rows, strict=True)
    lds = {name: yardstick.lds(run.scores.values[places]) for (name, run), places in pairs}
    return RunsFigures(
        runs={name: yardstick.figures(lds[name], run.signed) for name, run in runs.items()},
        pairs=[pair for a, b in combinations(lds, 2) for pair in yardstick.pairs(a, b, lds)],
    )


def shared_queries(runs: Sequence[Run], bank: Bank) -> tuple[list[int], list[list[int]]]:
    """The places, in the bank and in each run, of the queries they share, in the first run's order."""
    for run in runs:
        check_same_training(run, bank)
        _check_shares_queries(run, bank)
    tables = [rows_by_content(bank.queries), *(rows_by_content(run.queries) for run in runs[1:])]
    first = enumerate(runs[0].queries.hashes)
    common = [(row, content) for row, content in first if all(content in table for table in tables)]
    if not common:
        folders = " and ".join(str(run.folder) for run in runs)
        raise DataError(f"The runs {folders} share no query of the bank {bank.folder}.")
    in_bank, *places = [[table[content] for _, content in common] for table in tables]
    return in_bank, [[row for row, _ in common], *places]


def _check_shares_queries(run: Run, bank: Bank) -> None:
    if set(bank.queries.hashes).isdisjoint(run.queries.hashes):
        raise DataError(
            f"None of the {len(run.queries)} queries of {run.folder} is in the bank {bank.folder}.",
            hint=f"Give --query {bank.folder}/queries.npz.",
        )


def check_same_training(run: Run, bank: Bank) -> None:
    """Raise a DataError where the run's training images are not the bank's."""
    n = len(run.scores.train_ids)
    pictures = run.pictures.items()
    if n != len(bank.train) or not all(
        np.array_equal(image, bank.train.images[row]) for row, image in pictures
    ):
        raise DataError(
            f"The run {run.folder} has {n} training images that are not the bank's {len(bank.train)} (or the "
            "same in another order).",
            hint=f"Give --train {bank.folder}/train.npz.",
        )


def part_of(bank: Bank, queries: Sequence[int]) -> Bank:
    """The bank as if it had only these queries."""
    return replace(bank, queries=bank.queries.take(list(queries)), chosen=tuple(queries))


def ground_truth(
    bank: Bank, values: Float32[np.ndarray, "q n"], leave_out: Sequence[int] = (), *, signed: bool = True
) -> RunFigures:
    """LDS of scores of the bank's queries, with all that a report draws and pairs with another run.

    Each split has the LDS of every query, in the bank's order, and their mean in each resample of the
    subsets.
    """
    yardstick = Yardstick(bank, sorted(set(leave_out)))
    lds = yardstick.lds(values)
    figures = yardstick.figures(lds, signed)
    splits = {
        name: replace(
            figures.splits[name], per_query=lds.of(chosen).tolist(), resampled=lds.means(chosen).tolist()
        )
        for name, chosen in yardstick.splits.items()
    }
    return replace(figures, splits=splits, left_out=yardstick.leave_out)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """The measure of scores of a bank's queries: retrained models, chance, and the models' agreement."""

    bank: Bank
    leave_out: Sequence[int] = ()
    measurement: str = "simple"
    over: str = "subsets"

    @cached_property
    def splits(self) -> dict[str, Bool[np.ndarray, " q"]]:
        """True for the queries of each split."""
        split = np.array(self.bank.queries.split or ("all",) * len(self.bank.queries))
        return {name: split == name for name in dict.fromkeys(split.tolist())}

    @cached_property
    def references(self) -> dict[str, LDS]:
        """The LDS of `random` scores, and with several seeds of the `ceiling` and the `oracle`."""
        references = {
            "random": self.lds(chance(self.bank)),
            "ceiling": ceiling(self.bank, self.measurement, self.leave_out),
            "oracle": oracle(self.bank, self.measurement, self.leave_out),
        }
        return {name: reference for name, reference in references.items() if reference is not None}

    def lds(self, values: Float32[np.ndarray, "q n"]) -> LDS:
        return against(self.bank, values, self.leave_out, self.measurement)

    def figures(self, lds: LDS, signed: bool) -> RunFigures:
        """The figures of one method, per split."""
        subsets, outcomes = retrainings(self.bank, self.leave_out, self.measurement)
        return RunFigures(
            bank=self.bank.folder.name,
            queries=self.bank.queries.fingerprint,
            measurement=self.measurement,
            subsets=len(subsets),
            seeds=outcomes.shape[1],
            over=self.over,
            sign=sign(lds.mean(chosen) for chosen in self.splits.values()) if signed else None,
            splits={name: self.of_split(lds, chosen) for name, chosen in self.splits.items()},
            per_query=lds.per_query.tolist(),
        )

    def of_split(self, lds: LDS, chosen: Bool[np.ndarray, " q"]) -> SplitFigures:
        """The figures of one split's queries, and of the references on them."""
        values, interval = lds.of(chosen), OVER[self.over]
        agreement = self.references.get("ceiling")
        perfect = (
            None if agreement is None else reachable(agreement.of(chosen).mean(), len(self.bank.seeds()))
        )
        return SplitFigures(
            queries=len(values),
            lds=interval(lds, chosen),
            standard_error=lds.standard_error(chosen) if len(values) > 1 else None,
            quartiles=np.quantile(values, [0.25, 0.5, 0.75]).tolist(),
            below=float((values < 0).mean()),
            references={name: interval(reference, chosen) for name, reference in self.references.items()},
            reachable=perfect,
        )

    def pairs(self, a: str, b: str, lds: Mapping[str, LDS]) -> list[PairFigures]:
        """Run a minus run b, per split."""
        splits = self.splits.items()
        return [
            PairFigures(a=a, b=b, split=name, comparison=compare_lds(lds[a], lds[b], rows))
            for name, rows in splits
        ]


def chance(bank: Bank, *, block: int = BLOCK) -> Float32[np.ndarray, "q n"]:
    """Scores of the random method for the bank, made `block` at a time to save memory."""
    step = max(1, block // len(bank.queries))
    parts = (
        bank.train.take(range(i, min(i + step, len(bank.train)))) for i in range(0, len(bank.train), step)
    )
    return dense(scores for part in parts for scores in Random().score(part, bank.queries))


def sign(intervals: Iterable[Interval]) -> str:
    """`negated` where an interval is below 0 (scores predict the opposite), else `right` or `unclear`."""
    intervals = list(intervals)
    if any(interval.high < 0 for interval in intervals):
        return "negated"
    return "right" if any(interval.low > 0 for interval in intervals) else "unclear"


def _flat(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three keys of a record."""
    prefix = "" if name == "lds" else f"{name}_"
    return {
        name: round(interval.mean, DECIMALS),
        f"{prefix}low": round(interval.low, DECIMALS),
        f"{prefix}high": round(interval.high, DECIMALS),
    }


def _rounded(values: Sequence[float] | Float[np.ndarray, " b"], decimals: int = DECIMALS) -> list[float]:
    return np.round(values, decimals).tolist()
