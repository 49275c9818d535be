"""Which training image counts where in a picture: the picture, and a quilt of it from training images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64
from markupsafe import Markup
from PIL import Image

from headwater.pages.gallery import Gallery, Picture, png
from headwater.pages.template import drawn
from headwater.patches.regions import Regions
from headwater.patches.tiles import edges, tiled
from headwater.run import RunFolder
from headwater.words import percent

LETTERS = "ABCDEF"  # one for each training image that is listed
BEHIND = 3  # training images behind a part
ROUNDING = 1e-5  # of a share, by which two ways to the same sum may differ
BLEED = 1 / 200  # of a picture, by which a piece reaches under the next: else the ground shines through
NOBODY = -1  # in place of a leading image that is not known
DARKEST, VEIL = 165, 16  # opacity of the veil where an image explains nothing, and its grey, of 255

Leaders = Int64[np.ndarray, "ty tx"]  # the image that leads in each part


class Patch(NamedTuple):
    """A training image, the patch that explains a part framed in it, and how much of the part it explains."""

    svg: Markup
    id: str
    share: str


class Part(NamedTuple):
    """The patches behind a part of the picture, and where the first of them was compared, as CSS.

    `sure`: no training image other than these can explain more of the part.
    """

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
        """The part of a square that lies in a picture."""
        x, y = max(0, left), max(0, top)
        return cls(x, y, min(width, left + size) - x, min(height, top + size) - y)

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def mirrored(self, width: int) -> "Box":
        """The box in the mirror image of a picture of this width."""
        return self._replace(left=width - self.left - self.width)


class Match(NamedTuple):
    """The patch by which an image explains a part: its place in the query and in the image, in pixels."""

    top: int
    left: int
    down: int
    across: int
    size: int
    mirrored: bool


class Piece(NamedTuple):
    """A piece of the quilt: its place, and what it shows of which training image."""

    box: Box
    picture: Picture
    left: int
    top: int
    wide: str
    high: str
    mirrored: bool


class Letter(NamedTuple):
    """The letter of a territory's leading image, and the middle of the territory."""

    letter: str
    x: float
    y: float


class Source(NamedTuple):
    """A training image that leads in parts of the picture, lit where it explains something, and its share."""

    letter: str
    svg: Markup
    id: str
    share: str
    leads: int


class Map(NamedTuple):
    """A query's parts, row by row, the quilt of their leading patches, and the images that lead."""

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
    return _QueryMap(run, regions, k, gallery).map()


