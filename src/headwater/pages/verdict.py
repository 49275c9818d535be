"""Runs against retraining, from their records alone: bars with intervals, and sentences. Numpy only."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from headwater.linalg.rank import interval
from headwater.run import Run
from headwater.words import number, percent

SPLITS = {"val": "held-out", "gen": "generated", "all": "test"}
# Figures that differ in one of these are not set side by side.
COMPARABLE = ("bank", "queries", "measurement", "subsets", "seeds", "left_out")


class Bar(NamedTuple):
    """A figure with its interval; where recorded, the LDS of every query and the mean of every resampling."""

    name: str
    kind: str
    value: float
    low: float
    high: float
    per_query: Sequence[float] = ()
    resampled: Sequence[float] = ()
    signed: bool = True

    @property
    def below(self) -> float | None:
        """The share of queries below 0."""
        return sum(value < 0 for value in self.per_query) / len(self.per_query) if self.per_query else None


class Split(NamedTuple):
    """The queries of one kind: their number, the bars, and about how far perfect scores would get."""

    name: str
    queries: int
    bars: list[Bar]
    reachable: float | None

    @property
    def methods(self) -> list[Bar]:
        return [bar for bar in self.bars if bar.kind == "method"]


class Truth(NamedTuple):
    """Some runs against one bank's ground truth; `seeds`: retrainings of each subset, if recorded."""

    bank: str
    subsets: int | str
    seeds: int | None
    measurement: str
    splits: list[Split]

    @property
    def verdicts(self) -> list[str]:
        """A sentence or two for each method, in order."""
        names = dict.fromkeys(bar.name for split in self.splits for bar in split.methods)
        return [verdict(name, self.splits) for name in names]

    @property
    def leads(self) -> list[tuple[str, str]]:
        """For each kind of query, a sentence on the best method's lead; none for a single method."""
        return [(split.name, text) for split in self.splits if (text := lead(split))]

    @property
    def bounded(self) -> bool:
        """Whether a retraining with another seed was compared as well."""
        return any(bar.kind == "ceiling" for split in self.splits for bar in split.bars)

    @property
    def reachable(self) -> list[tuple[str, float]]:
        """For each kind of query, about how far perfect scores would get, where that is known."""
        return [(split.name, split.reachable) for split in self.splits if split.reachable]

    @property
    def detailed(self) -> bool:
        """Whether the records hold figures of every query; those of older versions do not."""
        return any(bar.per_query for split in self.splits for bar in split.bars)

    @property
    def span(self) -> tuple[float, float]:
        """The axis that all bars share."""
        bars = [bar for split in self.splits for bar in split.bars]
        ends = list(chain.from_iterable((bar.low, bar.high, bar.value, *bar.per_query) for bar in bars))
        return min(0.0, *ends), max(0.01, *ends)


def truths(runs: Sequence[Run]) -> list[Truth]:
    """Ground truth, bank by bank: figures from different banks are never set side by side."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if record := run.info.get("ground_truth"):
            key = json.dumps([record.get(name) or None for name in COMPARABLE])
            groups.setdefault(key, []).append(run)
    return [_truth(members) for members in groups.values()]


def _truth(runs: Sequence[Run]) -> Truth:
    """The bars of runs that were compared with the same bank; chance and ceiling come from the first run."""
    record = runs[0].info["ground_truth"]
    splits = [_split(name, figures, runs) for name, figures in record["splits"].items()]
    measurement = record.get("measurement") or ""
    words = "the training loss" if measurement in ("simple", "loss") else measurement
    return Truth(record.get("bank", ""), record.get("subsets", ""), record.get("seeds"), words, splits)


def _split(name: str, figures: Mapping[str, Any], runs: Sequence[Run]) -> Split:
    records = [(run, run.info["ground_truth"]["splits"].get(name, {})) for run in runs]
    bars = [_bar(run.name, "method", record, "lds", run.signed) for run, record in records]
    bars.append(_bar("Random scores", "random", figures, "random"))
    ceiling = "oracle" if "oracle" in figures else "ceiling"
    bars.append(_bar("Another retraining", "ceiling", figures, ceiling))
    recorded = [bar for bar in bars if bar is not None]
    return Split(SPLITS.get(name) or name, figures.get("queries", 0), recorded, figures.get("reachable"))


def _bar(name: str, kind: str, figures: Mapping[str, Any], key: str, signed: bool = True) -> Bar | None:
    """The bar of a figure, if the record has it."""
    if (value := figures.get(key)) is None:
        return None
    prefix, lists = ("", figures) if key == "lds" else (f"{key}_", {})
    low, high = figures.get(f"{prefix}low", value), figures.get(f"{prefix}high", value)
    return Bar(name, kind, value, low, high, lists.get("each", ()), lists.get("resampled", ()), signed)


def verdict(name: str, splits: Sequence[Split]) -> str:
    """Where a method beats chance: its interval lies above the random scores' interval (or above 0)."""
    sides = _sides(name, splits)
    better, unclear, opposite = (" and the ".join(sides[side]) for side in ("better", "unclear", "opposite"))
    if opposite:
        signed = all(bar.signed for split in splits for bar in split.methods if bar.name == name)
        negated = "Its scores are probably negated: a positive score must mean a proponent."
        advice = negated if signed else "Do not rely on it here."
        return f"{name} predicts the opposite of what retraining does on the {opposite} pictures. {advice}"
    if not better:
        unproven = f"{name} does not clearly predict retraining better than chance would."
        return f"{unproven} Do not rely on its scores here."
    but = f", but not clearly on the {unclear}" if unclear else ""
    return f"{name} predicts retraining better than chance on the {better} pictures{but}."


def _sides(name: str, splits: Sequence[Split]) -> dict[str, list[str]]:
    """The kinds of query on which a method is better than chance, opposite to retraining, or neither."""
    sides: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        chance = max([0.0, *(bar.high for bar in split.bars if bar.kind == "random")])
        for bar in split.methods:
            if bar.name == name:
                side = "opposite" if bar.high < 0 else "better" if bar.low > chance else "unclear"
                sides[side].append(split.name)
    return sides


def lead(split: Split) -> str:
    """The best method of a split against the rest: the paired difference, and how often it is above."""
    ranked = sorted((bar for bar in split.methods if bar.resampled), key=lambda bar: -bar.value)
    clear: dict[bool, list[str]] = {True: [], False: []}
    for bar in ranked[1:]:
        best, above = ranked[0], percent(float(np.greater(ranked[0].per_query, bar.per_query).mean()))
        differences = np.subtract(best.resampled, bar.resampled)  # all bars have the same resamplings
        gap = interval(best.value - bar.value, differences)
        figures = f"by {number(gap.mean)}, {number(gap.low)} to {number(gap.high)}"
        clear[gap.low > 0].append(f"{bar.name} ({figures}; above on {above} of the pictures)")
    ahead, unclear = (listed(names) for names in clear.values())
    sentences = [f"{ranked[0].name} is ahead of {ahead}."] if ahead else []
    if unclear:
        sentences.append(f"{'It' if ahead else ranked[0].name} is not clearly ahead of {unclear}.")
    return " ".join(sentences)


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
