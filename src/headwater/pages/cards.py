"""The pictures of a page: a card for each query, with a row of training images for each method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from markupsafe import Markup

from headwater.pages import charts
from headwater.pages.charts import scale_of
from headwater.pages.credit.section import CreditSection, QueryCredit, query_credit
from headwater.pages.gallery import Gallery, Picture
from headwater.pages.maps import Map, map_of
from headwater.pages.thumbnails import Thumbnail, label_at, prompt_at, thumbnails
from headwater.pages.verdict import SPLITS
from headwater.run import Run
from headwater.scores import top
from headwater.words import percent

STREAMS = 5  # pictures in the drawing at the head of the page

Values = Float32[np.ndarray, " n"]  # of one query
Rows = Int64[np.ndarray, "_"]  # training images


class MethodRow(NamedTuple):
    """One method on one query: the training images with the highest and the lowest scores, and its charts.

    `title` is the method's name where the page has several; `lds` the query's figure against retraining.
    """

    title: str
    signed: bool
    unit: str
    most: list[Thumbnail]
    least: list[Thumbnail]
    streams: Markup | str
    histogram: Markup
    reading: str
    lds: float | None
    credit: QueryCredit | None
    map: Map | None


class Card(NamedTuple):
    """A query, and a row for each method."""

    row: int
    id: str
    label: int | None
    prompt: str
    split: str
    picture: Picture
    methods: list[MethodRow]


@dataclass(frozen=True, eq=False)
class Cards:
    """The runs of a page, its pictures and credit, and the number of proponents and of opponents in a row."""

    runs: Sequence[Run]
    gallery: Gallery
    credit: CreditSection | None
    proponents: int
    opponents: int

    def card(self, row: int) -> Card:
        """The card of a query."""
        queries = self.runs[0].queries
        picture, split = self.gallery.add(queries.images[row]), queries.split[row] if queries.split else ""
        methods = [self._method(i, row, picture) for i in range(len(self.runs))]
        label, prompt = label_at(queries.labels, row), prompt_at(queries.prompts, row)
        return Card(row, queries.ids[row], label, prompt, SPLITS.get(split, split), picture, methods)

    def _method(self, i: int, row: int, query: Picture) -> MethodRow:
        run = self.runs[i]
        values, scale = run.scores.values[row], scale_of(run.scores.values[row], run.signed)
        most, least = self._ends(values, run.signed)
        return MethodRow(
            run.name if len(self.runs) > 1 else "",
            run.signed,
            scale.unit,
            thumbnails(run, most, values, scale, self.gallery),
            thumbnails(run, least, values, scale, self.gallery),
            self._streams(most, values, query),
            charts.histogram(values, values[most], values[least], scale),
            reading(values, most, run.labels, label_at(run.queries.labels, row)),
            _lds(run, row),
            self._credit(i, row),
            map_of(run, row, self.gallery),
        )

    def _credit(self, i: int, row: int) -> QueryCredit | None:
        credit = self.credit
        return None if credit is None else query_credit(credit.charts[i].per_query[row], credit.by)

    def _ends(self, values: Values, signed: bool) -> tuple[Rows, Rows]:
        """Proponents, with scores above 0, and opponents, with scores below, however few there are."""
        most = top([values[None]], self.proponents).rows[0]
        least = top([-values[None]], self.opponents).rows[0]
        if signed:
            most, least = most[values[most] > 0], least[values[least] < 0]
        return most, least[~np.isin(least, most)]

    def _streams(self, most: Rows, values: Values, query: Picture) -> Markup | str:
        """The strongest proponents whose pictures are kept, running into the query."""
        rows = [row for row in most[:STREAMS].tolist() if values[row] > 0]
        pictures = [(self.gallery.row(row), float(values[row])) for row in rows]
        sources = [(picture, value) for picture, value in pictures if picture is not None]
        return charts.streams(sources, query) if sources else ""


def reading(values: Values, most: Rows, labels: Int64[np.ndarray, " n"] | None, label: int | None) -> str:
    """In words: the proponents' part of all positive score, and how many of them have the query's label."""
    gains = np.maximum(values, 0).astype(np.float64)
    k, positive = len(most), int((values > 0).sum())
    if not positive:
        return f"None of the {len(values):,} training images has a score above 0."
    share, even = percent(gains[most].sum() / gains.sum()), percent(k / positive)
    text = f"The {k} strongest of {len(values):,} training images carry {share} of all positive score"
    text += f" (spread evenly over the {positive:,} above 0: {even})."
    if labels is None or label is None:
        return text
    count = int((labels[most] == label).sum())
    part = f"All {k}" if count == k else f"{count or 'None'} of the {k}"
    return f"{text} {part} have its label, {label}."


def _lds(run: Run, row: int) -> float | None:
    """A query's figure against retrained models, if the run records one for each query."""
    figures = (run.info.get("ground_truth") or {}).get("per_query") or []
    return figures[row] if len(figures) == len(run.queries) else None
