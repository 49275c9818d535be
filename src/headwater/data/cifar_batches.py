"""Python batches, the format of CIFAR-10 and ArtBench-10: 32×32 RGB, a row of 3,072 bytes an image."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.data.arrays_only_pickle import unpickled
from headwater.data.splits import LazySplit
from headwater.errors import DataError

BATCH_FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}


def from_batches(folder: Path, name: str, source: str, *, meta: str, key: str) -> LazySplit:
    """The train or test part in the files' order; `key` of the file `meta` lists the names of the classes."""
    classes = _classes(folder / meta, key)
    batches = [_batch(folder / file, len(classes)) for file in BATCH_FILES[name]]
    pixels, labels = (np.concatenate(column) for column in zip(*batches, strict=True))

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 32 32 3"]:
        return np.ascontiguousarray(pixels[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    ids = [f"{source}-{name}-{row:05d}" for row in range(len(labels))]
    return LazySplit(ids, np.array(classes)[labels], decoded)


def _classes(path: Path, key: str) -> list[str]:
    names = unpickled(path).get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"`{key}` in {path} is not a list of words; expected the names of the classes. Download the file "
            "again."
        )
    return names


def _batch(path: Path, classes: int) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, " n"]]:
    batch = unpickled(path)
    pixels, labels = batch.get("data"), batch.get("labels")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim != 2
        or pixels.shape[1] != 3072
    ):
        form = (
            f"{pixels.dtype} {list(pixels.shape)}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise DataError(f"`data` in {path} is {form}; expected uint8 [n, 3072], an image of 32×32 RGB a row.")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(label in range(classes) for label in labels)
    ):
        raise DataError(
            f"`labels` in {path} are not {len(pixels)} numbers from 0 to {classes - 1}; expected one for "
            "each image."
        )
    return pixels, np.array(labels, np.int64)
