"""What retraining said of runs, from their records alone: bars with intervals, and words. For the report; numpy only."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from headwater.linalg.rank import interval
from headwater.run import RunFolder
from headwater.words import number, percent

SPLITS = {"val": "held-out", "gen": "generated", "all": "test"}
COMPARABLE = (
    "bank",
    "queries",
    "measurement",
    "subsets",
    "seeds",
    "left_out",
)  # figures that differ in one of these are not set side by side


class Bar(NamedTuple):
    """A figure with its interval; `each` is LDS of every query, `resampled` its mean under every resampling, where recorded."""

    who: str
    kind: str
    value: float
    low: float
    high: float
    each: Sequence[float] = ()
    resampled: Sequence[float] = ()
    signed: bool = True

    @property
    def below(self) -> float | None:
        """The share of queries below 0."""
        return sum(value < 0 for value in self.each) / len(self.each) if self.each else None


class Split(NamedTuple):
    """The queries of one kind: how many, the bars, and about how far perfect scores would get."""

    name: str
    queries: int
    bars: list[Bar]
    reachable: float | None

    @property
    def methods(self) -> list[Bar]:
        return [bar for bar in self.bars if bar.kind == "method"]


class Truth(NamedTuple):
    """What retraining on one bank said of some runs."""

    info: Mapping[str, Any]
    splits: list[Split]

    @property
    def verdicts(self) -> list[str]:
        """A sentence or two for each method, in order."""
        names = dict.fromkeys(bar.who for split in self.splits for bar in split.methods)
        return [verdict(name, self.splits) for name in names]

    @property
    def leads(self) -> list[tuple[str, str]]:
        """For each kind of query, in words, the best method against each other; none for a single method."""
        return [(split.name, text) for split in self.splits if (text := lead(split))]

    @property
    def bounded(self) -> bool:
        return any(bar.kind == "ceiling" for split in self.splits for bar in split.bars)

    @property
    def detailed(self) -> bool:
        """Whether the records hold figures of every query; those of older versions do not."""
        return any(bar.each for split in self.splits for bar in split.bars)

    @property
    def span(self) -> tuple[float, float]:
        """The axis that all bars share."""
        ends = [end for split in self.splits for bar in split.bars for end in chain((bar.low, bar.high, bar.value), bar.each)]
        return min(0.0, *ends), max(0.01, *ends)


def truths(runs: Sequence[RunFolder]) -> list[Truth]:
    """Ground truth, bank by bank: figures from different banks are never set side by side."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        if truth := run.info.get("ground_truth"):
            groups.setdefault(json.dumps([truth.get(name) or None for name in COMPARABLE]), []).append(run)
    return [_truth(members) for members in groups.values()]


def _truth(runs: Sequence[RunFolder]) -> Truth:
    """The bars of runs that were compared with the same bank; chance and ceiling are the bank's, so the first run's will do."""
    info, splits = runs[0].info["ground_truth"], []
    for name, figures in info["splits"].items():
        bars = [_bar(run.name, "method", run.info["ground_truth"]["splits"].get(name, {}), "lds", run.signed) for run in runs]
        bars.append(_bar("Random scores", "random", figures, "random"))
        bars.append(_bar("Another retraining", "ceiling", figures, "oracle" if "oracle" in figures else "ceiling"))
        there = [bar for bar in bars if bar is not None]
        splits.append(Split(SPLITS.get(name) or name, figures.get("queries", 0), there, figures.get("reachable")))
    return Truth(info, splits)


def _bar(who: str, kind: str, figures: Mapping[str, Any], name: str, signed: bool = True) -> Bar | None:
    """The bar of a figure, if the record has it."""
    if (value := figures.get(name)) is None:
        return None
    prefix, of_run = ("", figures) if name == "lds" else (f"{name}_", {})
    low, high = figures.get(f"{prefix}low", value), figures.get(f"{prefix}high", value)
    return Bar(who, kind, value, low, high, of_run.get("each", ()), of_run.get("resampled", ()), signed)


def verdict(name: str, splits: Sequence[Split]) -> str:
    """In words, where a method beats chance: its interval lies above that of the random scores (or, lacking those, above 0)."""
    sides: dict[str, list[str]] = {"better": [], "unclear": [], "opposite": []}
    for split in splits:
        chance = max([0.0, *(bar.high for bar in split.bars if bar.kind == "random")])
        for bar in split.methods:
            if bar.who == name:
                sides["opposite" if bar.high < 0 else "better" if bar.low > chance else "unclear"].append(split.name)
    better, unclear, opposite = (" and the ".join(side) for side in sides.values())
    signed = all(bar.signed for split in splits for bar in split.methods if bar.who == name)
    if opposite:
        guess = "Its scores are probably negated: a positive score must mean a proponent." if signed else "Do not rely on it here."
        return f"{name} predicts the opposite of what retraining does on the {opposite} pictures. {guess}"
    if not better:
        return f"{name} does not clearly predict retraining better than chance would. Do not rely on its scores here."
    but = f", but not clearly on the {unclear}" if unclear else ""
    return f"{name} predicts retraining better than chance on the {better} pictures{but}."


def lead(split: Split) -> str:
    """The best method of a split against each other: the paired difference, and on how many pictures it is above."""
    ranked = sorted((bar for bar in split.methods if bar.resampled), key=lambda bar: -bar.value)
    clear: dict[bool, list[str]] = {True: [], False: []}
    for other in ranked[1:]:
        best, above = ranked[0], percent(float(np.greater(ranked[0].each, other.each).mean()))
        found = interval(best.value - other.value, np.subtract(best.resampled, other.resampled))  # both were resampled alike
        figures = f"by {number(found.mean)}, {number(found.low)} to {number(found.high)}; above on {above} of the pictures"
        clear[found.low > 0].append(f"{other.who} ({figures})")
    ahead, unclear = (listed(each) for each in clear.values())
    text = f"{ranked[0].who} is ahead of {ahead}." if ahead else ""
    return text + (f"{' It' if ahead else ranked[0].who} is not clearly ahead of {unclear}." if unclear else "")


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
