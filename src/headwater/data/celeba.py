"""CelebA (Liu et al. 2015): photographs of faces, cropped to their central 140×140 and brought to 64×64, as D-TRAK has them.

Read from `$HEADWATER_DATA/celeba/img_align_celeba` (178×218 JPEG), with female = 0 and male = 1 from `list_attr_celeba.txt`
beside it where that exists; else from the hub, in another order. CelebA's official parts are stretches of its file numbers.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from headwater import seeds
from headwater.data.decode import opened, stacked
from headwater.data.root import local, wanted
from headwater.data.splits import Part
from headwater.errors import DataError, unknown
from headwater.examples import Examples

FOLDER, ATTRIBUTES = "celeba/img_align_celeba", "celeba/list_attr_celeba.txt"
HUB_NAME = "flwrlabs/celeba"
PARTS = {"train": range(1, 162_771), "val": range(162_771, 182_638), "all": range(1, 202_600)}  # list_eval_partition.txt
HUB_PARTS = {"train": "train", "val": "valid", "all": "train+valid+test"}
COUNTS = {"train": 5_000, "val": 1_000}
GROUPS = ("female", "male")
WIDTH, HEIGHT, CROP, SIZE = 178, 218, 140, 64


def celeba(split: str = "train", *, resize: int | None = None) -> Examples:
    """`train`: 5,000 images of CelebA's training part; `val`: 1,000 of its validation part; `all`: 202,599, in their order.

    Sizes and crop are those of D-TRAK, arXiv:2311.00500 (whose code takes `val` from the validation part, though the paper says
    test); the draw is our own. `resize` replaces 64 as the side that the crop is brought to (bilinear, antialiased).
    """
    if split not in PARTS:
        raise unknown("split of celeba", split, PARTS)
    size = resize or SIZE
    root = local(FOLDER)
    part = _from_folder(root, split, size) if root else _from_hub(split, size)
    rows = np.arange(len(part.ids))
    if split in COUNTS:
        rows = seeds.stream(0, "celeba", split).permutation(rows)[: COUNTS[split]]
    return part.examples(rows, GROUPS)


def _from_folder(root: Path, split: str, size: int) -> Part:
    """Every number of the part, whether or not its file is there: the draw does not depend on what a copy lacks."""
    files = [f"{number:06d}.jpg" for number in PARTS[split]]
    attributes = local(ATTRIBUTES)
    groups = _groups(attributes, files) if attributes else None

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        chosen = [files[row] for row in rows]
        there = {path.name for path in root.iterdir()}
        missing = [file for file in chosen if file not in there]
        if missing:
            raise DataError(
                f"{root} lacks {len(missing)} of the {len(chosen)} images of celeba:{split} (e.g. {missing[0]}); expected all of "
                "000001.jpg to 202599.jpg. Unpack img_align_celeba.zip anew."
            )
        return stacked(((file, _face(opened(root / file, file), file, size)) for file in chosen), len(rows))

    return Part(files, groups, decoded)


def _from_hub(split: str, size: int) -> Part:
    try:
        from headwater.data.hub import opened_table, picture_of

        table = opened_table(HUB_NAME, HUB_PARTS[split]).select_columns(["image", "Male"])
        male = np.array(table["Male"], np.int64)
    except (DataError, ValueError) as error:
        raise DataError(f"CelebA is not at hand. {wanted(FOLDER)} From the hub it did not come either: {error}") from error

    def decoded(rows: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        images = table.select_columns(["image"])

        def faces() -> Iterator[tuple[str, Image.Image]]:
            for row in rows.tolist():
                yield f"row {row}", _face(picture_of(images, row, "image"), f"row {row} of hf:{HUB_NAME}", size)

        return stacked(faces(), len(rows))

    return Part([f"celeba-{split}-{row:06d}" for row in range(len(male))], np.array(GROUPS)[male], decoded)


def _face(image: Image.Image, name: str, size: int) -> Image.Image:
    """The central 140×140, brought to `size`. Faces are aligned, so that any other picture would be cropped wrongly."""
    if image.size != (WIDTH, HEIGHT):
        raise DataError(
            f"{name} is {image.width}×{image.height}; expected {WIDTH}×{HEIGHT}, CelebA's aligned and cropped images. "
            "Open a folder of other faces by its path."
        )
    left, top = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
    return image.crop((left, top, left + CROP, top + CROP)).resize((size, size), Image.Resampling.BILINEAR)


def _groups(path: Path, files: list[str]) -> np.ndarray:
    """Female or male for each file: a count, the names of the attributes, then a line of 1 and -1 for each file."""
    try:
        _, names, *lines = path.read_text().splitlines()
        column = names.split().index("Male") + 1
        values = {words[0]: int(words[column]) for words in map(str.split, lines) if words}
        return np.array([GROUPS[values[file] == 1] for file in files])
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"Could not read {path} ({type(error).__name__}: {error}); expected CelebA's list of attributes, with the column Male "
            "and a line for each image. Fetch it anew, or remove it to go without labels."
        ) from error
