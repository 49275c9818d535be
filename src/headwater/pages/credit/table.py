"""Who gets the credit in a run: figures per split and per query, as tables for a terminal. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from headwater.credit.accuracy import Right, right
from headwater.credit.shares import Share
from headwater.pages.credit.run import Credited

ROWS, LETTERS = 50, 40  # groups in a table, letters of a name


@dataclass(frozen=True, kw_only=True)
class SplitCredit:
    """The mean shares over the queries of one split.

    `without_shares`: the number of queries that the mean leaves out; `right`: None where no query's own group
    is known.
    """

    queries: int
    without_shares: int
    right: Right | None
    groups: Sequence[Share]

    def as_json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "without_shares": self.without_shares,
            "right": None if self.right is None else self.right._asdict(),
            "groups": [share.as_json() for share in self.groups],
        }


@dataclass(frozen=True, kw_only=True)
class ListedQuery:
    """One query by its id: its split, and the shares of the groups."""

    query: str
    split: str
    groups: Sequence[Share]

    def as_json(self) -> dict[str, Any]:
        groups = [share.as_json() for share in self.groups]
        return {"query": self.query, "split": self.split, "groups": groups}


@dataclass(frozen=True, kw_only=True)
class CreditFigures:
    """A run's credit: its folder and method, the column of the groups, the number of training images.

    `signed`: whether scores below 0 have a meaning.
    """

    run: str
    method: str | None
    signed: bool
    by: str
    images: int
    splits: Mapping[str, SplitCredit]
    queries: Sequence[ListedQuery]

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "method": self.method,
            "signed": self.signed,
            "by": self.by,
            "images": self.images,
            "splits": {name: split.as_json() for name, split in self.splits.items()},
            "queries": [query.as_json() for query in self.queries],
        }


def credit_figures(credited: Credited, queries: Sequence[int] = ()) -> CreditFigures:
    """All figures: means over the queries of each split, then `queries` one by one."""
    run, credit = credited.run, credited.credit
    splits = np.array(run.queries.split or ("all",) * len(run.queries))
    names = dict.fromkeys(splits.tolist())
    return CreditFigures(
        run=str(run.folder),
        method=run.info.get("method"),
        signed=run.signed,
        by=credited.by,
        images=len(credit.member),
        splits={name: _split(credited, np.flatnonzero(splits == name)) for name in names},
        queries=[
            ListedQuery(query=run.scores.query_ids[row], split=str(splits[row]), groups=shares)
            for row, shares in zip(queries, credit.each(queries), strict=True)
        ],
    )


def _split(credited: Credited, rows: Int64[np.ndarray, " c"]) -> SplitCredit:
    credit = credited.credit
    return SplitCredit(
        queries=len(rows),
        without_shares=int((~np.isfinite(credit.share[rows, 0])).sum()),
        right=right(credit, credited.query_groups, rows),
        groups=credit.mean(rows),
    )


def as_text(figures: CreditFigures, *, rows: int = ROWS) -> str:
    """The figures as tables of up to `rows` groups."""
    title = f"{figures.run} by {figures.by}"
    text = [
        f"{title}: share of all score above 0 that falls on each group's training images",
        "by chance: what as many images drawn at random would have; a share within it is no finding",
    ]
    if not figures.signed:
        likeness = "a share says how much of the likeness it has, and nothing of influence."
        text.append(f"{figures.method} measures likeness: {likeness}")
    for name, split in figures.splits.items():
        text += ["", *_split_table(name, split, rows)]
    for query in figures.queries:
        text += ["", *_table(f"{query.query} ({query.split})", "95 % over images", query.groups, rows)]
    # names of files need not be text
    return "\n".join(line.encode(errors="replace").decode() for line in text)


def _split_table(name: str, split: SplitCredit, rows: int) -> list[str]:
    text = _table(f"{name}, {split.queries} queries", "95 % over queries", split.groups, rows)
    if split.without_shares:
        missing = f"{split.without_shares} of these queries have no score above 0, so no shares"
        text.append(f"{missing}; the mean leaves them out.")
    return text if split.right is None else text + _right(split.right)


def _table(title: str, interval: str, groups: Sequence[Share], rows: int) -> list[str]:
    first = groups[:rows]
    names = [_short(share.group) for share in first]
    width = max(map(len, [title, *names])) + 1
    columns = f"{'images':>8}{'net':>12}{'even':>9}{'95 % by chance':>18}{'share':>9}{interval:>20}"
    text = [f"{title:{width}}{columns}"]
    for name, share in zip(names, first, strict=True):
        images, net = f"{share.images:8,}", f"{share.net:+#.4g}"
        chance, ends = _between(share.even_low, share.even_high), _between(share.low, share.high)
        even, part = _percent(share.even), _percent(share.share)
        text.append(f"{name:{width}}{images}{net:>12}{even:>9}{chance:>18}{part:>9}{ends:>20}")
    if len(groups) > rows:
        text.append(f"… and {len(groups) - rows:,} groups more: --json and --out have all")
    return text


def _right(hits: Right) -> list[str]:
    count, ends = f"{hits.right} of {hits.pictures} pictures", _between(hits.low, hits.high)
    rate, even, largest, random = map(_percent, (hits.rate, hits.even, hits.largest, hits.random))
    by_chance = f"random scores {random}, the group of any training image {even}"
    return [
        f"the largest share is the picture's own group's in {count}: {rate}, 95 % interval {ends}",
        f"by chance: {by_chance}, always the group with most images {largest}",
    ]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}".replace("%", " %")


def _between(low: float, high: float) -> str:
    return "–" if math.isnan(low) or math.isnan(high) else f"{100 * low:.1f} to {_percent(high)}"


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
