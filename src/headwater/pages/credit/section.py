"""Who gets the credit, as a page shows it: a chart for each method, lines on each picture, files to take away. No torch."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from markupsafe import Markup

from headwater.credit.accuracy import Right, right
from headwater.credit.groups import column, default
from headwater.credit.shares import Share
from headwater.pages import charts
from headwater.pages.credit.files import KINDS
from headwater.pages.credit.run import Credited
from headwater.run import RunFolder
from headwater.words import percent

MOST = 40  # groups in a chart
NAMED = 4  # groups on a picture's line
SURE = 50_000  # shares of single pictures that get intervals: about ten seconds of 5,000 training images
FILE = 2000  # rows of a file that a page carries: half a megabyte


class Line(NamedTuple):
    """One group in a method's chart."""

    group: str
    bar: Markup
    share: str
    interval: str
    even: str
    chance: str


class File(NamedTuple):
    """A file in the page itself: its suffix, and its content as a link."""

    suffix: str
    link: str


class Chart(NamedTuple):
    """One method: how much of the credit each group has, in the mean over pictures and in each that the page shows."""

    run: RunFolder
    lines: list[Line]
    right: str
    files: list[File]
    each: Mapping[int, list[Share]]


class Section(NamedTuple):
    """Everything that the section shows."""

    by: str
    groups: int
    pictures: int
    kind: str
    charts: list[Chart]
    axis: Markup


class Parts(NamedTuple):
    """One picture's credit by one method: a strip cut by share, the same in words, and its first groups with intervals."""

    strip: Markup
    words: str
    lines: list[Line]


def section(runs: Sequence[RunFolder], shown: Sequence[int]) -> Section | None:
    """The groups' shares by each method, over the generated pictures if there are any; None where no groups are worth a chart.

    `shown` are the queries that the page shows by themselves. Runs of one page have the same training images, so what one run knows
    of their groups holds for all.
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
    credits = [Credited(run, by, run.scores.credit(names)) for run in runs]
    found = [[each for each in what.credit.mean(rows)[:MOST] if np.isfinite(each.share)] for what in credits]
    span = (0.0, 103 * max([end for shares in found for each in shares for end in (*_ends(each), each.even_high)], default=1.0))
    return Section(
        by,
        len(set(names)),
        len(rows),
        "generated" if "gen" in splits else "",
        [_chart(what, [_line(each, span) for each in shares], rows, shown) for what, shares in zip(credits, found, strict=True)],
        charts.axis(span),
    )


def parts(shares: Sequence[Share], by: str) -> Parts | None:
    """The groups with the largest shares of one picture; None where it has no shares."""
    first, others = shares[:NAMED], shares[NAMED:]
    if not np.isfinite(first[0].share):
        return None
    sizes = [each.share for each in first]
    said = [f"{percent(each.share)} to {each.group} (even: {percent(each.even)})" for each in first]
    if others:
        said.append(f"{percent(max(0.0, 1 - sum(sizes)))} to the other {len(others)}")
    words = f"Credit by {by}: {', '.join(said[:-1])} and {said[-1]}."
    return Parts(charts.portions(sizes), words, [_line(each, (0.0, 100.0)) for each in first if np.isfinite(each.even_low)])


def _chart(what: Credited, lines: list[Line], rows: Int64[np.ndarray, " c"], shown: Sequence[int]) -> Chart:
    counted = right(what.credit, what.own, rows)
    size = len(shown) * len(what.credit.groups)
    told = what.credit.each(shown) if size <= SURE else map(what.credit.bare, shown)
    each = dict(zip(shown, told, strict=True))
    files = [_file(suffix, what, each) for suffix in (".csv", ".jsonld")] if size <= FILE else []
    return Chart(what.run, lines, "" if counted is None else _counted(counted, what.by), files, each)


def _file(suffix: str, what: Credited, each: Mapping[int, list[Share]]) -> File:
    content = "".join(KINDS[suffix](what, each.items())).encode(errors="replace")
    kind = "text/csv" if suffix == ".csv" else "application/ld+json"
    return File(suffix, f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _counted(found: Right, by: str) -> str:
    rate, low, high, even, largest, random = (percent(value) for value in found[2:])
    return (
        f"The largest share is that of the picture's own {by} in {found.right} of {found.pictures} pictures: {rate}, with a 95 % "
        f"interval from {low} to {high}. By chance it would be with random scores {random}, with the {by} of any training image "
        f"{even}, and always with the {by} of most images {largest}."
    )


def _ends(share: Share) -> tuple[float, float]:
    """The interval; where there is none, the share itself."""
    return (share.low, share.high) if np.isfinite(share.low) else (share.share, share.share)


def _line(each: Share, span: tuple[float, float]) -> Line:
    low, high = _ends(each)
    kind = "credit above" if each.share > each.even_high else "credit"
    mark = (100 * each.even, 100 * each.even_low, 100 * each.even_high)
    bar = charts.interval(100 * each.share, 100 * low, 100 * high, span, kind, mark=mark)
    between = f"{100 * low:.1f} to {_tenths(high)}" if high > low else ""
    chance = f"{100 * each.even_low:.1f} to {_tenths(each.even_high)}"
    return Line(each.group, bar, _tenths(each.share), between, _tenths(each.even), chance)


def _tenths(share: float) -> str:
    """In percent with one decimal, so that a column lines up."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
