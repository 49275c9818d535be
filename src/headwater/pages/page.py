"""Run folders → one HTML page that needs nothing else: no network, no scripts, and no torch to make it."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import Float32, Int64
from markupsafe import Markup

from headwater.disk.files import written
from headwater.errors import DataError
from headwater.linalg.rank import spearman
from headwater.pages import charts
from headwater.pages.charts import Gallery, Picture, Scale, prose, scale_of
from headwater.pages.credit.section import Parts, Section, parts, section
from headwater.pages.maps import Map, map_of
from headwater.pages.verdict import SPLITS, truths
from headwater.run import RunFolder, check_same, chosen, distinguished, open_run
from headwater.scores import Scores, top
from headwater.words import duration, number, percent

PROPONENTS, OPPONENTS, STREAMS = 8, 5, 5  # pictures in a row of the page, and in the drawing at its head
AGREE = 10  # methods agree as far as they share this many first proponents
QUERIES = 48  # shown in full
LONG = ("per_query", "each", "resampled")  # of a run's ground truth


class Shown(NamedTuple):
    """A training image in a row; `length` is its score's size against the largest of all, in percent."""

    picture: Picture | None
    id: str
    label: int | None
    prompt: str
    score: str
    length: float


class Row(NamedTuple):
    """The training images with the highest and the lowest scores of one method."""

    run: RunFolder
    unit: str
    most: list[Shown]
    least: list[Shown]
    streams: Markup | str = ""
    histogram: Markup | str = ""
    reading: str = ""
    lds: float | None = None
    credit: Parts | None = None
    map: Map | None = None


class Query(NamedTuple):
    """A query and what every method says of it."""

    row: int
    id: str
    label: int | None
    prompt: str
    split: str
    picture: Picture
    methods: list[Row]


def report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    queries: int = QUERIES,
    proponents: int = PROPONENTS,
    opponents: int = OPPONENTS,
) -> Path:
    """One page about one run, or about several methods side by side; `queries` of them are shown in full. Returns its path.

    Each has at most so many `proponents` and `opponents`. The runs must have the same training images and queries. The page appears
    only when it is complete.
    """
    if not runs:
        raise DataError("No run was given; expected at least one folder made by `headwater attribute`.")
    opened = [open_run(Path(run)) for run in runs]
    for other in opened[1:]:
        check_same(opened[0], other)
    page = render(opened, queries, (proponents, opponents))
    path = opened[0].folder / "report.html" if out is None else Path(out)
    with written(path) as file:
        file.write(page.encode(errors="replace"))  # file names need not be text
    return path


def render(runs: Sequence[RunFolder], queries: int, ends: tuple[int, int] = (PROPONENTS, OPPONENTS)) -> str:
    """The page. Whatever comes from file names or settings is escaped."""
    runs = distinguished(runs)
    gallery = Gallery({row: image for run in runs for row, image in run.pictures.items()})
    shown = chosen(runs[0].queries, queries)
    credit = section(runs, shown)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headwater.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,  # run.json may lack whatever it lacks
    )
    environment.filters |= {"prose": prose, "duration": duration, "count": "{:,}".format, "number": number}
    environment.filters |= {"percent": percent, "record": record}
    page = environment.get_template("report.html").render(
        runs=runs,
        credit=credit,
        queries=[_card(runs, row, gallery, ends, credit) for row in shown],
        own=[(run, self_influence(run, gallery)) for run in runs],
        pairs=sorted(((*agreement(a.scores, b.scores), a.name, b.name) for a, b in combinations(runs, 2)), reverse=True),
        truths=truths(runs),
        pictures=gallery.found.values(),
        interval=charts.interval,
        strip=charts.strip,
        axis=charts.axis,
        agree=min(AGREE, len(runs[0].scores.train_ids)),
    )
    return page.lstrip()


def _card(runs: Sequence[RunFolder], row: int, gallery: Gallery, ends: tuple[int, int], credit: Section | None) -> Query:
    queries = runs[0].queries
    picture, split = gallery.add(queries.images[row]), queries.split[row] if queries.split else ""
    rows = [_said(run, row, picture, gallery, ends) for run in runs]
    if credit is not None:
        shares = [parts(chart.each[row], credit.by) for chart in credit.charts]
        rows = [said._replace(credit=each) for said, each in zip(rows, shares, strict=True)]
    label, prompt = _label(queries.labels, row), _prompt(queries.prompts, row)
    return Query(row, queries.ids[row], label, prompt, SPLITS.get(split, split), picture, rows)


