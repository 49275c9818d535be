"""Square patches of a picture: the windows that they are on its maps, and the pixels that they stand for."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from headwater.patches.compiled.displaced import Windows, cells, windows


@dataclass(frozen=True)
class Patches:
    """Square patches of `size` pixels at every place, padded by (size − 1)//2; `coarse`: as their 2×2 cells,
    ½ Σ of each."""

    size: int
    coarse: bool = False

    def windows(self, height: int, width: int) -> tuple[Windows, Windows]:
        """The windows down and across the maps of a picture."""
        return windows(height, self.size, coarse=self.coarse), windows(width, self.size, coarse=self.coarse)

    def maps(self, x: Float[np.ndarray, "*b h w"]) -> Float[np.ndarray, "*b _ _"]:
        """The maps that the windows lie on: the pictures, or their cells."""
        return cells(x) if self.coarse else x

    def by_pixel(self, values: Float64[np.ndarray, "*b ny nx"]) -> Float64[np.ndarray, "*b h w"]:
        """A value of each patch as one of its middle: one pixel, or a quarter for each of the four around a
        patch of cells."""
        if not self.coarse:
            return values
        *b, ny, nx = values.shape
        out = np.zeros((*b, ny + 1, nx + 1))
        for rows in (slice(None, -1), slice(1, None)):
            for columns in (slice(None, -1), slice(1, None)):
                out[..., rows, columns] += values / 4
        return out
