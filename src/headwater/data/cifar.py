"""CIFAR-10 (Krizhevsky 2009: 32×32 RGB, 50,000 + 10,000) and CIFAR-2, its automobiles and horses.

Read from `$HEADWATER_DATA/cifar10_jpeg.npz` where that exists, else from the hub. The two differ in order and, the file being
JPEG, in pixels: an id names a picture within one of them only, and published index lists apply to neither as they are.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from headwater import seeds
from headwater.archive import arrays
from headwater.core import Examples
from headwater.data.picture import opened, stacked
from headwater.errors import DataError, unknown

HUB_NAME = "uoft-cs/cifar10"
FILE = "cifar10_jpeg.npz"
CIFAR2 = ("automobile", "horse")


@dataclass(frozen=True)
class _Part:
    """The train or test part of CIFAR-10, whose images are decoded only when asked for."""

    name: str
    labels: Int64[np.ndarray, " n"]
    groups: Shaped[np.ndarray, " n"]
    decoded: Callable[[Int64[np.ndarray, " b"]], UInt8[np.ndarray, "b 32 32 3"]]

    def examples(self, rows: Int64[np.ndarray, " b"]) -> Examples:
        """The examples at `rows`; an id counts from the start of the part, in CIFAR-2 as in CIFAR-10."""
        ids = tuple(f"cifar10-{self.name}-{row:05d}" for row in rows)
        return Examples(self.decoded(rows), ids=ids, labels=self.labels[rows], groups=tuple(self.groups[rows].tolist()))


def cifar10(split: str = "train") -> Examples:
    """The 50,000 `train` or 10,000 `test` images, in the order of the file; groups are the class names."""
    if split not in ("train", "test"):
        raise unknown("split of cifar10", split, ("train", "test"))
    part = _part(split)
    return part.examples(np.arange(len(part.labels)))


def cifar2(split: str = "train") -> Examples:
    """Automobiles (label 0) and horses (label 1), as many of each, in an order shuffled once and for all.

    `train`: 5,000 of the 10,000 training images. `val`: 1,000 of the 2,000 test images. `test`: the other 1,000.
    The sizes are those of D-TRAK, arXiv:2311.00500; the draw is our own.
    """
    if split not in ("train", "val", "test"):
        raise unknown("split of cifar2", split, ("train", "val", "test"))
    part = _part("train" if split == "train" else "test")
    chosen = []
    for name in CIFAR2:
        rows = seeds.stream(0, "cifar2", part.name, name).permutation(np.flatnonzero(part.groups == name))
        half = len(rows) // 2
        chosen.append(rows[half:] if split == "test" else rows[:half])
    found = part.examples(seeds.stream(0, "cifar2", split, "order").permutation(np.concatenate(chosen)))
    labels = np.array([CIFAR2.index(group) for group in found.groups or ()], np.int64)
    return Examples(found.images, ids=found.ids, labels=labels, groups=found.groups)


def _part(name: str) -> _Part:
    folder = os.environ.get("HEADWATER_DATA")
    path = Path(folder).expanduser() / FILE if folder else None
    if path and path.exists():
        return _from_file(path, name)
    try:
        return _from_hub(name)
    except DataError as error:
        tried = f"HEADWATER_DATA is {folder}, which has no {FILE}" if folder else "HEADWATER_DATA is not set"
        raise DataError(
            f"CIFAR-10 is not at hand. {tried}: name a folder that has {FILE}. From the hub it did not come either: {error}"
        ) from error


def _from_file(path: Path, name: str) -> _Part:
    """`data` holds the JPEG bytes of all images, image i at `offset[i]:offset[i + 1]`; `is_test` tells the parts apart."""
    names = ("data", "offset", "label", "is_test", "classes")
    have = arrays(path, names)
    if len(have) < len(names):
        missing = ", ".join(name for name in names if name not in have)
        raise DataError(f"{path} has no {missing}; expected {', '.join(names)}. Fetch the file anew.")
    data, offset = have["data"], have["offset"]
    places = np.flatnonzero(have["is_test"].astype(bool) == (name == "test"))

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 32 32 3"]:
        spans = ((i, io.BytesIO(data[offset[i] : offset[i + 1]].tobytes())) for i in places[rows])
        return stacked(((f"image {i}", opened(span, f"image {i} of {path}")) for i, span in spans), len(rows))

    labels = have["label"][places].astype(np.int64)
    return _Part(name, labels, have["classes"][labels], decoded)


def _from_hub(name: str) -> _Part:
    from headwater.data.hub import from_hub

    found = from_hub(HUB_NAME, name)
    if found.labels is None or found.groups is None:
        raise DataError(f"hf:{HUB_NAME} has no labels; expected CIFAR-10's ten classes.")
    return _Part(name, found.labels, np.array(found.groups), lambda rows: found.images[rows])
