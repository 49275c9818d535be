"""Figures as SVG: curves with intervals, their names beside them, for light and dark pages; the same bytes
each time."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headwater.disk.files import written
from papers._shared.keeping import SPLITS, Row

PAPER, INK, QUIET, LINE = "#fcfcfb", "#1a2024", "#586269", "#dde1e2"  # those of the report
HUES = {"trak": "#ad4f06", "d-trak": "#1c669f", "k-fac": "#7d5fa8", "ek-fac": "#2f7d4f"}
DARK = {
    PAPER: "#13181b",
    INK: "#e5e9eb",
    QUIET: "#9ba7ae",
    LINE: "#2b3338",
    "#ad4f06": "#f1a660",
    "#1c669f": "#74b8ec",
    "#7d5fa8": "#bda3e6",
    "#2f7d4f": "#7ccb9b",
}
DASHES = {"10": (0, (4, 2)), "100": "solid", "1000": (0, (1, 1.2))}  # of a number of timesteps
REFERENCES = {"random": "random", "ceiling": "another seed"}
FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
APART = 0.062  # between two names, in heights of a panel

STYLE = {
    "svg.hashsalt": "headwater",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}


class Stretch(NamedTuple):
    """A row of panels: these rows over `field`, a swept field or `x`, with the words for its axis."""

    rows: Sequence[Row]
    field: str
    words: str


def curves(
    *stretches: Stretch, log: int = 0, splits: Sequence[str] = (), ticks: Mapping[float, str] | None = None
) -> Figure:
    """LDS as curves: a panel for each split, a row of panels for each stretch.

    `log`: the base of a logarithmic axis, 0 for a linear one.
    """
    names = list(splits or dict.fromkeys(row["split"] for row in stretches[0].rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.7 * len(names), 3.2 * len(stretches)), layout="constrained")
        grid = figure.subplots(len(stretches), len(names), sharey=True, squeeze=False)
        for axes, split in zip(grid[0], names, strict=True):
            axes.set_title(SPLITS.get(split, split).capitalize())
        for (rows, field, words), panels in zip(stretches, grid, strict=True):
            for axes, split in zip(panels, names, strict=True):
                panel(axes, [row for row in rows if row["split"] == split], field)
                axes.set_xlabel(words)
                if log:
                    axes.set_xscale("log", base=log)
                if ticks:
                    axes.set_xticks(list(ticks), list(ticks.values()))
            panels[0].set_ylabel("LDS (%)")
        return figure


def panel(axes: Axes, rows: Sequence[Row], field: str) -> None:
    """Every method and number of timesteps as a curve with its 95 % interval; references as bands across."""
    names = []
    for row in rows:
        if row["method"] in REFERENCES:
            low, value, high = (100 * row[name] for name in ("low", "lds", "high"))
            axes.axhspan(low, high, color=QUIET, alpha=0.13, lw=0)
            axes.axhline(value, color=QUIET, lw=0.8, ls=(0, (1, 1.5)))
            names.append((value, REFERENCES[row["method"]], QUIET))
    swept = [row for row in rows if field in ("x", *row["swept"]) and row["method"] not in REFERENCES]
    for name, column in dict.fromkeys((row["row"], row["column"]) for row in swept):
        curve = [row for row in swept if (row["row"], row["column"]) == (name, column)]
        curve.sort(key=lambda row: _x(row, field))
        hue, xs = HUES.get(curve[0]["method"], INK), [_x(row, field) for row in curve]
        low, value, high = ([100 * row[key] for row in curve] for key in ("low", "lds", "high"))
        axes.fill_between(xs, low, high, color=hue, alpha=0.14, lw=0)
        axes.plot(xs, value, color=hue, ls=DASHES.get(column, "solid"), marker="o" if len(xs) < 20 else "")
        names.append((value[-1], f"{name.strip('`')} ({column})" if column else name.strip("`"), hue))
    beside(axes, names)


def beside(axes: Axes, names: Sequence[tuple[float, str, str]]) -> None:
    """Names to the right of a panel, each as close to its own height as the others allow."""
    low, high = axes.get_ylim()
    heights = apart([(height - low) / (high - low) for height, _, _ in sorted(names)], APART)
    for y, (_, name, hue) in zip(heights, sorted(names), strict=True):
        axes.text(1.02, y, name, color=hue, transform=axes.transAxes, va="center", fontsize=8.5)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Ascending heights moved as little as possible (least squares) until neighbours are `least` apart."""
    # Of each run of names that touch: its mean, less the gaps between them, and its length.
    pools: list[tuple[float, int]] = []
    for place, height in enumerate(heights):
        mean, count = height - place * least, 1
        while pools and pools[-1][0] > mean:
            before, size = pools.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [mean + place * least for place, mean in enumerate(flat)]


