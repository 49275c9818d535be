"""Runs against a bank: how well do scores predict what retraining really does? Numpy only: no model is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from headwater.bank import Bank
from headwater.errors import DataError, unknown
from headwater.evaluate.lds import LDS, against, ceiling, measured, oracle, paired, reachable
from headwater.linalg.rank import Interval
from headwater.methods.random import Random
from headwater.run import RunFolder, open_run
from headwater.scores import dense

OVER = {"subsets": LDS.mean, "queries": LDS.mean_over_queries}  # what an interval is resampled over
BLOCK = 2**22  # random scores made at a time


def of_run(folder: Path, bank: Bank, measurement: str = "simple", over: str = "subsets") -> dict[str, Any]:
    """LDS of a run folder's scores per query split. Its queries must be the bank's or some of them, in any order."""
    (found,) = of_runs([folder], bank, measurement, over)["runs"].values()
    return found


def of_runs(folders: Sequence[Path], bank: Bank, measurement: str = "simple", over: str = "subsets") -> dict[str, Any]:
    """LDS of several runs, and of each pair the paired difference: on the queries all have, and subsets none learned from."""
    if over not in OVER:
        raise unknown("resampling over", over, OVER)
    runs = {str(folder): open_run(folder) for folder in dict.fromkeys(folders)}
    places, rows = shared(list(runs.values()), bank)
    learned_from = sorted({m for run in runs.values() for m in (run.info.get("resolved") or {}).get("subsets") or []})
    yardstick = Yardstick(part_of(bank, places), learned_from, measurement, over)
    found = {name: yardstick.lds(run.scores.values[mine]) for (name, run), mine in zip(runs.items(), rows, strict=True)}
    return {
        "runs": {name: yardstick.figures(each, runs[name].signed) for name, each in found.items()},
        "paired": [row for a, b in combinations(found, 2) for row in yardstick.paired(a, b, found)],
    }


def shared(runs: Sequence[RunFolder], bank: Bank) -> tuple[list[int], list[list[int]]]:
    """The queries that the bank and all runs have, in the first run's order: their places in the bank, and in each run."""
    places = {content: row for row, content in enumerate(bank.queries.hashes)}
    for run in runs:
        check_same_training(run, bank)
        if places.keys().isdisjoint(run.queries.hashes):
            raise DataError(
                f"None of the {len(run.queries)} queries of the run {run.folder} is in the bank {bank.folder}. "
                f"Give --query {bank.folder}/queries.npz."
            )
    first, *others = runs
    tables = [places, *({content: row for row, content in enumerate(run.queries.hashes)} for run in others)]
    here = [(row, content) for row, content in enumerate(first.queries.hashes) if all(content in table for table in tables)]
    if not here:
        raise DataError(f"The runs {' and '.join(str(run.folder) for run in runs)} share no query of the bank {bank.folder}.")
    found, *theirs = ([table[content] for _, content in here] for table in tables)
    return found, [[row for row, _ in here], *theirs]


def check_same_training(run: RunFolder, bank: Bank) -> None:
    """Refuse a run of other training images than the bank's."""
    n = len(run.scores.train_ids)
    if n != len(bank.train) or not all(np.array_equal(image, bank.train.images[row]) for row, image in run.pictures.items()):
        raise DataError(
            f"The run {run.folder} has {n} training images that are not the bank's {len(bank.train)} (or the same in another "
            f"order). Give --train {bank.folder}/train.npz."
        )


def part_of(bank: Bank, queries: Sequence[int]) -> Bank:
    """The bank as if it had only these queries."""
    return replace(bank, queries=bank.queries.take(list(queries)), chosen=tuple(queries))


