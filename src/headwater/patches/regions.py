"""Where in a picture which training image counts, and from where in it: what a report draws of a method that compares patches."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from headwater.disk.files import written
from headwater.disk.npz import arrays
from headwater.errors import DataError

KINDS = {"here": "f", "others": "f", "there": "f", "mirrored": "b"}  # of numbers; all others are whole
AXES = {"queries": 1, "sides": 1, "images": 2, "others": 3}  # all others have four


@dataclass(frozen=True, eq=False)
class Regions:
    """Of k queries the m training images that explain most of them or of a part of them, the strongest first.

    `here`: how much of each tile of the query an image explains, 1 at most over all images; `others`: how much of it any other
    training image explains at most; `there`: what an image's own parts explain, in pixels of the query. For each tile the patch of
    the query that an image explains best: where it begins (`top`, `left`: below 0 where it reaches over the edge), its `size` in
    pixels, how far `down` and `across` its match lies from there, and whether in the `mirrored` image. `sides` are height and width
    of what is compared: where they are the picture's latents, all that is said of pixels here is of these.
    """

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
        raise DataError(
            f"{path} lacks `{missing[0]}`: an earlier version wrote it, or it is damaged. Make the run again with --force."
        )
    for name in names:
        column, axes = have[name], AXES.get(name, 4)
        if column.dtype.kind not in KINDS.get(name, "iu") or column.ndim != axes:
            raise _damaged(path, name, column)
    (k, m), tiles = have["images"].shape, have["others"].shape[1:]
    shapes = {"queries": (k,), "sides": (2,), "images": (k, m), "others": (k, *tiles), "there": (k, m, *have["there"].shape[2:])}
    for name in names:
        if have[name].shape != shapes.get(name, (k, m, *tiles)):
            raise _damaged(path, name, have[name])
    return Regions(**have)


def _damaged(path: Path, name: str, column: np.ndarray) -> DataError:
    return DataError(
        f"`{name}` in {path} is {column.dtype} {list(column.shape)}, which does not fit the rest. Make the run again with --force."
    )
