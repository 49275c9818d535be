"""What a page draws, as inline SVG: pictures, a histogram of scores, a bar with its interval, streams. And how it writes numbers.

Across, charts are in percent and down, in pixels: they fill their column and their text is never stretched. Colours are
class names, given their values by the page.
"""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, UInt8
from markupsafe import Markup, escape
from PIL import Image

from headwater.words import number

BINS, STRIP = 72, 40
BARS, BASE, MARKS, HEIGHT = 8.0, 62.0, 72.0, 92  # pixels from the top: tallest bar, axis, row of marks, whole chart

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Picture:
    """An embedded picture: the name it is shown by, its box, and its PNG in base64."""

    name: str
    width: int
    height: int
    png: str

    @property
    def box(self) -> str:
        return f"0 0 {self.width} {self.height}"


@dataclass(frozen=True, eq=False)
class Gallery:
    """Every distinct picture of a page, embedded once and shown by name; `train` are the training pictures at hand, by row."""

    train: Mapping[int, UInt8[np.ndarray, "h w c"]]
    found: dict[bytes, Picture] = field(default_factory=dict)

    def add(self, image: UInt8[np.ndarray, "h w c"]) -> Picture:
        """The embedded form of an image; equal images have one."""
        key = str(image.shape).encode() + image.tobytes()
        if key not in self.found:
            file = io.BytesIO()
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG", optimize=True)
            height, width = image.shape[:2]
            self.found[key] = Picture(f"p{len(self.found)}", width, height, base64.b64encode(file.getvalue()).decode())
        return self.found[key]

    def row(self, row: int) -> Picture | None:
        """The picture of a training row, if the run folder keeps it."""
        return self.add(self.train[row]) if row in self.train else None


@dataclass(frozen=True)
class Scale:
    """How scores are written beside each other: three figures of the largest, in units of a power of ten."""

    exponent: int
    decimals: int
    signed: bool

    def __call__(self, value: float) -> str:
        return number(value / 10.0**self.exponent, self.decimals, "+" if self.signed else "-")

    @property
    def unit(self) -> str:
        return "" if self.exponent == 0 else "10" + str(self.exponent).translate(SUPERSCRIPT)


def scale_of(values: Float32[np.ndarray, " n"], signed: bool) -> Scale:
    """Plain numbers from 0.01 to 9999; beyond, the largest has one figure before the point."""
    largest = float(np.abs(values).max())
    size = math.floor(math.log10(largest)) if largest else 0
    exponent = 0 if -2 <= size <= 3 else size
    return Scale(exponent, max(0, 2 - size + exponent), signed)


def prose(text: object) -> Markup:
    """Text in which `backticks` become code, and x_t or Σ_{i∈A} get their subscripts."""

    def drawn(found: re.Match[str]) -> str:
        return f"<code>{found[1]}</code>" if found[1] else f"<sub>{found[2] or found[3]}</sub>"

    return Markup(re.sub(r"`([^`]+)`|_(?:\{([^}]+)\}|(\w)(?!\w))", drawn, str(escape(str(text)))))


