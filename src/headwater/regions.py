"""Where in a picture which training image counts, and from where in it: what a report draws of a method that compares patches.

A picture is cut into TILES × TILES tiles (fewer where it has fewer pixels), a training image into GRAIN × GRAIN.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int16, Int64

from headwater.archive import arrays
from headwater.disk import written
from headwater.errors import DataError

TILES, GRAIN = 8, 16
KINDS = {"here": "f", "there": "f", "mirrored": "b"}  # of numbers; all others are whole


@dataclass(frozen=True, eq=False)
class Regions:
    """Of k queries the m training images that explain most of them or of a part of them, the strongest first.

    `here`: how much of each tile of the query an image explains, 1 at most over all images; `there`: what its own parts explain,
    in pixels of the query. For each tile the patch that explains most of it: how far `down` and `across` it lies from its place
    in the query, its `size` in pixels, and whether in the `mirrored` image.
    """

    queries: Int64[np.ndarray, " k"]
    images: Int64[np.ndarray, "k m"]
    here: Float32[np.ndarray, "k m ty tx"]
    there: Float32[np.ndarray, "k m gy gx"]
    down: Int16[np.ndarray, "k m ty tx"]
    across: Int16[np.ndarray, "k m ty tx"]
    size: Int16[np.ndarray, "k m ty tx"]
    mirrored: Bool[np.ndarray, "k m ty tx"]

    def __post_init__(self) -> None:
        k, m = self.images.shape
        if self.here.shape[:2] != (k, m) or self.there.shape[:2] != (k, m) or len(self.queries) != k:
            raise DataError(f"Regions of {len(self.queries)} queries have {self.here.shape} shares; expected {(k, m)} and tiles.")


def write_regions(path: Path, regions: Regions) -> None:
    """Into a run folder's `regions.npz`."""
    with written(path) as file:
        np.savez_compressed(file, **asdict(regions))


def read_regions(path: Path) -> Regions | None:
    """What a run folder has of them; None if it has none."""
    if not path.exists():
        return None
    names = [field.name for field in fields(Regions)]
    have = arrays(path, names)
    if missing := [name for name in names if name not in have]:
        raise DataError(f"{path} lacks `{missing[0]}`. Make the run again with --force.")
    shapes = {name: have[name].shape for name in names}
    (k, m, *_), grid = (*shapes["images"], -1, -1), shapes["here"]
    expected = dict.fromkeys(names, (k, m, *grid[2:])) | {"queries": (k,), "images": (k, m), "there": (k, m, *shapes["there"][2:])}
    for name, column in have.items():
        kind = KINDS.get(name, "iu")
        if column.shape != expected[name] or column.dtype.kind not in kind or len(grid) != 4 or len(shapes["there"]) != 4:
            raise DataError(
                f"`{name}` in {path} is {column.dtype} {list(column.shape)} beside `images` {list(shapes['images'])} and `here` "
                f"{list(grid)}; expected what a run writes. Make the run again with --force."
            )
    return Regions(**have)


def edges(side: int, parts: int) -> Int64[np.ndarray, " _"]:
    """Where `parts` parts of a side begin and end, in whole pixels; as many parts as pixels if there are fewer."""
    parts = min(parts, side)
    return np.arange(parts + 1) * side // parts


def tiled(values: Float[np.ndarray, "*b h w"], parts: int) -> Float[np.ndarray, "*b _ _"]:
    """The sum over each of parts × parts tiles."""
    rows, columns = (edges(side, parts)[:-1] for side in values.shape[-2:])
    return np.add.reduceat(np.add.reduceat(values, rows, axis=-2), columns, axis=-1)


def areas(height: int, width: int) -> Float[np.ndarray, "ty tx"]:
    """Pixels in each tile."""
    return tiled(np.ones((height, width)), TILES)
