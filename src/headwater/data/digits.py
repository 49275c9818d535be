"""scikit-learn's bundled digits: 1,797 grey 8×8 pictures, no download. 1,000 to train on, 100 held out."""

from pathlib import Path

import numpy as np

from headwater import seeds
from headwater.errors import unknown
from headwater.examples import Examples

SPLITS = {"train": slice(0, 1000), "val": slice(1000, 1100), "rest": slice(1100, None), "all": slice(0, None)}


def digits(split: str = "train") -> Examples:
    """The named split, in a fixed shuffled order; the id of a digit is its place in scikit-learn's file."""
    import sklearn

    if split not in SPLITS:
        raise unknown("split of digits", split, SPLITS)
    path = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    rows = seeds.generator(0, "digits").permutation(len(table))[SPLITS[split]]
    images = np.rint(table[rows, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Examples(images, ids=tuple(f"digit-{row:04d}" for row in rows), labels=table[rows, -1])
