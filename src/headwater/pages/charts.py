"""The charts of pages: Python computes positions, a template in `templates/charts` draws them as SVG.

Horizontal positions are in percent and vertical ones in pixels: a chart fills its column and its text is
never stretched. Colours are class names, which the page's style sheet gives their values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from markupsafe import Markup

from headwater.pages.gallery import Picture
from headwater.pages.template import svg
from headwater.words import number

BINS, STRIP = 72, 40  # of a histogram, of a strip
TOP, BASE = 8.0, 62.0  # of a histogram's bars, in pixels from the chart's top
FADE = 0.68  # of a strip's colour, from one portion to the next
MOST_NUMBERS = 8  # on an axis
RIVER = 52.0  # width in pixels of all streams together

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Span = tuple[float, float]  # the first and the last value of an axis


@dataclass(frozen=True)
class Scale:
    """A format for scores beside each other: three figures of the largest, in units of a power of ten."""

    exponent: int
    decimals: int
    signed: bool

    def __call__(self, value: float) -> str:
        return number(value / 10.0**self.exponent, self.decimals, "+" if self.signed else "-")

    @property
    def unit(self) -> str:
        """The power of ten in words; empty for 1."""
        return "" if self.exponent == 0 else "10" + str(self.exponent).translate(SUPERSCRIPT)


def scale_of(values: Float32[np.ndarray, " n"], signed: bool) -> Scale:
    """Plain numbers from 0.01 to 9999; beyond, the largest has one figure before the point."""
    largest = float(np.abs(values).max())
    size = math.floor(math.log10(largest)) if largest else 0
    exponent = 0 if -2 <= size <= 3 else size
    return Scale(exponent, max(0, 2 - size + exponent), signed)


class Column(NamedTuple):
    """One bin of a histogram that is not empty: its index and its bar's height in pixels."""

    bin: int
    height: float


class GridLine(NamedTuple):
    """A line across a histogram, and the count that it stands for."""

    y: float
    label: str


class Tick(NamedTuple):
    """A number on an axis."""

    x: float
    text: str


class Portion(NamedTuple):
    """One piece of a strip: where it starts, its width, and how strong its colour is."""

    x: float
    width: float
    opacity: float


class Stream(NamedTuple):
    """A source, the middle of its picture, where its stream ends, and the stream's width; all in pixels."""

    source: Picture
    y: float
    mouth: float
    width: float


def histogram(
    values: Float32[np.ndarray, " n"],
    proponents: Float32[np.ndarray, " k"],
    opponents: Float32[np.ndarray, " j"],
    scale: Scale,
) -> Markup:
    """Counts of scores on a log scale, with a dot per proponent shown and a diamond per opponent shown.

    The log scale keeps single images visible beside thousands; the score axis is never cut.
    """
    low, high = float(values.min()), float(values.max())
    least, greatest = scale(low), scale(high)
    if low == high:
        low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
    exact = values.astype(np.float64)  # in float32, scores close together would share a bin's edges
    counts, _ = np.histogram(exact, bins=BINS, range=(low, high))
    return svg(
        "histogram",
        label=f"Histogram of {len(values):,} scores from {least} to {greatest}",
        grid=_grid(int(counts.max())),
        bins=BINS,
        columns=_columns((BASE - TOP) * np.log1p(counts) / np.log1p(counts.max())),
        top=TOP,
        base=BASE,
        zero=_place(0.0, low, high) if low <= 0 <= high else None,
        proponents=[_place(value, low, high) for value in proponents.tolist()],
        opponents=[_place(value, low, high) for value in opponents.tolist()],
        least=least,
        greatest=greatest,
    )


