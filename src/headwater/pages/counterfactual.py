"""A counterfactual folder → one HTML page, and its table in words: how the pictures changed. Numpy only."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from headwater.disk.files import write_text
from headwater.disk.npz import arrays
from headwater.evaluate.removals import RemovalFigures, read_figures
from headwater.pages import charts
from headwater.pages.effects import Effect, RemovalRow, effect, effects
from headwater.pages.gallery import Gallery, Picture
from headwater.pages.template import render
from headwater.words import number

SMALL = 64  # pixels of a side, up to which a picture is drawn with sharp edges


class Row(NamedTuple):
    """A method's removal in a table, and its box."""

    removal: RemovalRow
    box: Markup


class EffectTable(NamedTuple):
    """One effect: its rows, and the axis over their boxes."""

    effect: Effect
    rows: list[Row]
    axis: Markup


class Copy(NamedTuple):
    """A picture made again without some training images, and its distance from the picture before."""

    method: str
    removed: int
    picture: Picture
    distance: str


class Again(NamedTuple):
    """A query: the picture before, and after each removal."""

    id: str
    before: Picture
    copies: list[Copy]


def page(folder: Path) -> Path:
    """Write `report.html` into the folder; returns its path."""
    path = folder / "report.html"
    write_text(path, _html(folder))
    return path


def _html(folder: Path) -> str:
    figures = read_figures(folder)
    distances = effect(figures, "l2").removals
    names = [f"{removal.method}/{removal.removed}" for removal in distances]
    images = arrays(folder / "pictures.npz", ["before", *names])
    gallery = Gallery({})
    return render(
        "removal.html",
        record=figures,
        rows=[_again(i, query, distances, images, gallery) for i, query in enumerate(figures.queries)],
        tables=[_table(measured) for measured in effects(figures)],
        verdicts=verdicts(figures),
        pictures=gallery.embedded.values(),
        small=max(images["before"].shape[1:3]) <= SMALL,
        json=json.dumps(figures.as_json() | {"methods": list(figures.methods)}, indent=1, ensure_ascii=False),
    )


def as_text(figures: RemovalFigures) -> str:
    """The figures as tables for a terminal: medians, quartiles, and each method against random removal."""
    text = []
    head = f"{'method':18}{'removed':>8}{'median':>10}{'quartiles':>24}{'above random':>50}{'p':>8}"
    for measured in effects(figures):
        text += ["", f"{measured.title}: {measured.explanation}", head]
        for row in measured.removals:
            against = f"{row.against} ({row.above})" if row.against else "–"
            spread = f"{row.removed:8d}{row.median:>10}{f'{row.low} … {row.high}':>24}"
            text.append(f"{row.method:18}{spread}{against:>50}{row.p:>8}")
    return "\n".join(text[1:])


def verdicts(figures: RemovalFigures) -> list[str]:
    """The methods whose removals clearly move the picture more: paired interval above 0, and p below 0.05."""
    return [_verdict(figures, count) for count in figures.removed]


def _verdict(figures: RemovalFigures, count: int) -> str:
    clear: dict[bool, list[str]] = {True: [], False: []}
    for name, method in figures.methods.items():
        if (paired := method.removed[count]["l2"].against_random) is not None:
            clear[paired.difference.low > 0 and paired.p < 0.05].append(name)
    size, better, unclear = f"{count:,}", clear[True], clear[False]
    if not better:
        return f"No method's {size} images change the pictures clearly more than {size} random ones do."
    but = f"; for {_list(unclear)} this is not clear" if unclear else ""
    verb = "holds" if len(better) == 1 else "hold"
    return (
        f"Without the {size} images that {_list(better)} {verb} to matter most, the pictures change more "
        f"than without {size} random ones{but}."
    )


def _table(measured: Effect) -> EffectTable:
    span, removals = measured.span, measured.removals
    rows = [Row(removal, charts.box(removal.per_picture, span, removal.kind)) for removal in removals]
    return EffectTable(measured, rows, charts.axis(span))


def _again(
    i: int, query: str, distances: Sequence[RemovalRow], images: Mapping[str, np.ndarray], gallery: Gallery
) -> Again:
    copies = []
    for removal in distances:
        picture = gallery.add(images[f"{removal.method}/{removal.removed}"][i])
        copies.append(Copy(removal.method, removal.removed, picture, number(removal.per_picture[i])))
    return Again(query, gallery.add(images["before"][i]), copies)


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