def _said(run: RunFolder, row: int, query: Picture, gallery: Gallery, ends: tuple[int, int]) -> Row:
    """What one method says of one query. Proponents have scores above 0 and opponents below, however few that leaves."""
    values = run.scores.values[row]
    most, least = (top([sign * values[None]], count).rows[0] for sign, count in zip((1, -1), ends, strict=True))
    if run.signed:
        most, least = most[values[most] > 0], least[values[least] < 0]
    least = least[~np.isin(least, most)]
    scale = scale_of(values, run.signed)
    sources = [(picture, float(values[i])) for i in most[:STREAMS].tolist() if (picture := gallery.row(i)) and values[i] > 0]
    lds = (run.info.get("ground_truth") or {}).get("per_query") or []
    return Row(
        run,
        scale.unit,
        most=_shown(run, most, values, scale, gallery),
        least=_shown(run, least, values, scale, gallery),
        streams=charts.streams(sources, query) if sources else "",
        histogram=charts.histogram(values, values[most], values[least], scale),
        reading=reading(values, most, run.labels, _label(run.queries.labels, row)),
        lds=lds[row] if len(lds) == len(run.queries) else None,
        map=map_of(run, row, gallery),
    )


def reading(
    values: Float32[np.ndarray, " n"], most: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, " n"] | None, label: int | None
) -> str:
    """A row in words: how much of all positive score its proponents carry, and how many of them have the query's label."""
    gains = np.maximum(values, 0).astype(np.float64)
    k, positive = len(most), int((values > 0).sum())
    if not positive:
        return f"None of the {len(values):,} training images has a score above 0."
    share, even = percent(gains[most].sum() / gains.sum()), percent(k / positive)
    text = f"The {k} strongest of {len(values):,} training images carry {share} of all positive score"
    text += f" (spread evenly over the {positive:,} above 0: {even})."
    if labels is None or label is None:
        return text
    same = int((labels[most] == label).sum())
    return f"{text} {'All' if same == k else same or 'None'}{'' if same == k else ' of the'} {k} have its label, {label}."


def self_influence(run: RunFolder, gallery: Gallery) -> Row | None:
    """The training images that weigh most and least on their own loss; None for a method that cannot tell them apart."""
    own = run.scores.self_scores
    if not np.isfinite(own).all() or np.ptp(own) <= 1e-5 * np.abs(own).max():  # unknown, or a constant but for float32 rounding
        return None
    scale = scale_of(own, signed=bool(own.min() < 0))
    most, least = (_shown(run, top([sign * own[None]], PROPONENTS).rows[0], own, scale, gallery) for sign in (1, -1))
    return Row(run, scale.unit, most, least)


def _shown(
    run: RunFolder, rows: Int64[np.ndarray, " k"], values: Float32[np.ndarray, " n"], scale: Scale, gallery: Gallery
) -> list[Shown]:
    largest = float(np.abs(values).max()) or 1.0
    lengths = np.round(100 * np.abs(values[rows]) / largest, 1)
    return [
        Shown(gallery.row(i), run.scores.train_ids[i], *_known(run, i), scale(float(values[i])), float(length))
        for i, length in zip(rows.tolist(), lengths, strict=True)
    ]


def _known(run: RunFolder, row: int) -> tuple[int | None, str]:
    """The label and the prompt of a training image."""
    return _label(run.labels, row), _prompt(run.prompts, row)


def agreement(a: Scores, b: Scores) -> tuple[float, float]:
    """(rank correlation, shared first proponents) of two methods, means over queries; 0 where one side is constant."""
    shared = [len(np.intersect1d(p, q)) for p, q in zip(a.top(AGREE).rows, b.top(AGREE).rows, strict=True)]
    return float(spearman(a.values, b.values).mean()), float(np.mean(shared))


def _label(labels: Int64[np.ndarray, " n"] | None, row: int) -> int | None:
    """The label of a row; −1 stands for none."""
    return None if labels is None or labels[row] < 0 else int(labels[row])


def _prompt(prompts: Sequence[str] | None, row: int) -> str:
    """The prompt of a row; empty where there is none."""
    return "" if prompts is None else prompts[row]


def record(info: Mapping[str, Any]) -> str:
    """A run's whole record as JSON, but for its long lists: figures of every query and of every resampling."""
    truth = {key: value for key, value in (info.get("ground_truth") or {}).items() if key not in LONG}
    if splits := truth.get("splits"):
        truth["splits"] = {name: {key: row[key] for key in row if key not in LONG} for name, row in splits.items()}
    return json.dumps({**info, "ground_truth": truth or None}, indent=1, ensure_ascii=False)