def interval_bar(
    value: float,
    low: float,
    high: float,
    span: Span,
    kind: str,
    *,
    mark: tuple[float, float, float] | None = None,
) -> Markup:
    """One bar from 0 to `value` with its interval as a whisker, on an axis that runs over `span`.

    With a `mark` (value, low, high), a line crosses it at that value, in a band.
    """
    zero, end = _place(0.0, *span), _place(value, *span)
    line, band = None, Portion(0.0, 0.0, 1.0)
    if mark is not None:
        line, first, last = (_place(position, *span) for position in mark)
        band = Portion(first, round(last - first, 2), 1.0)
    return svg(
        "interval",
        kind=kind,
        start=min(zero, end),
        width=round(abs(end - zero), 2),
        zero=zero,
        ends=[_place(low, *span), _place(high, *span)] if high > low else [],
        line=line,
        band=band,
    )


def portions(shares: Sequence[float]) -> Markup:
    """A strip of full width, cut into shares of 1 from the left, the first the strongest colour."""
    starts = np.cumsum([0.0, *shares]).tolist()
    pieces = [
        Portion(round(100 * start, 2), round(100 * share, 2), round(0.95 * FADE**i, 2))
        for i, (start, share) in enumerate(zip(starts, shares, strict=False))
    ]
    return svg("portions", portions=pieces)


def box(values: Sequence[float], span: Span, kind: str) -> Markup:
    """A box over the quartiles with a line at the median, and a dot for each value, along `span`."""
    low, median, high = (_place(value, *span) for value in np.percentile(values, [25, 50, 75]).tolist())
    return svg(
        "box",
        kind=kind,
        low=low,
        width=round(high - low, 2),
        median=median,
        zero=_place(0.0, *span) if span[0] <= 0 else None,
        dots=[_place(value, *span) for value in values],
    )


def strip(values: Sequence[float], span: Span) -> Markup:
    """The distribution of values along an axis that runs over `span`, and a mark at their median."""
    counts, _ = np.histogram(values, bins=STRIP, range=span)
    median = _place(float(np.median(values)), *span)
    columns = _columns(14 * counts / counts.max())
    return svg("strip", bins=STRIP, columns=columns, zero=_place(0.0, *span), median=median)


def axis(span: Span) -> Markup:
    """Round numbers along an axis that runs over `span`, eight at most."""
    low, high = span
    steps = ((power, size) for power in range(-9, 10) for size in (1, 2, 5))
    power, size = next((p, s) for p, s in steps if (high - low) / (s * 10.0**p) <= MOST_NUMBERS)
    step = size * 10.0**power
    numbers = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    decimals = max(0, -power)
    words = [number(value, decimals if value else 0) for value in numbers]
    ticks = [Tick(_place(value, low, high), word) for value, word in zip(numbers, words, strict=True)]
    return svg("axis", ticks=ticks)


def streams(sources: Sequence[tuple[Picture, float]], goal: Picture) -> Markup:
    """Pictures whose streams run into one; a stream is as wide as its picture's weight."""
    step, side = 58, 50  # pixels: from source to source, a source
    target, left = 148, 272  # pixels: the goal, its left edge
    column = step * (len(sources) - 1) + side
    height = max(column, target)
    pictures, weights = [picture for picture, _ in sources], np.array([weight for _, weight in sources])
    widths = RIVER * weights / weights.sum()
    mouths = height / 2 - RIVER / 2 + np.concatenate([[0], np.cumsum(widths)[:-1]]) + widths / 2
    first = (height - column) / 2 + side / 2
    rows = [
        Stream(source, first + i * step, round(float(mouths[i]), 1), round(float(widths[i]), 2))
        for i, source in enumerate(pictures)
    ]
    return svg("streams", streams=rows, goal=goal, side=side, target=target, left=left, height=height)


def _place(value: float, low: float, high: float) -> float:
    """A value's place on an axis, in percent."""
    return round(100 * (value - low) / (high - low), 2)


def _columns(heights: np.ndarray) -> list[Column]:
    return [Column(i, round(height, 1)) for i, height in enumerate(heights.tolist()) if height]


def _grid(most: int) -> list[GridLine]:
    """A line at each power of ten, so that the log scale can be read."""
    counts = [10**power for power in range(int(math.log10(most)) + 1)]
    unit = (BASE - TOP) / math.log1p(most)
    return [GridLine(round(BASE - unit * math.log1p(count), 1), f"{count:,}") for count in counts]
