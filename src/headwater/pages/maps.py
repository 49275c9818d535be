"""Where in a picture which training image counts: a picture and the same one put together from training images, part by part."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64
from markupsafe import Markup
from PIL import Image

from headwater.pages.charts import Gallery, Picture
from headwater.patches.regions import Regions
from headwater.patches.tiles import edges, tiled
from headwater.run import RunFolder
from headwater.words import percent

LETTERS = "ABCDEF"  # training images that are listed
BEHIND = 3  # training images behind a part
ROUNDING = 1e-5  # of a share, which two ways to the same sum may differ by
BLEED = 1 / 200  # of a picture, by which a piece reaches under the next: else the ground shines through between them
NOBODY = -1  # who leads in a part of which that is not known


class Patch(NamedTuple):
    """A training image with the patch that explains a part framed in it, and how much of the part the image explains."""

    drawn: Markup
    id: str
    share: str


class Part(NamedTuple):
    """The patches behind a part of the picture; where the first of them was compared, as CSS; whether no training image that is not
    drawn can explain more of the part."""

    behind: list[Patch]
    compared: str
    sure: bool


class Box(NamedTuple):
    """A rectangle of whole pixels, within its picture."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def within(cls, width: int, height: int, left: int, top: int, size: int) -> "Box":
        """What of a square lies in a picture."""
        x, y = max(0, left), max(0, top)
        return cls(x, y, min(width, left + size) - x, min(height, top + size) - y)


class Source(NamedTuple):
    """A training image that leads in parts of the picture, lit where it explains something; how much of the whole that is."""

    letter: str
    drawn: Markup
    id: str
    share: str
    leads: int


class Map(NamedTuple):
    """A query's parts, row by row, each with the patches behind it; the picture put together from the leading ones; its sources."""

    across: int
    parts: list[Part]
    quilt: Markup
    sources: list[Source]
    words: str


def map_of(run: RunFolder, row: int, gallery: Gallery) -> Map | None:
    """The map of a query, if the run has one and keeps all pictures that it needs."""
    regions = run.regions
    if regions is None or row not in regions.queries:
        return None
    k = regions.queries.tolist().index(row)
    if any(i not in gallery.train for i in regions.images[k].tolist()):
        return None
    return _Drawing(run, regions, k, gallery).map()


