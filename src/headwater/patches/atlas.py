"""Maps of one query: how much of it a few training images explain, and by which patches, summed over
timesteps and resolutions."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from headwater.patches.geometry import Patches
from headwater.patches.posterior import Traces
from headwater.patches.tiles import GRAIN, TILES, edges, mean_tiled, tiled


@dataclass(frozen=True, eq=False)
class Atlas:
    """`query_tiles`: how much an image explains of each tile of the query; `image_tiles`: how much each tile
    of an image explains, in pixels of the query. For each tile of the query, the weight of its strongest
    patch, and that patch's PATCH_FIELDS."""

    PATCH_FIELDS: ClassVar = ("top", "left", "down", "across", "size", "mirrored")

    query_tiles: Float64[np.ndarray, "b ty tx"]
    image_tiles: Float64[np.ndarray, "b gy gx"]
    strength: Float64[np.ndarray, "b ty tx"]
    patch: Int64[np.ndarray, "b ty tx 6"]

    @classmethod
    def of(cls, traces: Traces, patches: Patches, weight: float) -> "Atlas":
        """The maps of one noisy form of the query, which has this weight."""
        query, images = (weight * patches.by_pixel(values) for values in (traces.query_map, traces.image_map))
        strength, patch = _strongest(traces, patches, query.shape[1:])
        return cls(mean_tiled(query, TILES), tiled(images, GRAIN), weight * strength, patch)

    def plus(self, atlas: "Atlas") -> "Atlas":
        """The sum of two atlases, with the stronger patch of each tile."""
        patch = np.where((atlas.strength > self.strength)[..., None], atlas.patch, self.patch)
        strength = np.maximum(self.strength, atlas.strength)
        return Atlas(
            self.query_tiles + atlas.query_tiles, self.image_tiles + atlas.image_tiles, strength, patch
        )


def _strongest(
    traces: Traces, patches: Patches, shape: tuple[int, ...]
) -> tuple[Float64[np.ndarray, "b ty tx"], Int64[np.ndarray, "b ty tx 6"]]:
    """For every tile, of the patches with their middle in it, the one whose match weighs most: its weight,
    and its PATCH_FIELDS."""
    b, ny, nx = traces.weight.shape
    rows, columns = (_reach(side, number) for side, number in zip(shape, (ny, nx), strict=True))
    strength, patch = (
        np.empty((b, len(rows), len(columns))),
        np.empty((b, len(rows), len(columns), 6), np.int64),
    )
    images, pad = np.arange(b), (patches.size - 1) // 2
    for i, (top, bottom) in enumerate(rows):
        for j, (first, last) in enumerate(columns):
            weights = traces.weight[:, top:bottom, first:last].reshape(b, -1)
            best = weights.argmax(1)
            y, x = top + best // (last - first), first + best % (last - first)
            strength[:, i, j] = weights[images, best]
            down, across, mirrored = (
                values[images, y, x] for values in (traces.down, traces.across, traces.mirrored)
            )
            patch[:, i, j] = np.stack(
                [y - pad, x - pad, down, across, np.full(b, patches.size), mirrored], axis=1
            )
    return strength, patch


def _reach(side: int, number: int) -> list[tuple[int, int]]:
    """The patches along a side whose middle touches each tile: a patch of cells has it between two pixels."""
    return [
        (max(0, first - (side - number)), min(number, last))
        for first, last in pairwise(edges(side, TILES).tolist())
    ]
