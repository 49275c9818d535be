"""A counterfactual folder → one HTML page, and its table in words: what happened to the pictures. Numpy only."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from headwater.disk.files import written
from headwater.disk.npz import arrays
from headwater.errors import DataError
from headwater.pages import charts
from headwater.pages.charts import Gallery, Picture
from headwater.words import number

EFFECTS = {
    "l2": ("Distance", "ℓ₂ between the picture before and after, pixels in [−1, 1]. Larger: the picture changed more."),
    "cosine": ("Likeness", "cosine of the pictures before and after under {embedder}. Smaller: the picture changed more."),
    "simple": ("Training loss", "how much worse the retrained model does on the picture. Larger: the images mattered more."),
}
OTHER = ("Change of {name}", "how much the measurement rose. Larger: the images mattered more.")


class Line(NamedTuple):
    """One method and one number of images removed: its box, and how it stands against random removal."""

    method: str
    kind: str
    removed: int
    median: str
    quartiles: str
    box: Markup
    against: str
    p: str
    more: str


class Effect(NamedTuple):
    """One table of the page."""

    title: str
    what: str
    lines: list[Line]
    axis: Markup


class Shown(NamedTuple):
    """One picture made again."""

    method: str
    removed: int
    picture: Picture
    distance: str


def page(folder: Path) -> Path:
    """Write `report.html` into the folder; returns its path."""
    found = read(folder)
    have = arrays(folder / "pictures.npz", ["before", *_keys(found)])
    gallery = Gallery({})
    rows = [_row(found, have, gallery, i) for i in range(len(found["queries"]))]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headwater.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["count"] = "{:,}".format
    made = environment.get_template("removal.html").render(
        found=found,
        rows=rows,
        effects=[_effect(found, name) for name in effects(found)],
        verdicts=verdicts(found),
        pictures=gallery.found.values(),
        small=max(have["before"].shape[1:3]) <= 64,
        record=json.dumps({**found, "methods": list(found["methods"])}, indent=1, ensure_ascii=False),
    )
    path = folder / "report.html"
    with written(path) as file:
        file.write(made.lstrip().encode(errors="replace"))
    return path


def read(folder: Path) -> dict[str, Any]:
    """`counterfactual.json`."""
    path = folder / "counterfactual.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"Could not read {path}: {error}. Run `headwater counterfactual` with this --out again.") from error


def effects(found: Mapping[str, Any]) -> list[str]:
    """The names of what was measured, in the order of the page."""
    first = next(iter(found["methods"].values()))["removed"][str(found["removed"][0])]
    return sorted(first, key=lambda name: list(EFFECTS).index(name) if name in EFFECTS else len(EFFECTS))


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same as a table of words: medians with quartiles, and each method against random removal, paired."""
    rows = []
    for name in effects(found):
        (title, what), decimals = _words(found, name), _decimals(found, name)
        rows += ["", f"{title}: {what}", f"{'method':18}{'removed':>8}{'median':>10}{'quartiles':>24}{'above random':>50}{'p':>8}"]
        for method, count, values in _each(found, name):
            low, median, high = (number(values["quartiles"][q], decimals) for q in ("low", "median", "high"))
            against, p, more = _against(values, decimals, len(found["queries"]))
            rows.append(
                f"{method:18}{count:8d}{median:>10}{f'{low} … {high}':>24}{f'{against} ({more})' if against else '–':>50}{p:>8}"
            )
    return rows[1:]


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """In words, which methods' removals move the picture more than random ones: paired interval above 0, and p below 0.05."""
    said = []
    for count in map(str, found["removed"]):
        moved = {name: each["removed"][count]["l2"].get("against_random") for name, each in found["methods"].items()}
        sure = {name: each["low"] > 0 and each["p"] < 0.05 for name, each in moved.items() if each}
        better, unclear = ([name for name, each in sure.items() if each == side] for side in (True, False))
        size, holds = f"{int(count):,}", "holds" if len(better) == 1 else "hold"
        more = f"Without the {size} images that {_list(better)} {holds} to matter most, the pictures change more than "
        more += f"without {size} random ones"
        if better:
            said.append(f"{more}{f'; for {_list(unclear)} this is not clear' if unclear else ''}.")
        else:
            said.append(f"No method's {size} images change the pictures clearly more than {size} random ones do.")
    return said


def _effect(found: Mapping[str, Any], name: str) -> Effect:
    (title, what), decimals = _words(found, name), _decimals(found, name)
    every = np.concatenate([values["each"] for _, _, values in _each(found, name)])
    low, high = min(0.0, float(every.min())), float(every.max())
    if name == "cosine":
        low = float(every.min())
    span = (low, high + 0.03 * (high - low or 1.0))
    rows = []
    for method, count, values in _each(found, name):
        quartiles = (number(values["quartiles"][q], decimals) for q in ("low", "high"))
        median = number(values["quartiles"]["median"], decimals)
        kind = "random" if "against_random" not in values else "method"
        box = charts.box(values["each"], span, kind)
        rows.append(
            Line(method, kind, count, median, " … ".join(quartiles), box, *_against(values, decimals, len(found["queries"])))
        )
    return Effect(title, what, rows, charts.axis(span))


def _each(found: Mapping[str, Any], name: str) -> list[tuple[str, int, Mapping[str, Any]]]:
    return [
        (method, count, each["removed"][str(count)][name])
        for count in found["removed"]
        for method, each in found["methods"].items()
    ]


def _against(values: Mapping[str, Any], decimals: int, queries: int) -> tuple[str, str, str]:
    """The paired mean difference from random removal with its interval, its p-value, and on how many queries it is above."""
    paired = values.get("against_random")
    if paired is None:
        return "", "", ""
    mean, low, high = (number(paired[part], decimals, "+") for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]", f"{paired['p']:.2g}" if paired["p"] >= 0.001 else "<0.001", f"{paired['above']} of {queries}"


def _words(found: Mapping[str, Any], name: str) -> tuple[str, str]:
    title, what = EFFECTS.get(name, OTHER)
    return title.format(name=name), what.format(embedder=found["embedder"])


def _decimals(found: Mapping[str, Any], name: str) -> int:
    """So many that the largest median has three figures."""
    largest = max(abs(values["quartiles"]["median"]) for _, _, values in _each(found, name))
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 2


def _row(found: Mapping[str, Any], have: Mapping[str, np.ndarray], gallery: Gallery, i: int) -> tuple[str, Picture, list[Shown]]:
    """A query: its id, the picture before, and after each removal."""
    after = [
        Shown(method, count, gallery.add(have[f"{method}/{count}"][i]), number(values["each"][i]))
        for method, count, values in _each(found, "l2")
    ]
    return found["queries"][i], gallery.add(have["before"][i]), after


def _keys(found: Mapping[str, Any]) -> list[str]:
    return [f"{method}/{count}" for method, count, _ in _each(found, "l2")]


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
