"""Where in a picture which training image counts: a picture and the same one put together from training images, part by part."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from markupsafe import Markup
from PIL import Image

from headwater.charts import Gallery, Picture, percent
from headwater.regions import Regions, edges
from headwater.runs import RunFolder

LETTERS = "ABCDEF"  # training images that are listed
BEHIND = 3  # training images behind a part


class Patch(NamedTuple):
    """A training image with the patch that explains a part framed in it, and how much of the part the image explains."""

    drawn: Markup
    id: str
    share: str


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
    parts: list[list[Patch]]
    quilt: Markup
    sources: list[Source]
    words: str


def map_of(run: RunFolder, row: int, gallery: Gallery) -> Map | None:
    """The map of a query, if the run has one and keeps all pictures that it needs."""
    regions = run.regions
    if regions is None or row not in regions.queries:
        return None
    k = regions.queries.tolist().index(row)
    pictures = [gallery.row(i) for i in regions.images[k].tolist()]
    whole = [picture for picture in pictures if picture is not None]
    if len(whole) < len(pictures):
        return None
    return _Drawing(run, regions, k, whole).map()


class _Drawing(NamedTuple):
    """A query of the run's regions, and the pictures of its training images."""

    run: RunFolder
    regions: Regions
    k: int
    pictures: list[Picture]

    def map(self) -> Map:
        here = self.regions.here[self.k]
        leader, whole = here.argmax(0), self._part_of_whole()
        leads = np.bincount(leader.ravel(), minlength=len(whole))
        order = [m for m in np.lexsort((-whole, -leads)).tolist() if leads[m] > 0]
        letters = dict(zip(order, LETTERS, strict=False))
        sources = [
            Source(letter, self._lit(m), self._id(m), percent(float(whole[m])), int(leads[m])) for m, letter in letters.items()
        ]
        parts = [self._behind(i, j) for i, j in np.ndindex(leader.shape)]
        lead, even = percent(float(here.max(0).mean())), percent(1 / len(self.run.scores.train_ids))
        words = (
            f"The leading training image of a part explains {lead} of it on average; if all were alike, each would explain {even}."
        )
        return Map(leader.shape[1], parts, self._quilt(leader, letters), sources, words)

    def _part_of_whole(self) -> Float32[np.ndarray, " m"]:
        """How much of the picture each training image explains."""
        h, w = self.run.queries.shape[1:]
        sizes = np.outer(*(np.diff(edges(side, parts)) for side, parts in zip((h, w), self.regions.here.shape[2:], strict=True)))
        return (self.regions.here[self.k] * sizes).sum((1, 2)).astype(np.float32) / np.float32(h * w)

    def _id(self, m: int) -> str:
        return self.run.scores.train_ids[self.regions.images[self.k, m]]

    def _tile(self, i: int, j: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a part, in pixels."""
        h, w = self.run.queries.shape[1:]
        rows, columns = edges(h, self.regions.here.shape[2]), edges(w, self.regions.here.shape[3])
        return int(columns[j]), int(rows[i]), int(columns[j + 1] - columns[j]), int(rows[i + 1] - rows[i])

    def _shift(self, m: int, i: int, j: int) -> tuple[int, int, int, bool]:
        """How far across and down the patch of image m lies that explains a part, its size, and whether in the mirrored image."""
        regions = self.regions
        across, down, size = (int(each[self.k, m, i, j]) for each in (regions.across, regions.down, regions.size))
        return across, down, size, bool(regions.mirrored[self.k, m, i, j])

    def _behind(self, i: int, j: int) -> list[Patch]:
        here = self.regions.here[self.k, :, i, j]
        best = np.argsort(-here, kind="stable")[:BEHIND].tolist()
        return [Patch(self._framed(m, i, j), self._id(m), percent(float(here[m]))) for m in best if here[m] > 0]

    def _framed(self, m: int, i: int, j: int) -> Markup:
        """Training image m with a frame around the patch that explains a part."""
        picture, (x, y, width, height), (across, down, size, mirrored) = self.pictures[m], self._tile(i, j), self._shift(m, i, j)
        left, top = x + width / 2 + across - size / 2, y + height / 2 + down - size / 2
        left, right = max(0.0, left), min(picture.width, left + size)
        top, bottom = max(0.0, top), min(picture.height, top + size)
        if mirrored:
            left, right = picture.width - right, picture.width - left
        box = f'x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}"'
        return Markup(f'<svg class="pic" viewBox="{picture.box}"><use href="#{picture.name}"/><rect {box}/></svg>')

    def _lit(self, m: int) -> Markup:
        """Training image m under a veil that is thin where its parts explain something."""
        there = self.regions.there[self.k, m]
        thin = there / (there.max() or 1)
        veil = np.round(165 * (1 - np.sqrt(np.maximum(thin, 0)))).astype(np.uint8)
        file, picture = io.BytesIO(), self.pictures[m]
        Image.merge("LA", (Image.new("L", veil.shape[::-1], 16), Image.fromarray(veil))).save(file, "PNG", optimize=True)
        png = base64.b64encode(file.getvalue()).decode()
        return Markup(
            f'<svg class="pic" viewBox="{picture.box}" aria-hidden="true"><use href="#{picture.name}"/>'
            f'<image class="veil" width="{picture.width}" height="{picture.height}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{png}"/></svg>'
        )

    def _quilt(self, leader: np.ndarray, letters: dict[int, str]) -> Markup:
        """The leading image's patch in the place of each part, seams between images, and their letters."""
        h, w = self.run.queries.shape[1:]
        pieces = [self._piece(int(leader[i, j]), i, j) for i, j in np.ndindex(leader.shape)]
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
        picture, (x, y, width, height), (across, down, _, mirrored) = self.pictures[m], self._tile(i, j), self._shift(m, i, j)
        use = f'<use href="#{picture.name}"/>'
        if mirrored:
            use = f'<g transform="matrix(-1 0 0 1 {picture.width} 0)">{use}</g>'
        box = f"{x + across} {y + down} {width} {height}"
        return Markup(f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{box}">{use}</svg>')

    def _seams(self, leader: np.ndarray) -> Markup:
        """A line wherever the leading image changes."""
        steps = []
        for i, j in np.ndindex(leader.shape):
            x, y, width, height = self._tile(i, j)
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