class _Drawing(NamedTuple):
    """A query of the run's regions, and the pictures of the page."""

    run: RunFolder
    regions: Regions
    k: int
    gallery: Gallery

    def map(self) -> Map:
        here, sure, whole = self.regions.here[self.k], self._sure(), self._part_of_whole()
        best = here.argmax(0)
        leader = np.where(sure, best, NOBODY)
        leads = np.bincount(best[sure], minlength=len(whole))
        order = [m for m in np.lexsort((-whole, -leads)).tolist() if leads[m] > 0]
        letters = dict(zip(order, LETTERS, strict=False))
        sources = [
            Source(letter, self._lit(m), self._id(m), percent(float(whole[m])), int(leads[m])) for m, letter in letters.items()
        ]
        parts = [
            Part(self._behind(i, j), self._compared(int(best[i, j]), i, j), bool(sure[i, j])) for i, j in np.ndindex(best.shape)
        ]
        return Map(best.shape[1], parts, self._quilt(best, leader, letters), sources, " ".join(self._words(sure)))

    def _sure(self) -> Bool[np.ndarray, "ty tx"]:
        """Of which parts the leading training image is known: no other, drawn or not, can explain more."""
        return self.regions.here[self.k].max(0) >= self.regions.others[self.k] * (1 - ROUNDING)

    def _words(self, sure: Bool[np.ndarray, "ty tx"]) -> Iterator[str]:
        """How much the leading images explain, of which parts they are not known, and whose maps these are."""
        if sure.any():
            lead, even = self.regions.here[self.k].max(0)[sure].mean(), 1 / len(self.run.scores.train_ids)
            yield (
                f"The leading training image of a part explains {percent(float(lead))} of it on average; if all were alike, each "
                f"would explain {percent(even)}."
            )
        if not sure.all():
            yield (
                f"Which one leads is not known in {(~sure).sum()} of the {sure.size} parts, struck through: a training image "
                "that has no map may explain more of them."
            )
        if (models := len(self.run.info.get("models") or ())) > 1:
            yield (
                f"The scores are means over {models} models, each with noise of its own; this map is of the first and its noise "
                "alone."
            )

    def _part_of_whole(self) -> Float32[np.ndarray, " m"]:
        """How much of the picture each training image explains."""
        h, w = self.regions.sides.tolist()
        areas = tiled(np.ones((h, w), np.float32), max(self.regions.here.shape[2:]))
        return (self.regions.here[self.k] * areas).sum((1, 2)) / np.float32(h * w)

    @property
    def _scale(self) -> int:
        """Pixels along a side of what is compared."""
        return self.run.queries.shape[1] // int(self.regions.sides[0])

    def _picture(self, m: int) -> Picture:
        return self.gallery.add(self.gallery.train[int(self.regions.images[self.k, m])])

    def _id(self, m: int) -> str:
        return self.run.scores.train_ids[self.regions.images[self.k, m]]

    def _tile(self, i: int, j: int) -> Box:
        rows, columns = (self._scale * edges(side, max(self.regions.here.shape[2:])) for side in self.regions.sides.tolist())
        return Box(int(columns[j]), int(rows[i]), int(columns[j + 1] - columns[j]), int(rows[i + 1] - rows[i]))

    def _patch(self, name: str, m: int, i: int, j: int) -> int:
        """What is known of the patch by which image m explains a part, in pixels of the picture."""
        return self._scale * int(getattr(self.regions, name)[self.k, m, i, j])

    def _behind(self, i: int, j: int) -> list[Patch]:
        here = self.regions.here[self.k, :, i, j]
        best = np.argsort(-here, kind="stable")[:BEHIND].tolist()
        return [Patch(self._framed(m, i, j), self._id(m), percent(float(here[m]))) for m in best if here[m] > 0]

    def _compared(self, m: int, i: int, j: int) -> str:
        """Where in the picture the patch lies by which image m explains a part."""
        h, w = self.run.queries.shape[1:]
        box = Box.within(w, h, *(self._patch(name, m, i, j) for name in ("left", "top", "size")))
        percents = zip(("left", "top", "width", "height"), box, (w, h, w, h), strict=True)
        return ";".join(f"{name}:{100 * part / whole:.4g}%" for name, part, whole in percents)

    def _framed(self, m: int, i: int, j: int) -> Markup:
        """Training image m with a frame around the patch that explains a part."""
        picture = self._picture(m)
        top, left, down, across, size = (self._patch(name, m, i, j) for name in ("top", "left", "down", "across", "size"))
        x, y, width, height = Box.within(picture.width, picture.height, left + across, top + down, size)
        if self._patch("mirrored", m, i, j):
            x = picture.width - x - width
        box = f'x="{x}" y="{y}" width="{width}" height="{height}"'
        frame = f'<rect class="under" {box}/><rect {box}/>'
        return Markup(f'<svg class="pic" viewBox="{picture.box}"><use href="#{picture.name}"/>{frame}</svg>')

    def _lit(self, m: int) -> Markup:
        """Training image m under a veil that is thin where its parts explain something."""
        there = self.regions.there[self.k, m]
        thin = there / (there.max() or 1)
        veil = np.round(165 * (1 - np.sqrt(np.maximum(thin, 0)))).astype(np.uint8)
        file, picture = io.BytesIO(), self._picture(m)
        Image.merge("LA", (Image.new("L", veil.shape[::-1], 16), Image.fromarray(veil))).save(file, "PNG", optimize=True)
        png = base64.b64encode(file.getvalue()).decode()
        return Markup(
            f'<svg class="pic" viewBox="{picture.box}" aria-hidden="true"><use href="#{picture.name}"/>'
            f'<image class="veil" width="{picture.width}" height="{picture.height}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{png}"/></svg>'
        )

    def _quilt(self, best: Int64[np.ndarray, "ty tx"], leader: Int64[np.ndarray, "ty tx"], letters: dict[int, str]) -> Markup:
        """The best image's patch in the place of each part, seams between the parts of different leaders, and their letters."""
        h, w = self.run.queries.shape[1:]
        pieces = [self._piece(int(best[i, j]), i, j) for i, j in np.ndindex(best.shape)]
        marks = [
            Markup('<text x="{:g}" y="{:g}">{}</text>').format(x + width / 2, y + height / 2, letters[int(leader[i, j])])
            for i, j in _middles(leader)
            if int(leader[i, j]) in letters
            for x, y, width, height in [self._tile(i, j)]
        ]
        return Markup('<svg class="pic quilt" viewBox="0 0 {} {}" style="--unit:{}px" aria-hidden="true">{}{}{}</svg>').format(
            w, h, round(max(h, w) / 100, 3), Markup("").join(pieces), self._seams(leader), Markup("").join(marks)
        )

    def _piece(self, m: int, i: int, j: int) -> Markup:
        """What lies in image m where the part's patch does: at the image's edge, what is nearest to that."""
        picture, (x, y, width, height) = self._picture(m), self._tile(i, j)
        use = f'<use href="#{picture.name}"/>'
        if self._patch("mirrored", m, i, j):
            use = f'<g transform="matrix(-1 0 0 1 {picture.width} 0)">{use}</g>'
        left = min(max(0, x + self._patch("across", m, i, j)), picture.width - width)
        top = min(max(0, y + self._patch("down", m, i, j)), picture.height - height)
        wide, high = (f"{side + BLEED * max(picture.width, picture.height):g}" for side in (width, height))
        return Markup(f'<svg x="{x}" y="{y}" width="{wide}" height="{high}" viewBox="{left} {top} {wide} {high}">{use}</svg>')

    def _seams(self, leader: np.ndarray) -> Markup:
        """A line wherever the leading image changes, and through parts whose leading image is not known."""
        steps = []
        for i, j in np.ndindex(leader.shape):
            x, y, width, height = self._tile(i, j)
            if leader[i, j] == NOBODY:
                steps.append(f"M{x} {y + height}l{width} {-height}")
            if j and leader[i, j] != leader[i, j - 1]:
                steps.append(f"M{x} {y}v{height}")
            if i and leader[i, j] != leader[i - 1, j]:
                steps.append(f"M{x} {y}h{width}")
        return Markup('<path class="seam under" d="{0}"/><path class="seam" d="{0}"/>').format("".join(steps))


def _middles(leader: np.ndarray) -> Iterator[tuple[int, int]]:
    """One part of each connected territory, the one that is nearest to the territory's middle."""
    from scipy import ndimage  # slow to load, and only maps need it

    for image in np.unique(leader):
        territories, _ = ndimage.label(leader == image)  # pyright: ignore[reportGeneralTypeIssues]: scipy has no types
        for territory in range(1, territories.max() + 1):
            parts = np.argwhere(territories == territory)
            middle = parts[np.square(parts - parts.mean(0)).sum(1).argmin()]
            yield int(middle[0]), int(middle[1])
