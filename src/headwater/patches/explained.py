"""Scores of images and their leaders in each tile of a picture, added up from the shares that they have in
its patches."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from headwater.patches.geometry import Patches
from headwater.patches.tiles import TILES, Foremost, edges, mean_tiled

LISTED = 16  # images that are listed for each tile of the query


class Explained(NamedTuple):
    """The origin of a noisy picture's patches. `scores`: over its patches a, the weights of an image's
    nearest patches, summed; `evidence`: ln Σ exp(−D/(2σ²)) over all patches, for every a; `leaders`: the
    LISTED images that explain most of each of TILES × TILES tiles of the picture, and how much of it."""

    scores: Float64[np.ndarray, " n"]
    evidence: Float64[np.ndarray, " a"]
    leaders: Foremost


@dataclass
class Tally:
    """Shares in a picture's patches, added up: over all patches `scores`, by its tiles `leaders`."""

    patches: Patches
    shape: tuple[int, int]
    scores: Float64[np.ndarray, " n"]
    leaders: Foremost

    @classmethod
    def of(cls, patches: Patches, shape: tuple[int, int], n: int) -> "Tally":
        """An empty tally of n images of this height and width."""
        tiles = math.prod(len(edges(side, TILES)) - 1 for side in shape)
        return cls(patches, shape, np.zeros(n), Foremost.none(tiles, min(LISTED, n)))

    def add(self, columns: Int64[np.ndarray, " b"], shares: Float64[np.ndarray, "a b"]) -> None:
        """Add the shares of the images at these columns."""
        self.scores[columns] = shares.sum(0)
        down, across = self.patches.windows(*self.shape)
        pixels = self.patches.by_pixel(shares.T.reshape(-1, down.number, across.number))
        self.leaders = self.leaders.beside(columns, mean_tiled(pixels, TILES).reshape(shares.shape[1], -1).T)
