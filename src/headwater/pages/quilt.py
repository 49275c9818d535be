"""A query put together again from training images: each part from the image that explains it best."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from markupsafe import Markup

from headwater.pages.gallery import Picture
from headwater.pages.places import Box, Places
from headwater.pages.template import svg

BLEED = 1 / 200  # of a picture, by which a piece reaches under the next: else the ground shines through
NOBODY = -1  # in place of a leading image that is not known

Leaders = Int64[np.ndarray, "ty tx"]  # the image that leads in each part


class QuiltPiece(NamedTuple):
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


def quilt(places: Places, best: Leaders, leaders: Leaders, letters: dict[int, str]) -> Markup:
    """The best image's patch in the place of each part, seams between territories, and their letters."""
    h, w = places.run.queries.shape[1:]
    middles = [(letters.get(int(leaders[i, j])), places.tile(i, j)) for i, j in _middles(leaders)]
    return svg(
        "quilt",
        width=w,
        height=h,
        unit=round(max(h, w) / 100, 3),
        pieces=[_piece(places, int(best[i, j]), i, j) for i, j in np.ndindex(best.shape)],
        seams="".join(_seams(places, leaders)),
        letters=[Letter(letter, *tile.middle) for letter, tile in middles if letter is not None],
    )


def _piece(places: Places, m: int, i: int, j: int) -> QuiltPiece:
    """The tile of image m that lies to its patch as the part does to its own, kept within the image."""
    picture, match, tile = places.picture(m), places.match(m, i, j), places.tile(i, j)
    left = min(max(0, tile.left + match.across), picture.width - tile.width)
    top = min(max(0, tile.top + match.down), picture.height - tile.height)
    bleed = BLEED * max(picture.width, picture.height)
    wide, high = f"{tile.width + bleed:g}", f"{tile.height + bleed:g}"
    return QuiltPiece(tile, picture, left, top, wide, high, match.mirrored)


def _seams(places: Places, leaders: Leaders) -> Iterator[str]:
    """SVG path steps: wherever the leading image changes, and through parts where it is not known."""
    for i, j in np.ndindex(leaders.shape):
        tile = places.tile(i, j)
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
