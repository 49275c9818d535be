"""Which training image counts where in a picture: the picture, and a quilt of it from training images."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32
from markupsafe import Markup
from PIL import Image

from headwater.pages.gallery import Gallery, png
from headwater.pages.places import Box, Places
from headwater.pages.quilt import NOBODY, quilt
from headwater.pages.template import svg
from headwater.patches.tiles import tiled
from headwater.run import Run
from headwater.words import percent

LETTERS = "ABCDEF"  # one for each training image that is listed
BEHIND = 3  # training images behind a part
ROUNDING = 1e-5  # of a share, by which two ways to the same sum may differ
DARKEST, VEIL = 165, 16  # opacity of the veil where an image explains nothing, and its grey, of 255


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


def map_of(run: Run, row: int, gallery: Gallery) -> Map | None:
    """The map of a query, if the run has one and keeps all pictures that it needs."""
    regions = run.regions
    if regions is None or row not in regions.queries:
        return None
    k = regions.queries.tolist().index(row)
    if any(i not in gallery.train for i in regions.images[k].tolist()):
        return None
    return _map(Places(run, regions, k, gallery))


def _map(places: Places) -> Map:
    explained, sure, shares = places.explained, _sure(places), _shares(places)
    best = explained.argmax(0)
    leaders = np.where(sure, best, NOBODY)
    leads = np.bincount(best[sure], minlength=len(shares))
    order = [m for m in np.lexsort((-shares, -leads)).tolist() if leads[m] > 0]
    letters = dict(zip(order, LETTERS, strict=False))
    return Map(
        best.shape[1],
        parts=[_part(places, int(best[i, j]), i, j, bool(sure[i, j])) for i, j in np.ndindex(best.shape)],
        quilt=quilt(places, best, leaders, letters),
        sources=[_source(places, letter, m, shares, leads) for m, letter in letters.items()],
        words=" ".join(_words(places, sure)),
    )


def _part(places: Places, m: int, i: int, j: int, sure: bool) -> Part:
    """A part that image m explains best."""
    return Part(_behind(places, i, j), _compared(places, m, i, j), sure)


def _source(places: Places, letter: str, m: int, shares: np.ndarray, leads: np.ndarray) -> Source:
    return Source(letter, _lit(places, m), places.id(m), percent(float(shares[m])), int(leads[m]))


def _sure(places: Places) -> Bool[np.ndarray, "ty tx"]:
    """The parts whose leading training image is known: no other, shown or not, can explain more."""
    return places.explained.max(0) >= places.regions.others[places.k] * (1 - ROUNDING)


def _words(places: Places, sure: Bool[np.ndarray, "ty tx"]) -> Iterator[str]:
    """Sentences: the leading images' share, the parts whose leader is unknown, and the model of the map."""
    if sure.any():
        lead, even = places.explained.max(0)[sure].mean(), 1 / len(places.run.scores.train_ids)
        yield (
            f"The leading training image of a part explains {percent(float(lead))} of it on average; if "
            f"all counted equally, each would explain {percent(even)}."
        )
    if not sure.all():
        yield (
            f"Which one leads is not known in {(~sure).sum()} of the {sure.size} parts, struck through: "
            "a training image that has no map may explain more of them."
        )
    if (models := len(places.run.info.get("models") or ())) > 1:
        yield f"The scores are means over {models} models, each with noise of its own;"
        yield "this map is of the first and its noise alone."


def _shares(places: Places) -> Float32[np.ndarray, " m"]:
    """The share of the picture that each training image explains."""
    h, w = places.regions.sides.tolist()
    areas = tiled(np.ones((h, w), np.float32), max(places.explained.shape[1:]))
    return (places.explained * areas).sum((1, 2)) / np.float32(h * w)


def _behind(places: Places, i: int, j: int) -> list[Patch]:
    shares = places.explained[:, i, j]
    best = [m for m in np.argsort(-shares, kind="stable")[:BEHIND].tolist() if shares[m] > 0]
    return [Patch(_framed(places, m, i, j), places.id(m), percent(float(shares[m]))) for m in best]


def _compared(places: Places, m: int, i: int, j: int) -> str:
    """The place in the picture, as CSS, of the patch by which image m explains a part."""
    (h, w), match = places.run.queries.shape[1:], places.match(m, i, j)
    box = Box.within(w, h, match.left, match.top, match.size)
    sides = zip(("left", "top", "width", "height"), box, (w, h, w, h), strict=True)
    return ";".join(f"{name}:{100 * length / side:.4g}%" for name, length, side in sides)


def _framed(places: Places, m: int, i: int, j: int) -> Markup:
    """Training image m with a frame around the patch that explains a part."""
    picture, match = places.picture(m), places.match(m, i, j)
    left, top = match.left + match.across, match.top + match.down
    box = Box.within(picture.width, picture.height, left, top, match.size)
    return svg("patch", picture=picture, box=box.mirrored(picture.width) if match.mirrored else box)


def _lit(places: Places, m: int) -> Markup:
    """Training image m under a veil that is thin where its parts explain something."""
    explains = places.regions.there[places.k, m]
    thin = explains / (explains.max() or 1)
    veil = np.round(DARKEST * (1 - np.sqrt(np.maximum(thin, 0)))).astype(np.uint8)
    image = Image.merge("LA", (Image.new("L", veil.shape[::-1], VEIL), Image.fromarray(veil)))
    return svg("source", picture=places.picture(m), veil=png(image))
