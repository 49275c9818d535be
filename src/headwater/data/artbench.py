"""ArtBench-10 (Liao et al. 2022, arXiv:2206.11404): ten styles of paintings, 5,000 + 1,000 each; and subsets.

Read from `$HEADWATER_DATA/artbench-10-imagefolder-split` (256×256 JPEG), or, for a name that ends in `-32`,
from the 32×32 Python batches in `$HEADWATER_DATA/artbench-10-python/artbench-10-batches-py`. The two differ
in order, so their draws differ too.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.data.cifar_batches import from_batches
from headwater.data.decode import fitted, opened, stacked
from headwater.data.root import local, remedy
from headwater.data.splits import DataSet, LazySplit
from headwater.errors import DataError
from headwater.examples import Examples

FOLDER, BATCHES = "artbench-10-imagefolder-split", "artbench-10-python/artbench-10-batches-py"
# in D-TRAK's order, appendix A.1
PAPER = (
    "post_impressionism",
    "ukiyo_e",
    "romanticism",
    "renaissance",
    "baroque",
)
STYLES = tuple(sorted((*PAPER, "art_nouveau", "expressionism", "impressionism", "realism", "surrealism")))
HALF = (0, 0.5)
SETS = {
    "artbench2": DataSet(
        "artbench2", PAPER[:2], {"train": ("train", HALF), "val": ("test", HALF), "test": ("test", (0.5, 1))}
    ),
    "artbench5": DataSet(
        "artbench5", PAPER, {"train": ("train", HALF), "val": ("test", (0, 0.2)), "test": ("test", (0.2, 1))}
    ),
    "artbench10": DataSet(
        "artbench10", STYLES, {"train": ("train", None), "val": ("test", (0, 0.1)), "test": ("test", None)}
    ),
}


def artbench(name: str, split: str = "train", *, resize: int | None = None) -> Examples:
    """The split: equally many images of each style, each with the prompt "a {style} painting".

    `train`: 5,000 of artbench2's 10,000 training images, 12,500 of artbench5's 25,000, all 50,000 of
    artbench10. `val`: 1,000 test images. `test`: the other test images; all 10,000 of artbench10. Sizes and
    prompts follow D-TRAK, arXiv:2311.00500; the draw is our own. `resize` applies to each picture as it is
    read: 50,000 of 256×256 are 9.2 GiB.
    """
    base, small, _ = name.partition("-")
    examples = SETS[base].examples(split, _from_batches if small else partial(_from_folder, resize=resize))
    return replace(
        examples, prompts=tuple(f"a {group.replace('_', ' ')} painting" for group in examples.groups or ())
    )


def _from_batches(part: str) -> LazySplit:
    path = local(BATCHES)
    if path is None:
        raise DataError(f"ArtBench-10 at 32×32 was not found. {remedy(BATCHES)}")
    return from_batches(path, part, "artbench10", meta="meta", key="styles")


def _from_folder(part: str, *, resize: int | None) -> LazySplit:
    """The images below train/ or test/, style by style in the order of their names; an id is style/name."""
    root = local(f"{FOLDER}/{part}")
    if root is None:
        raise DataError(f"ArtBench-10 was not found. {remedy(f'{FOLDER}/{part}')}")
    files = [f"{style}/{file}" for style in STYLES for file in _files(root / style)]

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b h w c"]:
        names = (files[row] for row in rows)
        return stacked(
            ((file, fitted(opened(root / file, str(root / file)), resize)) for file in names), len(rows)
        )

    return LazySplit(files, np.array([file.partition("/")[0] for file in files]), decoded)


def _files(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.glob("[!.]*.jpg"))
    if not names:
        raise DataError(
            f"There are no images in {folder}; expected ArtBench-10's ten styles as .jpg. Unpack the archive "
            "again."
        )
    return names
