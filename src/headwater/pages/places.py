"""A query's map in pixels of the picture: where its parts lie, and the patches that explain them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from headwater.pages.gallery import Gallery, Picture
from headwater.patches.regions import Regions
from headwater.patches.tiles import edges
from headwater.run import Run


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


@dataclass(frozen=True, eq=False)
class Places:
    """The k-th query of a run's regions, and the pictures of the page."""

    run: Run
    regions: Regions
    k: int
    gallery: Gallery

    @property
    def explained(self) -> Float32[np.ndarray, "m ty tx"]:
        """The share of each part that each training image explains."""
        return self.regions.here[self.k]

    @property
    def scale(self) -> int:
        """Pixels of the picture for each pixel of what is compared."""
        return self.run.queries.shape[1] // int(self.regions.sides[0])

    def picture(self, m: int) -> Picture:
        return self.gallery.add(self.gallery.train[int(self.regions.images[self.k, m])])

    def id(self, m: int) -> str:
        return self.run.scores.train_ids[self.regions.images[self.k, m]]

    def tile(self, i: int, j: int) -> Box:
        """A part's place in the picture."""
        most = max(self.explained.shape[1:])
        rows, columns = (self.scale * edges(side, most) for side in self.regions.sides.tolist())
        (top, bottom), (left, right) = rows[i : i + 2].tolist(), columns[j : j + 2].tolist()
        return Box(left, top, right - left, bottom - top)

    def match(self, m: int, i: int, j: int) -> Match:
        """The patch by which image m explains a part."""
        place, regions = (self.k, m, i, j), self.regions
        scale = self.scale
        return Match(
            top=scale * int(regions.top[place]),
            left=scale * int(regions.left[place]),
            down=scale * int(regions.down[place]),
            across=scale * int(regions.across[place]),
            size=scale * int(regions.size[place]),
            mirrored=bool(regions.mirrored[place]),
        )
