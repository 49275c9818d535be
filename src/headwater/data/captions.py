"""Captions, groups and labels of a folder's images, from tables of metadata or text files beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from headwater.data.tables import TABLES, TableRow, of_images, quoted, rows_of, short
from headwater.errors import DataError, Warn
from headwater.examples import are_numbers, labels_of, places
from headwater.words import Names, composed

CAPTION_COLUMNS = ("caption", "prompt", "text")
GROUP_COLUMNS = ("group", "label")
CAPTION_SUFFIXES = (".txt", ".caption")  # of kohya's trainers


class Metadata(NamedTuple):
    """The caption, group and label of each image, None without them; and the files that hold them."""

    prompts: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    labels: Int64[np.ndarray, " n"] | None = None
    files: frozenset[str] = frozenset()


def metadata_of(root: Path, files: Sequence[str], images: Mapping[str, str], warn: Warn) -> Metadata:
    """What the folder's `files` say of its `images` (id: file); all are paths relative to `root`.

    Tables of metadata come first. Where they have no captions, those are in text files beside the images.
    """
    tables = [file for name in TABLES for file in files if file.rpartition("/")[2] == name]
    metadata = _of_tables(root, tables, list(images), warn) if tables else Metadata()
    beside = _beside(root, files, images)
    if not beside:
        return metadata
    if metadata.prompts is not None:
        warn(
            f"{len(beside):,} captions beside the images ({_suffixes(beside.values())}) are not read: those "
            f"in {root / tables[0]} are."
        )
        return metadata._replace(files=metadata.files | {*beside.values()})
    prompts = _texts(root, beside, images, warn)
    return metadata._replace(prompts=prompts, files=metadata.files | {*beside.values()})


def _of_tables(root: Path, tables: Sequence[str], ids: Sequence[str], warn: Warn) -> Metadata:
    """Captions are in the first column of CAPTION_COLUMNS that any row has, groups in the first of
    GROUP_COLUMNS in words, labels in the first in whole numbers; other columns are not read."""
    rows = rows_of(root, tables)
    columns = _columns(root / tables[0], rows, warn)
    for row, column in ((row, column) for row in rows for column in columns.in_words()):
        _check_word(row, column)
    cells = [row.cells for row in of_images(root, tables, rows, ids)]
    caption, group, label, _ = columns
    prompts = None if caption is None else tuple(row[caption] for row in cells)
    groups = None if group is None else tuple(composed(_name(row.get(group))) for row in cells)
    labels = None if groups is None else places(groups)
    if label is not None:
        labels = labels_of([row.get(label) for row in cells], f"`{label}` in {root / tables[0]}")
    return Metadata(prompts, groups, labels, frozenset(tables))


class _Columns(NamedTuple):
    """The names of the columns that are read, and those of them that hold numbers."""

    caption: str | None
    group: str | None
    label: str | None
    numbers: Sequence[str]

    def in_words(self) -> list[str]:
        """The columns whose cells are texts."""
        return [name for name in (self.caption, self.group) if name and name not in self.numbers]


def _columns(path: Path, rows: Sequence[TableRow], warn: Warn) -> _Columns:
    """The columns to read. A `group` of numbers names groups, and is a label too where `label` is none."""
    names = dict.fromkeys(name for row in rows for name in row.cells)
    caption = next((name for name in CAPTION_COLUMNS if name in names), None)
    columns = {name: [row.cells.get(name) for row in rows] for name in GROUP_COLUMNS if name in names}
    numbers = [name for name, column in columns.items() if are_numbers(column)]
    words = [name for name, column in columns.items() if any(isinstance(cell, str) for cell in column)]
    group = next((name for name in words if name not in numbers), None)
    group = "group" if "group" in numbers else group
    label = "label" if "label" in numbers else next(iter(numbers), None)
    if not (caption or group or label):
        listed = short(", ".join(f"`{name}`" for name in names)) if names else "none"
        raise DataError(
            f"{path} has no captions: its columns are {listed}; expected "
            f"{' or '.join(f'`{name}`' for name in CAPTION_COLUMNS)} (or groups and labels: "
            f"{' or '.join(f'`{name}`' for name in GROUP_COLUMNS)}). Rename the column, or remove the file."
        )
    for name in columns.keys() - {group, label}:
        reason = f"`{group}` names the groups" if group else "it holds neither words nor numbers"
        warn(f"The column `{name}` of {path} is not read: {reason}.")
    return _Columns(caption, group, label, numbers)


def _check_word(row: TableRow, column: str) -> None:
    cell, kind = row.cells.get(column), "group" if column in GROUP_COLUMNS else "caption"
    if not isinstance(cell, str) or not _writable(cell):
        raise DataError(
            f'{row.place}, has {quoted(row.cells, column)}; expected text. Write one, or "" for an image '
            f"without a {kind}."
        )


def _name(cell: Any) -> str:
    """A group's name: a whole number is a name without its point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell)


def _beside(root: Path, files: Sequence[str], images: Mapping[str, str]) -> dict[str, str]:
    """The text file of each image that has one, by the image's id: `1.txt` or `1.caption` for `1.png`."""
    stems = {name: image.rpartition(".")[0] for name, image in images.items()}
    names, texts = Names(stems.values()), dict[str, str]()
    for file in (file for file in files if file.lower().endswith(CAPTION_SUFFIXES)):
        stem = names.find(file.rpartition(".")[0])
        if stem in texts:
            raise DataError(
                f"{root / texts[stem]} and {root / file} are both captions of one image; expected one of "
                "them. Move the files of one suffix elsewhere."
            )
        if stem is not None:
            texts[stem] = file
    return {name: texts[stem] for name, stem in stems.items() if stem in texts}


def _texts(root: Path, beside: Mapping[str, str], images: Mapping[str, str], warn: Warn) -> tuple[str, ...]:
    """The first line of each image's text file, as kohya's trainers read it; "" without a file."""
    texts = {name: _text(root / file) for name, file in beside.items()}
    several = [name for name, text in texts.items() if "\n" in text]
    if several:
        warn(
            f"Of {len(several):,} captions beside the images, the first {beside[several[0]]}, only the first "
            "line is read, as by kohya's trainers."
        )
    bare = [name for name in images if name not in texts]
    if bare:
        warn(
            f"{len(bare):,} of the {len(images):,} images, the first {bare[0]}, have no caption beside them "
            f"({_suffixes(beside.values())}): their prompt is empty."
        )
    return tuple(texts.get(name, "").partition("\n")[0].strip() for name in images)


def _text(path: Path) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8-sig").strip().splitlines())
    except OSError as error:
        raise DataError(
            f"Could not open {path}: {error.strerror}. Expected the caption of an image."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error}). Save the caption as UTF-8.") from error


def _suffixes(files: Any) -> str:
    return ", ".join(sorted({Path(file).suffix for file in files}))


def _writable(text: str) -> bool:
    """Whether the text can be printed and saved: JSON can spell half a surrogate pair, which cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