def heat(
    rows: Sequence[Sequence[tuple[str, Float[np.ndarray, "a b"]]]],
    ticks: Sequence[tuple[Sequence[str], Sequence[str]]],
    axes_words: tuple[str, str],
) -> Figure:
    """Matrices of correlations in percent, one per panel, with the number in each cell; one colour scale.

    `ticks`: for each row of panels, those across and those upwards.
    """
    largest = max(float(np.abs(matrix).max()) for row in rows for _, matrix in row)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(4.4 * len(rows[0]), 4.3 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for panels, row, (across, upwards) in zip(grid, rows, ticks, strict=True):
            for axes, (title, matrix) in zip(panels, row, strict=True):
                axes.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest)
                axes.set_title(title)
                axes.set_xticks(range(matrix.shape[1]), across, rotation=60)
                axes.set_yticks(range(matrix.shape[0]), upwards)
                for (a, b), value in np.ndenumerate(matrix):
                    ink = PAPER if abs(value) > 0.6 * largest else "#1a2025"
                    axes.text(b, a, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
                axes.set_xlabel(axes_words[0])
            panels[0].set_ylabel(axes_words[1])
        return figure


def scatter(
    panels: Sequence[tuple[str, Float[np.ndarray, " s"], Float[np.ndarray, " s"]]], words: tuple[str, str]
) -> Figure:
    """Points, a panel for each title, with the line on which both are equal and the axes at 0."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(panels), 3.8), layout="constrained")
        for axes, (title, x, y) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            axes.scatter(x, y, s=3, color=HUES["d-trak"], alpha=0.25, lw=0, rasterized=True)
            axes.axline((0, 0), slope=1, color=QUIET, lw=0.8, ls=(0, (4, 2)))
            axes.axhline(0, color=QUIET, lw=0.6)
            axes.axvline(0, color=QUIET, lw=0.6)
            axes.set_title(title)
            axes.set_xlabel(words[0])
        figure.axes[0].set_ylabel(words[1])
        return figure


def weights(named: Mapping[str, Float[np.ndarray, " t"]], words: tuple[str, str]) -> Figure:
    """Curves of positive numbers over the timesteps, on a logarithmic axis, with their names beside them."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        for (name, values), hue in zip(named.items(), HUES.values(), strict=False):
            axes.plot(values, color=hue)
            axes.text(1.02, values[-1], name, color=hue, transform=axes.get_yaxis_transform(), va="center")
        axes.set_yscale("log")
        axes.set_xlabel(words[0])
        axes.set_ylabel(words[1])
        return figure


class Picture(NamedTuple):
    """An image and the words below it."""

    image: UInt8[np.ndarray, "h w c"]
    words: str = ""
    hue: str = QUIET


def album(rows: Sequence[tuple[str, Sequence[Sequence[Picture]]]], heads: Sequence[str]) -> Figure:
    """Rows of named pictures, in separate groups with a head over every group. Sizes are in inches."""
    cell, down, margin, top = 0.62, 0.78, 1.35, 0.35
    starts = [margin]
    for i in range(len(heads)):
        starts.append(starts[-1] + max(len(groups[i]) for _, groups in rows) * cell + 0.3)
    width, height = starts[-1], top + len(rows) * down
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        for start, head in zip(starts, heads, strict=False):
            figure.text(start / width, 1 - 0.18 / height, head, color=INK, fontweight="bold", va="center")
        for place, (name, groups) in enumerate(rows):
            y = height - top - (place + 1) * down + 0.16
            figure.text(0.1 / width, (y + cell / 2) / height, name, color=QUIET, va="center", fontsize=8)
            for start, group in zip(starts, groups, strict=False):
                for i, picture in enumerate(group):
                    _hang(
                        picture,
                        figure.add_axes(
                            ((start + i * cell) / width, y / height, 0.56 / width, 0.56 / height)
                        ),
                    )
        return figure


def _hang(picture: Picture, axes: Axes) -> None:
    """One picture, its pixels as they are, and its words."""
    grey = picture.image.shape[2] == 1
    axes.imshow(
        picture.image[:, :, 0] if grey else picture.image, cmap="gray", vmin=0, vmax=255, interpolation="none"
    )
    axes.set_axis_off()
    where = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    axes.text(0.5, -0.06, picture.words, color=picture.hue, fontsize=6.5, **where)


def save(figure: Figure, path: Path, title: str) -> None:
    """Write the SVG: real text, no date, and the colours of dark pages beside those of light ones."""
    svg = StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(
            svg, format="svg", facecolor=PAPER, metadata={"Date": None, "Creator": None, "Title": title}
        )
    rule = '[style*="{0}: {1}"]{{{0}:{2}!important}}'.format
    dark = "".join(
        rule(part, light, dark_color) for light, dark_color in DARK.items() for part in ("fill", "stroke")
    )
    style = f"<style>image{{image-rendering:pixelated}}@media (prefers-color-scheme: dark){{{dark}}}</style>"
    before, defs, after = svg.getvalue().replace("'DejaVu Sans'", FONTS).partition(" <defs>")
    with written(path, "w") as file:
        file.write(f"{before} {style}\n{defs}{after}")


def _x(row: Row, field: str) -> float:
    return row["x"] if field == "x" else row["chosen"][0][field]