def ground_truth(
    bank: Bank, values: Float32[np.ndarray, "q n"], leave_out: Sequence[int] = (), *, signed: bool = True
) -> dict[str, Any]:
    """LDS of scores for the bank's queries, with what a report needs to draw them and to pair them with another run's.

    Per split, `each` is the LDS of every query, in the bank's order, and `resampled` their mean in each resample of the subsets.
    """
    yardstick = Yardstick(bank, sorted(set(leave_out)))
    lds = yardstick.lds(values)
    found = yardstick.figures(lds, signed)
    for name, chosen in yardstick.splits.items():
        found["splits"][name] |= {"each": _rounded(lds.of(chosen)), "resampled": _rounded(lds.means(chosen), 5)}
    return found | {"left_out": list(yardstick.leave_out)}


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What scores of a bank's queries are held against: retrained models, chance, and how far models agree among themselves."""

    bank: Bank
    leave_out: Sequence[int] = ()
    measurement: str = "simple"
    over: str = "subsets"

    @cached_property
    def splits(self) -> dict[str, Bool[np.ndarray, " q"]]:
        """Which queries each split has."""
        split = np.array(self.bank.queries.split or ("all",) * len(self.bank.queries))
        return {name: split == name for name in dict.fromkeys(split.tolist())}

    @cached_property
    def references(self) -> dict[str, LDS]:
        """What every table must show beside a method: `random`, and with several seeds the noise `ceiling` and the `oracle`."""
        among = {"ceiling": ceiling(self.bank, self.measurement, self.leave_out)}
        among |= {"oracle": oracle(self.bank, self.measurement, self.leave_out)}
        return {"random": self.lds(chance(self.bank)), **{name: each for name, each in among.items() if each is not None}}

    def lds(self, values: Float32[np.ndarray, "q n"]) -> LDS:
        return against(self.bank, values, self.leave_out, self.measurement)

    def figures(self, found: LDS, signed: bool) -> dict[str, Any]:
        """One method's figures per split; `sign` is `negated` where a signed method's interval lies wholly below 0."""
        subsets, outcomes = measured(self.bank, self.leave_out, self.measurement)
        return {
            "bank": self.bank.folder.name,
            "queries": self.bank.queries.fingerprint,
            "measurement": self.measurement,
            "subsets": len(subsets),
            "seeds": outcomes.shape[1],
            "over": self.over,
            "sign": sign(found.mean(chosen) for chosen in self.splits.values()) if signed else None,
            "splits": {name: self.row(found, chosen) for name, chosen in self.splits.items()},
            "per_query": _rounded(found.per_query),
        }

    def row(self, found: LDS, chosen: Bool[np.ndarray, " q"]) -> dict[str, Any]:
        """The figures of one split: of the method, how they differ between queries, and of the references."""
        each, interval = found.of(chosen), OVER[self.over]
        row = {"queries": len(each), **_named("lds", interval(found, chosen))}
        if len(each) > 1:
            row["standard_error"] = round(found.standard_error(chosen), 4)
        row |= {"quartiles": _rounded(np.quantile(each, [0.25, 0.5, 0.75])), "below": round(float((each < 0).mean()), 4)}
        for name, reference in self.references.items():
            row |= _named(name, interval(reference, chosen))
        if "ceiling" in row:
            row["reachable"] = round(reachable(self.references["ceiling"].of(chosen).mean(), len(self.bank.seeds())), 4)
        return row

    def paired(self, a: str, b: str, found: Mapping[str, LDS]) -> list[dict[str, Any]]:
        """Run a minus run b, per split."""
        rows = []
        for name, chosen in self.splits.items():
            pair = paired(found[a], found[b], chosen)
            figures = {"difference": round(pair.over_subsets.mean, 4), "above": round(pair.above, 4), "below": round(pair.below, 4)}
            intervals = {"over_subsets": _rounded(pair.over_subsets[1:]), "over_queries": _rounded(pair.over_queries[1:])}
            rows.append({"a": a, "b": b, "split": name, **figures, **intervals})
        return rows


def chance(bank: Bank) -> Float32[np.ndarray, "q n"]:
    """Scores of the random method for the bank, some training images at a time: its arithmetic takes several times their room."""
    step = max(1, BLOCK // len(bank.queries))
    parts = (bank.train.take(range(i, min(i + step, len(bank.train)))) for i in range(0, len(bank.train), step))
    return dense(block for part in parts for block in Random().score(part, bank.queries))


def sign(intervals: Iterable[Interval]) -> str:
    """`negated` where an interval lies wholly below 0: scores predict the opposite of what happens. Else `right` or `unclear`."""
    each = list(intervals)
    if any(one.high < 0 for one in each):
        return "negated"
    return "right" if any(one.low > 0 for one in each) else "unclear"


def _named(name: str, found: Interval) -> dict[str, float]:
    prefix = "" if name == "lds" else f"{name}_"
    return {name: round(found.mean, 4), f"{prefix}low": round(found.low, 4), f"{prefix}high": round(found.high, 4)}


def _rounded(values: Sequence[float] | Float[np.ndarray, " b"], decimals: int = 4) -> list[float]:
    return np.round(values, decimals).tolist()
