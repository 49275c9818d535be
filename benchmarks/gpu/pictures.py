"""CIFAR-2 as it travels: a picture's JPEG, a tenth of its pixels, and a fingerprint of what it must be opened
as."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from headwater.data.root import local
from headwater.disk.npz import arrays, read_examples
from headwater.errors import DataError
from headwater.examples import Examples

FILE = "cifar10_jpeg.npz"
NAMES = ("jpeg", "offset", "labels", "ids", "groups", "fingerprint")


def pack(path: Path, examples: Examples) -> None:
    """Write these pictures of CIFAR-10 by the bytes that they are in `$HEADWATER_DATA/cifar10_jpeg.npz`."""
    source = local(FILE)
    if source is None:
        raise DataError(
            f"There is no {FILE} in $HEADWATER_DATA; expected the file that docs/data.md describes."
        )
    with np.load(source, allow_pickle=False) as file:
        data, offset, is_test = (file[name] for name in ("data", "offset", "is_test"))
    spans = []
    for name in examples.ids:
        _, part, number = name.split("-")
        i = np.flatnonzero(is_test.astype(bool) == (part == "test"))[int(number)]
        spans.append(data[offset[i] : offset[i + 1]])
    edges = np.cumsum([0, *map(len, spans)])
    columns = {"labels": examples.labels, "ids": np.array(examples.ids), "groups": np.array(examples.groups)}
    np.savez_compressed(
        path, jpeg=np.concatenate(spans), offset=edges, fingerprint=examples.fingerprint, **columns
    )


def unpacked(path: Path) -> Examples:
    """The pictures in a file of `pack`, or in one of pixels. A DataError where a picture is opened as another
    than it was."""
    have = arrays(path, NAMES)
    if "jpeg" not in have:
        return read_examples(path)
    jpeg, edges = have["jpeg"], have["offset"]
    spans = (jpeg[low:high].tobytes() for low, high in pairwise(edges.tolist()))
    images = np.stack([np.asarray(Image.open(io.BytesIO(span)).convert("RGB")) for span in spans])
    names, groups = (tuple(map(str, have[column])) for column in ("ids", "groups"))
    examples = Examples(images, ids=names, labels=have["labels"].astype(np.int64), groups=groups)
    if examples.fingerprint != str(have["fingerprint"]):
        raise DataError(
            f"The pictures in {path} have the fingerprint {examples.fingerprint}; expected "
            f"{have['fingerprint']}. This machine opens JPEG files otherwise than the one that packed them: "
            "pack pixels, with `pack.py --pixels`."
        )
    return examples
