"""CIFAR-10 (Krizhevsky 2009: 32×32 RGB, 50,000 + 10,000) and CIFAR-2, its automobiles and horses.

Read from `$HEADWATER_DATA/cifar10_jpeg.npz` if present, else from the original Python batches in
`$HEADWATER_DATA/cifar-10-batches-py`, else from the hub. The three differ in order and, the first being JPEG,
in pixels: an id names a picture within one of them only. Published index lists count the Python batches.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.data.cifar_batches import from_batches
from headwater.data.decode import opened, stacked
from headwater.data.root import local, remedy
from headwater.data.splits import DataSet, LazySplit
from headwater.disk.npz import arrays
from headwater.errors import DataError
from headwater.examples import Examples

HUB_NAME = "uoft-cs/cifar10"
FILE, BATCHES = "cifar10_jpeg.npz", "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10 = DataSet(
    "cifar10", CLASSES, {"train": ("train", None), "val": ("test", (0, 0.1)), "test": ("test", None)}
)
CIFAR2 = DataSet(
    "cifar2",
    ("automobile", "horse"),
    {"train": ("train", (0, 0.5)), "val": ("test", (0, 0.5)), "test": ("test", (0.5, 1))},
)


def cifar10(split: str = "train") -> Examples:
    """The 50,000 `train` or 10,000 `test` images in order; `val`: 100 test images a class, shuffled."""
    return CIFAR10.examples(split, _part)


def cifar2(split: str = "train") -> Examples:
    """Automobiles (label 0) and horses (label 1), equally many of each, in a fixed shuffled order.

    `train`: 5,000 of the 10,000 training images. `val`: 1,000 of the 2,000 test images; `test`: the rest.
    The sizes follow D-TRAK, arXiv:2311.00500; the draw is our own.
    """
    return CIFAR2.examples(split, _part)


def _part(name: str) -> LazySplit:
    """The train or test part; an id counts from its start, in CIFAR-2 as in CIFAR-10."""
    if path := local(FILE):
        return _from_file(path, name)
    if path := local(BATCHES):
        return from_batches(path, name, "cifar10", meta="batches.meta", key="label_names")
    try:
        return _from_hub(name)
    except DataError as error:
        raise DataError(
            f"CIFAR-10 was not found. {remedy(FILE, BATCHES)} Nor could the hub be read: {error}"
        ) from error


def _from_file(path: Path, name: str) -> LazySplit:
    """`data` holds the JPEG bytes, of image i at `offset[i]:offset[i + 1]`; `is_test` separates the parts."""
    names = ("data", "offset", "label", "is_test", "classes")
    have = arrays(path, names)
    if len(have) < len(names):
        missing = ", ".join(name for name in names if name not in have)
        raise DataError(f"{path} has no {missing}; expected {', '.join(names)}. Download the file again.")
    data, offset = have["data"], have["offset"]
    places = np.flatnonzero(have["is_test"].astype(bool) == (name == "test"))

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 32 32 3"]:
        spans = ((i, io.BytesIO(data[offset[i] : offset[i + 1]].tobytes())) for i in places[rows])
        return stacked(((f"image {i}", opened(span, f"image {i} of {path}")) for i, span in spans), len(rows))

    return LazySplit(
        _ids(name, len(places)), have["classes"][have["label"][places].astype(np.int64)], decoded
    )


def _from_hub(name: str) -> LazySplit:
    from headwater.data.hub import from_hub

    examples = from_hub(HUB_NAME, name)
    if examples.groups is None:
        raise DataError(f"hf:{HUB_NAME} has no labels; expected CIFAR-10's ten classes.")
    return LazySplit(_ids(name, len(examples)), np.array(examples.groups), lambda rows: examples.images[rows])


def _ids(name: str, n: int) -> list[str]:
    return [f"cifar10-{name}-{row:05d}" for row in range(n)]
