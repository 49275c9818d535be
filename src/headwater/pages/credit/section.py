"""Credit on a page: a chart for each method, a line for each picture, and files to download. No torch."""

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
from headwater.pages.credit.files import WRITERS
from headwater.pages.credit.run import Credited
from headwater.run import Run
from headwater.words import percent

CHART_GROUPS = 40  # groups in a chart
LINE_GROUPS = 4  # groups on a picture's line
FORMATS = {".csv": ("CSV", "text/csv"), ".jsonld": ("JSON-LD", "application/ld+json")}


class CreditLimits(NamedTuple):
    """How many groups of single pictures a page holds: with intervals (about ten seconds of 5,000 training
    images), and in a file that it carries (half a megabyte)."""

    intervals: int = 50_000
    file: int = 2000


LIMITS = CreditLimits()


class GroupRow(NamedTuple):
    """One group in a chart or a table; the figures in words."""

    group: str
    bar: Markup
    share: str
    interval: str
    even: str
    chance: str


class Download(NamedTuple):
    """A file in the page itself: its format, its name, and its content as a link."""

    format: str
    name: str
    link: str


class CreditChart(NamedTuple):
    """One method: each group's mean share over pictures, and its shares of the pictures that the page shows.

    `accuracy`, a sentence: how often the group with the largest share is the picture's own; may be empty.
    """

    title: str
    rows: list[GroupRow]
    accuracy: str
    downloads: list[Download]
    per_query: Mapping[int, list[Share]]


class CreditSection(NamedTuple):
    """The section: `pictures` of a `kind` are averaged; `likeness`: some method measures no influence."""

    by: str
    groups: int
    pictures: int
    kind: str
    likeness: bool
    charts: list[CreditChart]
    axis: Markup

    @property
    def cut(self) -> bool:
        """Whether the charts leave groups out."""
        return self.groups > CHART_GROUPS


class QueryCredit(NamedTuple):
    """One picture's credit by one method: a strip cut by share, a sentence, the first groups' intervals."""

    by: str
    strip: Markup
    words: str
    rows: list[GroupRow]


def credit_section(
    runs: Sequence[Run], cards: Sequence[int], limits: CreditLimits = LIMITS
) -> CreditSection | None:
    """Each method's mean shares over the generated pictures, or over all if none is generated.

    None where no groups are worth a chart. `cards` are the queries that the page shows one by one. Runs of
    one page have the same training images, so the groups that one run knows hold for all.
    """
    # In alphabetical order: group before label before none.
    by, first = min((default(run) or "none", i) for i, run in enumerate(runs))
    if by == "none":
        return None
    names = column(runs[first], by)
    if not 2 <= len(set(names)) <= len(names) / 2:
        return None
    splits = np.array(runs[0].queries.split or ("",) * len(runs[0].queries))
    rows = np.flatnonzero(splits == "gen") if "gen" in splits else np.arange(len(splits))
    methods = [Credited(run, by, run.scores.credit(names)) for run in runs]
    means = [_finite(credited.credit.mean(rows)[:CHART_GROUPS]) for credited in methods]
    ends = [end for shares in means for share in shares for end in (*_ends(share), share.even_high)]
    span = (0.0, 103 * max(ends, default=1.0))
    titles = [run.name if len(runs) > 1 else "" for run in runs]
    return CreditSection(
        by,
        groups=len(set(names)),
        pictures=len(rows),
        kind="generated" if "gen" in splits else "",
        likeness=not all(run.signed for run in runs),
        charts=[
            _chart(title, credited, [_row(share, span) for share in shares], rows, cards, limits)
            for title, credited, shares in zip(titles, methods, means, strict=True)
        ],
        axis=charts.axis(span),
    )


def query_credit(shares: Sequence[Share], by: str) -> QueryCredit | None:
    """The groups with the largest shares of one picture; None where it has no shares."""
    first, rest = shares[:LINE_GROUPS], shares[LINE_GROUPS:]
    if not np.isfinite(first[0].share):
        return None
    sizes = [share.share for share in first]
    words = [f"{percent(share.share)} to {share.group} (even: {percent(share.even)})" for share in first]
    if rest:
        words.append(f"{percent(max(0.0, 1 - sum(sizes)))} to the other {len(rest)}")
    sentence = f"Credit by {by}: {', '.join(words[:-1])} and {words[-1]}."
    rows = [_row(share, (0.0, 100.0)) for share in first if np.isfinite(share.even_low)]
    return QueryCredit(by, charts.portions(sizes), sentence, rows)


def _chart(
    title: str,
    credited: Credited,
    rows: list[GroupRow],
    pictures: Int64[np.ndarray, " c"],
    cards: Sequence[int],
    limits: CreditLimits,
) -> CreditChart:
    credit = credited.credit
    accuracy = _accuracy(right(credit, credited.query_groups, pictures), credited.by)
    size = len(cards) * len(credit.groups)
    shares = credit.each(cards) if size <= limits.intervals else map(credit.bare, cards)
    per_query = dict(zip(cards, shares, strict=True))
    suffixes = FORMATS if size <= limits.file else ()
    downloads = [_download(suffix, title, credited, per_query) for suffix in suffixes]
    return CreditChart(title, rows, accuracy, downloads, per_query)


def _download(suffix: str, title: str, credited: Credited, per_query: Mapping[int, list[Share]]) -> Download:
    content = "".join(WRITERS[suffix](credited, per_query.items())).encode(errors="replace")
    name, kind = FORMATS[suffix]
    link = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return Download(name, f"credit{' ' if title else ''}{title}{suffix}", link)


def _accuracy(hits: Right | None, by: str) -> str:
    if hits is None:
        return ""
    return (
        f"The largest share is that of the picture's own {by} in {hits.right} of {hits.pictures} pictures: "
        f"{percent(hits.rate)}, with a 95 % interval from {percent(hits.low)} to {percent(hits.high)}. By "
        f"chance it would be with random scores {percent(hits.random)}, with the {by} of any training image "
        f"{percent(hits.even)}, and always with the {by} of most images {percent(hits.largest)}."
    )


def _finite(shares: Sequence[Share]) -> list[Share]:
    return [share for share in shares if np.isfinite(share.share)]


def _ends(share: Share) -> tuple[float, float]:
    """The interval, or the share itself twice if it has none."""
    return (share.low, share.high) if np.isfinite(share.low) else (share.share, share.share)


def _row(share: Share, span: tuple[float, float]) -> GroupRow:
    low, high = _ends(share)
    kind = "credit above" if share.share > share.even_high else "credit"
    mark = (100 * share.even, 100 * share.even_low, 100 * share.even_high)
    return GroupRow(
        share.group,
        bar=charts.interval_bar(100 * share.share, 100 * low, 100 * high, span, kind, mark=mark),
        share=_tenths(share.share),
        interval=f"{100 * low:.1f} to {_tenths(high)}" if high > low else "",
        even=_tenths(share.even),
        chance=f"{100 * share.even_low:.1f} to {_tenths(share.even_high)}",
    )


def _tenths(share: float) -> str:
    """In percent with one decimal, so that a column lines up."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
