"""Who gets the credit, as a page shows it: a chart for each method, and a line on each picture. Numpy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from headwater import charts
from headwater.charts import percent
from headwater.columns import column, default
from headwater.credit import Credit, Share
from headwater.runs import RunFolder

MOST = 40  # groups in a chart
NAMED = 4  # groups on a picture's line


class Line(NamedTuple):
    """One group in a method's chart."""

    group: str
    bar: Markup
    share: str
    interval: str
    even: str


class Chart(NamedTuple):
    """One method: how much of the credit each group has, in the mean over pictures."""

    run: RunFolder
    lines: list[Line]


class Section(NamedTuple):
    """Everything that the section shows; `credits` are the methods', for the lines on single pictures."""

    by: str
    groups: int
    pictures: int
    kind: str
    charts: list[Chart]
    axis: Markup
    credits: list[Credit]


class Parts(NamedTuple):
    """One picture's credit by one method: a strip cut by share, and the same in words."""

    strip: Markup
    words: str


def section(runs: Sequence[RunFolder]) -> Section | None:
    """The groups' shares by each method, over the generated pictures if there are any; None where no groups are worth a chart.

    Runs of one page have the same training images, so what one run knows of their groups holds for all.
    """
    known = sorted((default(run) or "none", i) for i, run in enumerate(runs))  # group before label before none
    by, first = known[0]
    if by == "none":
        return None
    names = column(runs[first], by)
    if not 2 <= len(set(names)) <= len(names) / 2:
        return None
    splits = np.array(runs[0].queries.split or ("",) * len(runs[0].queries))
    rows = np.flatnonzero(splits == "gen") if "gen" in splits else np.arange(len(splits))
    credits = [run.scores.credit(names) for run in runs]
    found = [[each for each in credit.mean(rows)[:MOST] if np.isfinite(each.share)] for credit in credits]
    span = (0.0, 103 * max([end for shares in found for each in shares for end in (*_ends(each), each.even_high)], default=1.0))
    return Section(
        by,
        len(credits[0].groups),
        len(rows),
        "generated" if "gen" in splits else "",
        [Chart(run, [_line(each, span) for each in shares]) for run, shares in zip(runs, found, strict=True)],
        charts.axis(span),
        credits,
    )


def parts(credit: Credit, query: int, by: str) -> Parts | None:
    """The groups with the largest shares of one picture; None where it has no shares."""
    share = credit.share[query]
    if not np.isfinite(share[0]):
        return None
    first = np.argsort(-share, kind="stable")[:NAMED].tolist()
    sizes, evens = share[first].tolist(), credit.even[first].tolist()
    said = [
        f"{percent(size)} to {credit.groups[g]} (even: {percent(even)})" for g, size, even in zip(first, sizes, evens, strict=True)
    ]
    if others := len(share) - len(first):
        said.append(f"{percent(max(0.0, 1 - sum(sizes)))} to the other {others}")
    words = f"Credit by {by}: {', '.join(said[:-1])} and {said[-1]}."
    return Parts(charts.portions(sizes), words)


def _ends(share: Share) -> tuple[float, float]:
    """The interval; where there is none, the share itself."""
    return (share.low, share.high) if np.isfinite(share.low) else (share.share, share.share)


def _line(each: Share, span: tuple[float, float]) -> Line:
    low, high = _ends(each)
    kind = "credit above" if each.share > each.even_high else "credit"
    mark = (100 * each.even, 100 * each.even_low, 100 * each.even_high)
    bar = charts.interval(100 * each.share, 100 * low, 100 * high, span, kind, mark=mark)
    between = f"{100 * low:.1f} to {_tenths(high)}" if high > low else ""
    return Line(each.group, bar, _tenths(each.share), between, _tenths(each.even))


def _tenths(share: float) -> str:
    """In percent with one decimal, so that a column lines up."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
