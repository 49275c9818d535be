"""Maps of one query: what each of some training images explains of it, and with what, added up over timesteps and resolutions."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from headwater.patches.posterior import Patches, Traces
from headwater.patches.tiles import GRAIN, TILES, edges, mean_tiled, tiled


@dataclass(frozen=True, eq=False)
class Atlas:
    """`here`: how much an image explains of each tile of the query; `there`: what each part of an image explains, in pixels of the
    query. For each tile: how much its strongest patch weighs, and what is to be known of that patch, as in Regions."""

    FOUND: ClassVar = ("top", "left", "down", "across", "size", "mirrored")

    here: Float64[np.ndarray, "b ty tx"]
    there: Float64[np.ndarray, "b gy gx"]
    strength: Float64[np.ndarray, "b ty tx"]
    patch: Int64[np.ndarray, "b ty tx 6"]

    @classmethod
    def of(cls, traces: Traces, patches: Patches, weight: float) -> "Atlas":
        """What one noisy form of the query says, as so much of the whole."""
        here, there = weight * patches.by_pixel(traces.here), weight * patches.by_pixel(traces.there)
        strength, patch = _strongest(traces, patches, here.shape[1:])
        return cls(mean_tiled(here, TILES), tiled(there, GRAIN), weight * strength, patch)

    def and_(self, other: "Atlas") -> "Atlas":
        """Both together."""
        ahead = other.strength > self.strength
        patch = np.where(ahead[..., None], other.patch, self.patch)
        return Atlas(self.here + other.here, self.there + other.there, np.maximum(self.strength, other.strength), patch)


def _strongest(
    traces: Traces, patches: Patches, shape: tuple[int, ...]
) -> tuple[Float64[np.ndarray, "b ty tx"], Int64[np.ndarray, "b ty tx 6"]]:
    """For every tile the patch of the query, of those with their middle in it, whose match weighs most: that weight, and FOUND."""
    b, ny, nx = traces.weight.shape
    rows, columns = (_reach(side, number) for side, number in zip(shape, (ny, nx), strict=True))
    strength, patch = np.empty((b, len(rows), len(columns))), np.empty((b, len(rows), len(columns), 6), np.int64)
    images, pad = np.arange(b), (patches.size - 1) // 2
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            weights = traces.weight[:, top:bottom, left:right].reshape(b, -1)
            best = weights.argmax(1)
            y, x = top + best // (right - left), left + best % (right - left)
            strength[:, i, j] = weights[images, best]
            down, across, mirrored = (each[images, y, x] for each in (traces.down, traces.across, traces.mirrored))
            patch[:, i, j] = np.stack([y - pad, x - pad, down, across, np.full(b, patches.size), mirrored], axis=1)
    return strength, patch


def _reach(side: int, number: int) -> list[tuple[int, int]]:
    """The patches along a side whose middle touches each tile: a patch of cells has it between two pixels."""
    return [(max(0, first - (side - number)), min(number, last)) for first, last in pairwise(edges(side, TILES).tolist())]