def histogram(
    values: Float32[np.ndarray, " n"], proponents: Float32[np.ndarray, " k"], opponents: Float32[np.ndarray, " j"], scale: Scale
) -> Markup:
    """Counts of scores on a log scale, with a dot per shown proponent and a diamond per shown opponent.

    The log scale keeps single images visible beside thousands; the score axis is never cut.
    """
    low, high = float(values.min()), float(values.max())
    least, greatest = scale(low), scale(high)
    if low == high:
        low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
    counts, _ = np.histogram(values.astype(np.float64), bins=BINS, range=(low, high))  # in float32, near scores share a bin's edges
    top = float(np.log1p(counts.max()))
    marks = [_mark("dot", _place(v, low, high)) for v in proponents.tolist()]
    marks += [_mark("diamond", _place(v, low, high)) for v in opponents.tolist()]
    return Markup("").join(
        [
            Markup('<svg class="plot" height="{}" width="100%" role="img" aria-label="{}">').format(
                HEIGHT, f"Histogram of {len(values):,} scores from {least} to {greatest}"
            ),
            *_grid(int(counts.max()), top),
            _bars(counts, top),
            Markup('<line class="axis" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(BASE),
            _zero(low, high),
            *marks,
            Markup('<text x="0" y="{}">{}</text><text x="100%" y="{}" class="end">{}</text></svg>').format(
                HEIGHT - 2, least, HEIGHT - 2, greatest
            ),
        ]
    )


def interval(
    value: float, low: float, high: float, span: tuple[float, float], kind: str, *, mark: tuple[float, float, float] | None = None
) -> Markup:
    """One bar from 0 to `value` with its interval as a whisker, on an axis that runs over `span`.

    With a `mark` (value, low, high), a line across it at that value, in a band.
    """
    zero, end, left, right = (_place(v, *span) for v in (0.0, value, low, high))
    whisker = Markup('<line class="whisker" x1="{0}%" x2="{1}%" y1="11" y2="11"/>').format(left, right) + Markup("").join(
        Markup('<line class="whisker" x1="{0}%" x2="{0}%" y1="7" y2="15"/>').format(side) for side in (left, right)
    )
    line = ""
    if mark is not None:
        at, begins, ends = (_place(v, *span) for v in mark)
        line = Markup('<rect class="band" x="{}%" width="{}%" height="22"/>').format(begins, round(ends - begins, 2))
        line += Markup('<line class="mark" x1="{0}%" x2="{0}%" y1="0" y2="22"/>').format(at)
    return Markup(
        '<svg class="bar {}" height="22" width="100%" aria-hidden="true"><rect x="{}%" width="{}%" y="4" height="14"/>'
        '<line class="axis" x1="{}%" x2="{}%" y1="0" y2="22"/>{}{}</svg>'
    ).format(kind, min(zero, end), round(abs(end - zero), 2), zero, zero, line, whisker if high > low else "")


def portions(shares: Sequence[float]) -> Markup:
    """A strip of full width, cut into shares of 1 from the left, the first the strongest colour; what they leave stays empty."""
    starts = np.cumsum([0.0, *shares])
    rects = [
        Markup('<rect x="{}%" width="{}%" height="10" fill-opacity="{}"/>').format(
            round(100 * start, 2), round(100 * share, 2), round(0.95 * 0.68**i, 2)
        )
        for i, (start, share) in enumerate(zip(starts.tolist(), shares, strict=False))
    ]
    return Markup(
        '<svg class="bar portions" height="10" width="100%" aria-hidden="true">'
        '<rect class="whole" width="100%" height="10"/>{}</svg>'
    ).format(Markup("").join(rects))


def box(values: Sequence[float], span: tuple[float, float], kind: str) -> Markup:
    """A box over the quartiles with a line at the median, and a dot for every value, on an axis that runs over `span`."""
    low, middle, high = (_place(value, *span) for value in np.percentile(values, [25, 50, 75]).tolist())
    dots = Markup("").join(Markup('<circle cx="{}%" cy="13" r="2.6"/>').format(_place(value, *span)) for value in values)
    zero = Markup('<line class="axis" x1="{0}%" x2="{0}%" y1="0" y2="26"/>').format(_place(0.0, *span)) if span[0] <= 0 else ""
    return Markup(
        '<svg class="bar box {}" height="26" width="100%" aria-hidden="true"><rect x="{}%" width="{}%" y="4" height="18"/>{}{}'
        '<line class="median" x1="{}%" x2="{}%" y1="2" y2="24"/></svg>'
    ).format(kind, low, round(high - low, 2), zero, dots, middle, middle)


def strip(values: Sequence[float], span: tuple[float, float]) -> Markup:
    """How many of the values lie where on an axis that runs over `span`, and a mark at their median."""
    counts, _ = np.histogram(values, bins=STRIP, range=span)
    path = "".join(f"M{i} 15v{-h:.1f}h1v{h:.1f}" for i, h in enumerate(14 * counts / counts.max()) if h)
    median, zero = (_place(value, *span) for value in (float(np.median(values)), 0.0))
    return Markup(
        '<svg class="bar strip" height="16" width="100%" aria-hidden="true">'
        '<svg viewBox="0 0 {0} 16" width="100%" height="16" preserveAspectRatio="none"><path d="{1}"/></svg>'
        '<line class="axis" x1="{2}%" x2="{2}%" y1="0" y2="16"/><line class="median" x1="{3}%" x2="{3}%" y1="0" y2="15"/></svg>'
    ).format(STRIP, path, zero, median)


def axis(span: tuple[float, float]) -> Markup:
    """The round numbers of an axis that runs over `span`, eight at most."""
    low, high = span
    power, size = next((p, s) for p in range(-9, 10) for s in (1, 2, 5) if (high - low) / (s * 10.0**p) <= 8)
    step = size * 10.0**power
    numbers = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    marks = [
        Markup('<text x="{0}%" y="10">{1}</text><line class="axis" x1="{0}%" x2="{0}%" y1="14" y2="18"/>').format(
            _place(value, low, high), number(value, 0 if value == 0 else max(0, -power))
        )
        for value in numbers
    ]
    return Markup('<svg class="bar numbers" height="18" width="100%" aria-hidden="true">{}</svg>').format(Markup("").join(marks))


def streams(sources: Sequence[tuple[Picture, float]], goal: Picture) -> Markup:
    """Pictures whose streams run into one; a stream is as wide as its picture's weight."""
    step, side, target, left, sea = 58, 50, 148, 272, 52.0  # pixels: between sources, source, goal, goal's left edge, river's width
    column = step * (len(sources) - 1) + side
    height = max(column, target)
    weights = np.array([weight for _, weight in sources])
    widths = sea * weights / weights.sum()
    mouth = height / 2 - sea / 2 + np.concatenate([[0], np.cumsum(widths)[:-1]]) + widths / 2
    drawn = []
    for i, ((source, _), width) in enumerate(zip(sources, widths, strict=True)):
        y = (height - column) / 2 + i * step + side / 2
        path = f"M{side} {y:.1f}C{side + 110} {y:.1f} {left - 130} {mouth[i]:.1f} {left} {mouth[i]:.1f}"
        drawn.append(Markup('<path class="stream" d="{}" stroke-width="{}"/>').format(path, round(float(width), 2)))
        drawn.append(_picture(source, 0, y - side / 2, side))
    drawn.append(_picture(goal, left, height / 2 - target / 2, target))
    return Markup('<svg class="streams" viewBox="-1 -1 {} {}" aria-hidden="true">{}</svg>').format(
        left + target + 2, height + 2, Markup("").join(drawn)
    )


def _picture(picture: Picture, x: float, y: float, side: float) -> Markup:
    return Markup(
        '<svg x="{0}" y="{1}" width="{2}" height="{2}" viewBox="{3}"><use href="#{4}"/></svg>'
        '<rect class="edge" x="{0}" y="{1}" width="{2}" height="{2}"/>'
    ).format(x, y, side, picture.box, picture.name)


def _place(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 2)


def _bars(counts: np.ndarray, top: float) -> Markup:
    """All bars as one path, stretched across: a bin is one unit wide."""
    heights = (BASE - BARS) * np.log1p(counts) / top
    path = "".join(f"M{i} {BASE}v{-h:.1f}h.86v{h:.1f}" for i, h in enumerate(heights) if h)
    return Markup(
        '<svg viewBox="0 0 {0} {1}" width="100%" height="{1}" preserveAspectRatio="none"><path class="bars" d="{2}"/></svg>'
    ).format(BINS, HEIGHT, path)


def _grid(most: int, top: float) -> list[Markup]:
    """A line at each power of ten, so that the log scale can be read."""
    lines = []
    for power in range(int(math.log10(most)) + 1):
        y = round(BASE - (BASE - BARS) * math.log1p(10**power) / top, 1)
        lines.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(y))
        lines.append(Markup('<text class="count" x="100%" dx="6" y="{}">{}</text>').format(y + 3.5, f"{10**power:,}"))
    return lines


def _zero(low: float, high: float) -> Markup:
    """A line at score 0 where the axis has it; its label only where the labels of the ends leave room."""
    if not low <= 0 <= high:
        return Markup("")
    x = _place(0.0, low, high)
    label = Markup('<text class="middle" x="{}%" y="{}">0</text>').format(x, HEIGHT - 2) if 15 < x < 85 else ""
    return Markup('<line class="zero" x1="{0}%" x2="{0}%" y1="{1}" y2="{2}"/>{3}').format(x, BARS - 4, MARKS + 8, label)


def _mark(kind: str, x: float) -> Markup:
    if kind == "dot":
        return Markup('<circle class="pro" cx="{}%" cy="{}" r="3.4"/>').format(x, MARKS)
    return Markup('<svg class="over" x="{}%" y="{}"><path class="opp" d="M0-4.4L4.4 0 0 4.4-4.4 0z"/></svg>').format(x, MARKS)
