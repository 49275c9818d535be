"""The training images behind each tile of a picture, and the places in them: drawn by a report."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from headwater.disk.files import written
from headwater.disk.npz import arrays
from headwater.errors import DataError

# of dtypes; all other columns are integers
KINDS = {
    "here": "f",
    "others": "f",
    "there": "f",
    "mirrored": "b",
}
AXES = {"queries": 1, "sides": 1, "images": 2, "others": 3}  # all other columns have four


@dataclass(frozen=True, eq=False)
class Regions:
    """For each of k queries, the m training images that explain most of it or of a tile of it, the strongest
    first.

    `here`: how much of each tile of the query an image explains, 1 at most over all images; `others`: the
    most that any other training image explains of it; `there`: how much each tile of an image explains, in
    pixels of the query. For each tile the patch of the query that an image explains best: where it begins
    (`top`, `left`: below 0 where it reaches over the edge), its `size` in pixels, how far `down` and `across`
    its match lies from there, and whether in the `mirrored` image. `sides` are height and width of the
    compared values: where these are latents, all pixels above are elements of latents."""

    queries: Int64[np.ndarray, " k"]
    sides: Int64[np.ndarray, " 2"]
    images: Int64[np.ndarray, "k m"]
    here: Float32[np.ndarray, "k m ty tx"]
    others: Float32[np.ndarray, "k ty tx"]
    there: Float32[np.ndarray, "k m gy gx"]
    top: Int16[np.ndarray, "k m ty tx"]
    left: Int16[np.ndarray, "k m ty tx"]
    down: Int16[np.ndarray, "k m ty tx"]
    across: Int16[np.ndarray, "k m ty tx"]
    size: Int16[np.ndarray, "k m ty tx"]
    mirrored: Bool[np.ndarray, "k m ty tx"]


def write_regions(path: Path, regions: Regions) -> None:
    """Write a run folder's `regions.npz`."""
    with written(path) as file:
        np.savez_compressed(file, **asdict(regions))


def read_regions(path: Path) -> Regions | None:
    """The regions of a run folder; None if it has none."""
    if not path.exists():
        return None
    names = [field.name for field in fields(Regions)]
    columns = arrays(path, names)
    if missing := [name for name in names if name not in columns]:
        raise DataError(
            f"{path} lacks `{missing[0]}`: an earlier version wrote it, or it is damaged. Make the run "
            "again.",
            hint="Use --force.",
        )
    for name in names:
        column, axes = columns[name], AXES.get(name, 4)
        if column.dtype.kind not in KINDS.get(name, "iu") or column.ndim != axes:
            raise _damaged(path, name, column)
    (k, m), tiles = columns["images"].shape, columns["others"].shape[1:]
    shapes = {
        "queries": (k,),
        "sides": (2,),
        "images": (k, m),
        "others": (k, *tiles),
        "there": (k, m, *columns["there"].shape[2:]),
    }
    for name in names:
        if columns[name].shape != shapes.get(name, (k, m, *tiles)):
            raise _damaged(path, name, columns[name])
    return Regions(**columns)


def _damaged(path: Path, name: str, column: np.ndarray) -> DataError:
    return DataError(
        f"`{name}` in {path} is {column.dtype} {list(column.shape)}, which does not fit the rest. Make the "
        "run again.",
        hint="Use --force.",
    )
