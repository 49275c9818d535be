"""A picture cut into tiles of whole pixels, and the columns of a table that are foremost in each tile.

Maps cut a query into TILES × TILES tiles (fewer where it has fewer pixels), and a training image into GRAIN ×
GRAIN."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

TILES, GRAIN = 8, 16


def edges(side: int, parts: int) -> Int64[np.ndarray, " _"]:
    """The ends of `parts` parts of a side, in whole pixels; as many parts as pixels if there are fewer."""
    parts = min(parts, side)
    return np.arange(parts + 1) * side // parts


def tiled(values: Float[np.ndarray, "*b h w"], parts: int) -> Float[np.ndarray, "*b _ _"]:
    """The sum over each of parts × parts tiles."""
    rows, columns = (edges(side, parts)[:-1] for side in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)


def mean_tiled(values: Float[np.ndarray, "*b h w"], parts: int) -> Float[np.ndarray, "*b _ _"]:
    """The mean over each of parts × parts tiles."""
    return tiled(values, parts) / tiled(np.ones(values.shape[-2:]), parts)


class Foremost(NamedTuple):
    """The k largest entries of every row of a table, in any order, and their columns."""

    value: Float64[np.ndarray, "rows k"]
    column: Int64[np.ndarray, "rows k"]

    @classmethod
    def none(cls, rows: int, k: int) -> "Foremost":
        """The entries of a table without columns."""
        return cls(np.full((rows, k), -np.inf), np.zeros((rows, k), np.int64))

    def beside(self, columns: Int64[np.ndarray, " b"], table: Float64[np.ndarray, "rows b"]) -> "Foremost":
        """The foremost entries when these columns are added to the table."""
        k, new = self.value.shape[1], np.broadcast_to(columns, table.shape)
        value, column = np.concatenate([self.value, table], 1), np.concatenate([self.column, new], 1)
        largest = np.argpartition(value, -k, axis=1)[:, -k:]
        return Foremost(np.take_along_axis(value, largest, 1), np.take_along_axis(column, largest, 1))
