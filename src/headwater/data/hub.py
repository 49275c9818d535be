"""A data set of the Hugging Face hub, or a folder the `datasets` library reads (parquet, imagefolder)."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headwater.data.captions import CAPTION_COLUMNS
from headwater.data.decode import eight_bit, first_line, fitted, stacked
from headwater.disk.files import check_hub_cache
from headwater.errors import DataError, UserError, Warn, to_warnings
from headwater.examples import Examples, are_numbers, labels_of, places

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = ("string", "large_string")


def from_hub(
    name: str, split: str = "train", *, resize: int | None = None, warn: Warn = to_warnings
) -> Examples:
    """One split of the data set `name`; a slice such as `train[:1000]` works too.

    Images are its one column of type Image. Labels are the column of type ClassLabel (of several, `label` or
    else the first), groups the names of its classes; else a column `label` of whole numbers, or of words,
    which are groups. A missing label is -1 and "". Prompts are the first text column called caption, prompt
    or text; `warn` hears of missing ones. Ids are positions in the split.
    """
    table = opened_table(name, split)
    kinds = {column: type(feature).__name__ for column, feature in table.features.items()}
    columns: dict[str, Any] = {}
    labels = sorted(
        (c for c, kind in kinds.items() if kind == "ClassLabel"), key=lambda column: column != "label"
    )
    if labels:
        classes = table.features[labels[0]].names
        values = [-1 if value is None else value for value in table[labels[0]]]
        columns["labels"] = np.array(values, np.int64)
        columns["groups"] = tuple(classes[value] if value >= 0 else "" for value in values)
    elif kinds.get("label") == "Value":
        columns |= _labels(table["label"], name)
    # of lists, none
    prompts = [
        column for column in CAPTION_COLUMNS if getattr(table.features.get(column), "dtype", None) in TEXT
    ]
    if prompts:
        texts = list(table[prompts[0]])
        columns["prompts"] = tuple(text or "" for text in texts)
        if None in texts:
            warn(
                f"{texts.count(None):,} of the {len(texts):,} captions of hf:{name} are missing: left empty."
            )
    return Examples(_images(table, name, _image_column(kinds, name), resize), **columns)


def _labels(values: Iterable[Any], name: str) -> dict[str, Any]:
    """The labels, and for words the groups, in a column that is no ClassLabel."""
    cells = list(values)
    if are_numbers(cells):
        return {"labels": labels_of(cells, f"`label` of hf:{name}")}
    if not all(cell is None or isinstance(cell, str) for cell in cells):
        return {}
    groups = tuple(cell or "" for cell in cells)
    return {"labels": places(groups), "groups": groups}


def opened_table(name: str, split: str) -> "Dataset":
    """The rows of one split; an image is decoded when its row is read."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"Opening hf:{name} needs the `datasets` library, which is not installed: pip install "
            "'headwater[hub]'."
        ) from error
    check_hub_cache()  # tables of a local folder are copied there too
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # every builder, file system and HTTP client of the library raises its own
        raise DataError(
            f"Could not open hf:{name}, split {split}: {first_line(error)}. Check the name, the split and "
            "the connection."
        ) from error
    if not len(table):
        raise DataError(f"hf:{name}, split {split}, has no rows; expected at least one image.")
    return table


def _image_column(kinds: dict[str, str], name: str) -> str:
    images = [column for column, kind in kinds.items() if kind == "Image"]
    if len(images) == 1:
        return images[0]
    listed = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
    raise DataError(
        f"hf:{name} has {len(images) or 'no'} columns of type Image; expected one. It has: {listed}. "
        "Save the images as a folder or an .npz file."
    )


def _images(table: "Dataset", name: str, column: str, resize: int | None) -> np.ndarray:
    table = table.select_columns([column])

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        for row in range(len(table)):
            yield f"row {row}", fitted(picture_of(table, row, column), resize)

    try:
        return stacked(pictures(), len(table))
    except UserError as error:
        raise DataError(f"hf:{name}: {error}", hint=error.hint) from error


def picture_of(table: "Dataset", row: int, column: str) -> Image.Image:
    """The picture in one cell, as 8-bit grey or RGB."""
    try:
        image = table[row][column]
    except Exception as error:  # Pillow's and the file system's errors for an image that cannot be decoded
        raise DataError(f"the image of row {row} cannot be read ({first_line(error)}).") from error
    if image is None:
        raise DataError(f"row {row} has no image; expected one in column {column}.")
    return eight_bit(image, f"row {row}")