@dataclass(frozen=True, eq=False)
class _QueryMap:
    """The k-th query of the run's regions, and the pictures of the page."""

    run: RunFolder
    regions: Regions
    k: int
    gallery: Gallery

    def map(self) -> Map:
        explained, sure, shares = self._explained, self._sure(), self._shares()
        best = explained.argmax(0)
        leaders = np.where(sure, best, NOBODY)
        leads = np.bincount(best[sure], minlength=len(shares))
        order = [m for m in np.lexsort((-shares, -leads)).tolist() if leads[m] > 0]
        letters = dict(zip(order, LETTERS, strict=False))
        return Map(
            best.shape[1],
            parts=[self._part(int(best[i, j]), i, j, bool(sure[i, j])) for i, j in np.ndindex(best.shape)],
            quilt=self._quilt(best, leaders, letters),
            sources=[self._source(letter, m, shares, leads) for m, letter in letters.items()],
            words=" ".join(self._words(sure)),
        )

    def _part(self, m: int, i: int, j: int, sure: bool) -> Part:
        """A part that image m explains best."""
        return Part(self._behind(i, j), self._compared(m, i, j), sure)

    def _source(self, letter: str, m: int, shares: np.ndarray, leads: np.ndarray) -> Source:
        return Source(letter, self._lit(m), self._id(m), percent(float(shares[m])), int(leads[m]))

    @property
    def _explained(self) -> Float32[np.ndarray, "m ty tx"]:
        """How much of each part each training image explains."""
        return self.regions.here[self.k]

    def _sure(self) -> Bool[np.ndarray, "ty tx"]:
        """The parts whose leading training image is known: no other, shown or not, can explain more."""
        return self._explained.max(0) >= self.regions.others[self.k] * (1 - ROUNDING)

    def _words(self, sure: Bool[np.ndarray, "ty tx"]) -> Iterator[str]:
        """How much the leading images explain, where they are unknown, and which model the map belongs to."""
        if sure.any():
            lead, even = self._explained.max(0)[sure].mean(), 1 / len(self.run.scores.train_ids)
            yield (
                f"The leading training image of a part explains {percent(float(lead))} of it on average; if "
                f"all were alike, each would explain {percent(even)}."
            )
        if not sure.all():
            yield (
                f"Which one leads is not known in {(~sure).sum()} of the {sure.size} parts, struck through: "
                "a training image that has no map may explain more of them."
            )
        if (models := len(self.run.info.get("models") or ())) > 1:
            yield (
                f"The scores are means over {models} models, each with noise of its own; this map is of the "
                "first and its noise alone."
            )

    def _shares(self) -> Float32[np.ndarray, " m"]:
        """How much of the picture each training image explains."""
        h, w = self.regions.sides.tolist()
        areas = tiled(np.ones((h, w), np.float32), max(self._explained.shape[1:]))
        return (self._explained * areas).sum((1, 2)) / np.float32(h * w)

    @property
    def _scale(self) -> int:
        """Pixels of the picture for each pixel of what is compared."""
        return self.run.queries.shape[1] // int(self.regions.sides[0])

    def _picture(self, m: int) -> Picture:
        return self.gallery.add(self.gallery.train[int(self.regions.images[self.k, m])])

    def _id(self, m: int) -> str:
        return self.run.scores.train_ids[self.regions.images[self.k, m]]

    def _tile(self, i: int, j: int) -> Box:
        """A part's place in the picture."""
        most = max(self._explained.shape[1:])
        rows, columns = (self._scale * edges(side, most) for side in self.regions.sides.tolist())
        (top, bottom), (left, right) = rows[i : i + 2].tolist(), columns[j : j + 2].tolist()
        return Box(left, top, right - left, bottom - top)

    def _match(self, m: int, i: int, j: int) -> Match:
        """The patch by which image m explains a part."""
        place, regions = (self.k, m, i, j), self.regions
        scale = self._scale
        return Match(
            top=scale * int(regions.top[place]),
            left=scale * int(regions.left[place]),
            down=scale * int(regions.down[place]),
            across=scale * int(regions.across[place]),
            size=scale * int(regions.size[place]),
            mirrored=bool(regions.mirrored[place]),
        )

    def _behind(self, i: int, j: int) -> list[Patch]:
        shares = self._explained[:, i, j]
        best = [m for m in np.argsort(-shares, kind="stable")[:BEHIND].tolist() if shares[m] > 0]
        return [Patch(self._framed(m, i, j), self._id(m), percent(float(shares[m]))) for m in best]

    def _compared(self, m: int, i: int, j: int) -> str:
        """The place in the picture, as CSS, of the patch by which image m explains a part."""
        (h, w), match = self.run.queries.shape[1:], self._match(m, i, j)
        box = Box.within(w, h, match.left, match.top, match.size)
        sides = zip(("left", "top", "width", "height"), box, (w, h, w, h), strict=True)
        return ";".join(f"{name}:{100 * length / side:.4g}%" for name, length, side in sides)

    def _framed(self, m: int, i: int, j: int) -> Markup:
        """Training image m with a frame around the patch that explains a part."""
        picture, match = self._picture(m), self._match(m, i, j)
        left, top = match.left + match.across, match.top + match.down
        box = Box.within(picture.width, picture.height, left, top, match.size)
        return drawn("patch", picture=picture, box=box.mirrored(picture.width) if match.mirrored else box)

    def _lit(self, m: int) -> Markup:
        """Training image m under a veil that is thin where its parts explain something."""
        explains = self.regions.there[self.k, m]
        thin = explains / (explains.max() or 1)
        veil = np.round(DARKEST * (1 - np.sqrt(np.maximum(thin, 0)))).astype(np.uint8)
        image = Image.merge("LA", (Image.new("L", veil.shape[::-1], VEIL), Image.fromarray(veil)))
        return drawn("source", picture=self._picture(m), veil=png(image))

    def _quilt(self, best: Leaders, leaders: Leaders, letters: dict[int, str]) -> Markup:
        """The best image's patch in the place of each part, seams between territories, and their letters."""
        h, w = self.run.queries.shape[1:]
        middles = [(letters.get(int(leaders[i, j])), self._tile(i, j)) for i, j in _middles(leaders)]
        return drawn(
            "quilt",
            width=w,
            height=h,
            unit=round(max(h, w) / 100, 3),
            pieces=[self._piece(int(best[i, j]), i, j) for i, j in np.ndindex(best.shape)],
            seams="".join(self._seams(leaders)),
            letters=[Letter(letter, *tile.middle) for letter, tile in middles if letter is not None],
        )

    def _piece(self, m: int, i: int, j: int) -> Piece:
        """The tile of image m that lies to its patch as the part does to its own, kept within the image."""
        picture, match, tile = self._picture(m), self._match(m, i, j), self._tile(i, j)
        left = min(max(0, tile.left + match.across), picture.width - tile.width)
        top = min(max(0, tile.top + match.down), picture.height - tile.height)
        bleed = BLEED * max(picture.width, picture.height)
        wide, high = f"{tile.width + bleed:g}", f"{tile.height + bleed:g}"
        return Piece(tile, picture, left, top, wide, high, match.mirrored)

    def _seams(self, leaders: Leaders) -> Iterator[str]:
        """SVG path steps: wherever the leading image changes, and through parts where it is not known."""
        for i, j in np.ndindex(leaders.shape):
            tile = self._tile(i, j)
            if leaders[i, j] == NOBODY:
                yield f"M{tile.left} {tile.top + tile.height}l{tile.width} {-tile.height}"
            if j and leaders[i, j] != leaders[i, j - 1]:
                yield f"M{tile.left} {tile.top}v{tile.height}"
            if i and leaders[i, j] != leaders[i - 1, j]:
                yield f"M{tile.left} {tile.top}h{tile.width}"


def _middles(leaders: Leaders) -> Iterator[tuple[int, int]]:
    """One part of each connected territory, the one that is nearest to the territory's middle."""
    from scipy import ndimage  # slow to load, and only maps need it

    for image in np.unique(leaders):
        # scipy has no types
        territories, _ = ndimage.label(leaders == image)  # pyright: ignore[reportGeneralTypeIssues]
        for territory in range(1, territories.max() + 1):
            parts = np.argwhere(territories == territory)
            middle = parts[np.square(parts - parts.mean(0)).sum(1).argmin()]
            yield int(middle[0]), int(middle[1])
