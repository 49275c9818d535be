"""CelebA (Liu et al. 2015): photographs of faces, their central 140×140 scaled to 64×64, as in D-TRAK.

Read from `$HEADWATER_DATA/celeba/img_align_celeba` (178×218 JPEG), with female = 0 and male = 1 from
`list_attr_celeba.txt` beside it if present; else from the hub, in another order. CelebA's official parts are
ranges of its file numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from headwater import seeds
from headwater.data.decode import opened, stacked
from headwater.data.root import local, remedy
from headwater.data.splits import LazySplit
from headwater.errors import DataError, unknown
from headwater.examples import Examples

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER, ATTRIBUTES = "celeba/img_align_celeba", "celeba/list_attr_celeba.txt"
HUB_NAME = "flwrlabs/celeba"
# list_eval_partition.txt
PARTS = {
    "train": range(1, 162_771),
    "val": range(162_771, 182_638),
    "all": range(1, 202_600),
}
HUB_PARTS = {"train": "train", "val": "valid", "all": "train+valid+test"}
COUNTS = {"train": 5_000, "val": 1_000}
GROUPS = ("female", "male")
WIDTH, HEIGHT, CROP, SIZE = 178, 218, 140, 64


def celeba(split: str = "train", *, resize: int | None = None) -> Examples:
    """`train`: 5,000 images of CelebA's training part; `val`: 1,000 of its validation part; `all`: 202,599.

    Sizes and crop follow D-TRAK, arXiv:2311.00500 (whose code takes `val` from the validation part, though
    the paper says test); the draw is our own. `resize` replaces 64 as the side of the scaled crop (bilinear,
    antialiased).
    """
    if split not in PARTS:
        raise unknown("split of celeba", split, PARTS)
    size = resize or SIZE
    root = local(FOLDER)
    part = _from_folder(root, split, size) if root else _from_hub(split, size)
    rows = np.arange(len(part.ids))
    if split in COUNTS:
        rows = seeds.generator(0, "celeba", split).permutation(rows)[: COUNTS[split]]
    return part.examples(rows, GROUPS)


@dataclass(frozen=True)
class _FolderFaces:
    """Faces from JPEG files, decoded by row."""

    root: Path
    split: str
    files: list[str]
    size: int

    def decoded(self, rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        """The faces at `rows`; a DataError where the copy lacks one."""
        files = [self.files[row] for row in rows]
        present = {path.name for path in self.root.iterdir()}
        missing = [file for file in files if file not in present]
        if missing:
            raise DataError(
                f"{self.root} lacks {len(missing)} of the {len(files)} images of celeba:{self.split} (e.g. "
                f"{missing[0]}); expected all of 000001.jpg to 202599.jpg. Unpack img_align_celeba.zip "
                "again."
            )
        return stacked(
            ((file, _face(opened(self.root / file, file), file, self.size)) for file in files), len(rows)
        )


@dataclass(frozen=True)
class _HubFaces:
    """Faces from the hub's table, decoded by row."""

    table: "Dataset"
    size: int

    def decoded(self, rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        """The faces at `rows`."""
        return stacked(self._faces(rows), len(rows))

    def _faces(self, rows: Int64[np.ndarray, " b"]) -> Iterator[tuple[str, Image.Image]]:
        from headwater.data.hub import picture_of

        for row in rows.tolist():
            yield (
                f"row {row}",
                _face(picture_of(self.table, row, "image"), f"row {row} of hf:{HUB_NAME}", self.size),
            )


def _from_folder(root: Path, split: str, size: int) -> LazySplit:
    """Every number of the part, present or not: the draw does not depend on what a copy lacks."""
    files = [f"{number:06d}.jpg" for number in PARTS[split]]
    attributes = local(ATTRIBUTES)
    groups = _groups(attributes, files) if attributes else None
    return LazySplit(files, groups, _FolderFaces(root, split, files, size).decoded)


def _from_hub(split: str, size: int) -> LazySplit:
    try:
        from headwater.data.hub import opened_table

        table = opened_table(HUB_NAME, HUB_PARTS[split]).select_columns(["image", "Male"])
        male = np.array(table["Male"], np.int64)
    except (DataError, ValueError) as error:
        raise DataError(
            f"CelebA was not found. {remedy(FOLDER)} Nor could the hub be read: {error}"
        ) from error
    ids = [f"celeba-{split}-{row:06d}" for row in range(len(male))]
    return LazySplit(ids, np.array(GROUPS)[male], _HubFaces(table.select_columns(["image"]), size).decoded)


def _face(image: Image.Image, name: str, size: int) -> Image.Image:
    """The central 140×140, scaled to `size`. The crop fits only CelebA's aligned faces."""
    if image.size != (WIDTH, HEIGHT):
        raise DataError(
            f"{name} is {image.width}×{image.height}; expected {WIDTH}×{HEIGHT}, CelebA's aligned and "
            "cropped images. Open a folder of other faces by its path."
        )
    x, y = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
    return image.crop((x, y, x + CROP, y + CROP)).resize((size, size), Image.Resampling.BILINEAR)


def _groups(path: Path, files: list[str]) -> np.ndarray:
    """Female or male for each file. The list: a count, the attributes' names, a line of 1 and -1 a file."""
    try:
        _, names, *lines = path.read_text().splitlines()
        column = names.split().index("Male") + 1
        values = {words[0]: int(words[column]) for words in map(str.split, lines) if words}
        return np.array([GROUPS[values[file] == 1] for file in files])
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"Could not read {path} ({type(error).__name__}: {error}); expected CelebA's list of "
            "attributes, with the column Male and a line for each image. Download it again, or remove it "
            "to go without labels."
        ) from error
