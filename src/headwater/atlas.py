"""Maps of one query: what each of some training images explains of it, and with what, added up over timesteps and resolutions."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

from headwater.patchwise import Patches, Traces
from headwater.regions import GRAIN, TILES, areas, edges, tiled


@dataclass(frozen=True, eq=False)
class Atlas:
    """`here` and `there` by pixels, as in Traces. For each tile of the query: how much its strongest patch weighs, and which it is,
    as in Regions."""

    here: Float64[np.ndarray, "b h w"]
    there: Float64[np.ndarray, "b h w"]
    strength: Float64[np.ndarray, "b ty tx"]
    patch: Int64[np.ndarray, "b ty tx 4"]

    @classmethod
    def empty(cls, b: int, height: int, width: int) -> "Atlas":
        """Of b images that explain nothing yet."""
        tiles = (len(edges(height, TILES)) - 1, len(edges(width, TILES)) - 1)
        pixels = (b, height, width)
        return cls(np.zeros(pixels), np.zeros(pixels), np.full((b, *tiles), -1.0), np.zeros((b, *tiles, 4), np.int64))

    def add(self, traces: Traces, patches: Patches, weight: float) -> None:
        """What one noisy form of the query adds to the maps, as so much of the whole."""
        self.here[:] += weight * _by_pixel(traces.here, patches)
        self.there[:] += weight * _by_pixel(traces.there, patches)
        images = np.arange(len(self.here))
        rows, columns = (edges(side, TILES) for side in self.here.shape[1:])
        for i, (top, bottom) in enumerate(pairwise(rows)):
            for j, (left, right) in enumerate(pairwise(columns)):
                tile = (slice(None), slice(top, bottom), slice(left, right))
                weights = weight * traces.weight[tile].reshape(len(images), -1)
                if not weights.size:  # patches of cells are one fewer than pixels
                    continue
                best = weights.argmax(1)
                most = weights[images, best]
                each = [
                    getattr(traces, name)[tile].reshape(len(images), -1)[images, best] for name in ("down", "across", "mirrored")
                ]
                found = np.stack([each[0], each[1], np.full(len(images), patches.size), each[2]], axis=1)
                ahead = most > self.strength[:, i, j]
                self.strength[ahead, i, j], self.patch[ahead, i, j] = most[ahead], found[ahead]

    @property
    def tiles(self) -> Float64[np.ndarray, "b ty tx"]:
        """How much of each tile an image explains."""
        return tiled(self.here, TILES) / areas(*self.here.shape[1:])

    @property
    def grains(self) -> Float64[np.ndarray, "b gy gx"]:
        """What each part of an image explains, in pixels of the query."""
        return tiled(self.there, GRAIN)


def leading(scores: Float64[np.ndarray, " n"], led: Float64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " m"]:
    """The images to draw maps of: half of them by their scores, the others by how much of the query they lead in, all by scores."""
    first = np.argsort(-scores, kind="stable")[: max(1, count // 2)]
    others = np.argsort(-led, kind="stable")
    others = others[~np.isin(others, first)][: max(0, min(count, len(scores)) - len(first))]
    both = np.concatenate([first, others])
    return both[np.argsort(-scores[both], kind="stable")]


def _by_pixel(values: Float64[np.ndarray, "b ny nx"], patches: Patches) -> Float64[np.ndarray, "b h w"]:
    """Of patches the pixel in their middle; patches of cells have four of them."""
    if not patches.coarse:
        return values
    out = np.zeros((len(values), values.shape[1] + 1, values.shape[2] + 1))
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            out[:, rows, columns] += values / 4
    return out
