"""Run folders → one HTML page that needs nothing else: no network, no scripts, and no torch to make it."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from headwater.disk.files import write_text
from headwater.errors import DataError
from headwater.linalg.rank import spearman
from headwater.pages import charts
from headwater.pages.cards import Card, Cards
from headwater.pages.credit.section import LIMITS, CreditLimits, credit_section
from headwater.pages.gallery import Gallery
from headwater.pages.record import record_of
from headwater.pages.self_influence import self_influence
from headwater.pages.template import render
from headwater.pages.verdict import truths
from headwater.run import Run, check_same, distinguished, first_queries, open_run
from headwater.scores import Scores

PROPONENTS, OPPONENTS = 8, 5  # pictures in a row
AGREE = 10  # first proponents that are compared between methods
QUERIES = 48  # shown in full; with more, a browser draws them as they come into view
SMALL = 64  # pixels of a side, up to which a picture is drawn with sharp edges


class Opening(NamedTuple):
    """The drawing at the head of the page: the strongest training images of a query by one method."""

    id: str
    method: str
    streams: Markup | str


class Pair(NamedTuple):
    """Two methods: the rank correlation of their scores, and the mean number of shared first proponents."""

    correlation: float
    shared: float
    a: str
    b: str


def report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    queries: int = QUERIES,
    proponents: int = PROPONENTS,
    opponents: int = OPPONENTS,
    credit: CreditLimits = LIMITS,
) -> Path:
    """Write one page about one run, or about several methods side by side; returns its path.

    The first `queries` queries are shown in full, each with at most `proponents` and `opponents`. The runs
    must have the same training images and queries. `credit`: how much credit of single pictures the page
    holds. The page appears only when it is complete.
    """
    if not runs:
        raise DataError("No run was given; expected at least one folder made by `headwater attribute`.")
    first, *rest = opened = [open_run(Path(run)) for run in runs]
    for run in rest:
        check_same(first, run)
    page = html(opened, queries, proponents, opponents, credit)
    path = first.folder / "report.html" if out is None else Path(out)
    write_text(path, page)
    return path


def html(runs: Sequence[Run], queries: int, proponents: int, opponents: int, limits: CreditLimits) -> str:
    """The page. Text from file names and settings is escaped."""
    runs = distinguished(runs)
    first, n = runs[0], len(runs[0].scores.train_ids)
    gallery = Gallery({row: image for run in runs for row, image in run.pictures.items()})
    rows = first_queries(first.queries, queries)
    credit, agree = credit_section(runs, rows, limits), min(AGREE, n)
    maker = Cards(runs, gallery, credit, proponents, opponents)
    cards = [maker.card(row) for row in rows]
    return render(
        "report.html",
        names=[run.name for run in runs],
        version=first.info.get("headwater") or "",
        n=n,
        q=len(first.queries),
        small=max(first.queries.shape[1:]) <= SMALL,
        signed=any(run.signed for run in runs),
        likeness=not all(run.signed for run in runs),
        mapped=any(run.regions is not None for run in runs),
        opening=_opening(cards, first.name),
        cards=cards,
        many=len(cards) > QUERIES,
        splits=bool(first.queries.split),
        credit=credit,
        selves=[self_influence(run, gallery) for run in runs],
        pairs=_pairs(runs),
        agree=agree,
        by_chance=agree * agree / n,
        truths=truths(runs),
        records=[record_of(run) for run in runs],
        pictures=gallery.embedded.values(),
        charts=charts,
    )


def agreement(a: Scores, b: Scores) -> tuple[float, float]:
    """(rank correlation, shared first proponents) of two methods, means over queries; 0 if constant."""
    ends = zip(a.top(AGREE).rows, b.top(AGREE).rows, strict=True)
    shared = [len(np.intersect1d(proponents, rivals)) for proponents, rivals in ends]
    return float(spearman(a.values, b.values).mean()), float(np.mean(shared))


def _opening(cards: Sequence[Card], method: str) -> Opening:
    """The first generated picture, or the first of all, with the first method."""
    card = next((card for card in cards if card.split == "generated"), cards[0])
    return Opening(card.id, method, card.methods[0].streams)


def _pairs(runs: Sequence[Run]) -> list[Pair]:
    """All pairs of methods, the closest first."""
    pairs = [Pair(*agreement(a.scores, b.scores), a.name, b.name) for a, b in combinations(runs, 2)]
    return sorted(pairs, reverse=True)
