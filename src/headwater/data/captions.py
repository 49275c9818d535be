"""Captions and groups from a folder's `metadata.jsonl` or `metadata.csv`, as in the hub's image folders."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from headwater.errors import DataError

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("caption", "prompt", "text")
GROUP_COLUMNS = ("group", "label")
LINE = '{"file_name": "a.png", "text": "a red car"}'


class Metadata(NamedTuple):
    """The caption and the group of each image; None without such a column."""

    prompts: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


def captions_of(root: Path, ids: Sequence[str]) -> Metadata:
    """The caption and group of each image by the folder's metadata; `ids` are paths relative to `root`.

    Each line is a JSON object, or a row under the CSV file's header: an image's `file_name`, relative to the
    folder, its caption under the first name of CAPTION_COLUMNS that any line has, its group under the first
    of GROUP_COLUMNS that has words. Other names are not read. Every image needs one line, every line an
    image.
    """
    # a broken link is an error
    files = [root / name for name in METADATA_FILES if os.path.lexists(root / name)]
    if not files:
        return Metadata()
    if len(files) > 1:
        raise DataError(
            f"The folder {root} has both {' and '.join(METADATA_FILES)}; expected one of them. Remove the "
            "other."
        )
    path = files[0]
    lines = _lines(path)
    columns = _columns(path, lines)
    numbers = _numbers(path, lines)
    words = {
        column: {file: _word(path, number, lines[number], column) for file, number in numbers.items()}
        for column in columns
        if column
    }
    _check_same(path, list(numbers), ids)
    prompts, groups = (tuple(words[column][name] for name in ids) if column else None for column in columns)
    return Metadata(prompts, groups)


def _lines(path: Path) -> dict[int, dict[str, Any]]:
    """The object on each line, by the line's number; blank lines are skipped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                rows = csv.DictReader(file, strict=True)
                return dict((rows.line_num, row) for row in rows)  # noqa: C402 - the key moves on with each row
            return {
                number: _object(path, number, text.strip())
                for number, text in enumerate(file, 1)
                if text.strip()
            }
    except OSError as error:
        raise DataError(
            f"Could not open {path}: {error.strerror}. Expected a file with a line for each image."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8 ({error}). Save it as UTF-8, with a line for each image."
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path} is not a CSV file ({error}). Save it with commas between columns and their names in the "
            "first row."
        ) from error


def _object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}, is not JSON ({error}): {_short(text)}. Expected an object on one line, "
            f"such as {LINE}."
        ) from error
    if not isinstance(line, dict):
        raise DataError(f"{path}, line {number}, is {_short(text)}; expected a JSON object such as {LINE}.")
    return line


def _columns(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """The columns of captions and of groups in this file. A column of numbers only does not hold groups."""
    names = dict.fromkeys(name for line in lines.values() for name in line)
    worded = {name for line in lines.values() for name, word in line.items() if isinstance(word, str)}
    column = next((name for name in CAPTION_COLUMNS if name in names), None)
    groups = next((name for name in GROUP_COLUMNS if name in worded), None)
    if column is None and groups is None:
        listed = _short(", ".join(f"`{name}`" for name in names)) if names else "none"
        raise DataError(
            f"{path} has no captions: its columns are {listed}; expected "
            f"{' or '.join(f'`{name}`' for name in CAPTION_COLUMNS)} (or groups: "
            f"{' or '.join(f'`{name}`' for name in GROUP_COLUMNS)}, in words). Rename the column, or remove "
            "the file."
        )
    return column, groups


def _numbers(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """The number of each file's line."""
    numbers: dict[str, int] = {}
    for number, line in lines.items():
        name = line.get("file_name")
        if not isinstance(name, str):
            raise DataError(
                f"{path}, line {number}, has {_quoted(line, 'file_name')}; expected the path of an image "
                f"relative to {path.parent}."
            )
        file = PurePosixPath(name).as_posix()
        if file in numbers:
            raise DataError(
                f"{path}, line {number}, is a second line for {file}; expected one for each image. Keep one "
                "of them."
            )
        numbers[file] = number
    return numbers


def _word(path: Path, number: int, line: Mapping[str, Any], column: str) -> str:
    text = line.get(column)
    if not isinstance(text, str) or not _writable(text):
        kind = "group" if column in GROUP_COLUMNS else "caption"
        raise DataError(
            f'{path}, line {number}, has {_quoted(line, column)}; expected text. Write one, or "" for an '
            f"image without a {kind}."
        )
    return text


def _check_same(path: Path, files: Sequence[str], ids: Sequence[str]) -> None:
    """Raise a DataError unless the lines name exactly the images."""
    named, images = set(files), set(ids)
    bare = [name for name in ids if name not in named]
    if bare:
        raise DataError(
            f"{path} has no line for {len(bare):,} of the {len(ids):,} images, the first {_short(bare[0])}; "
            "expected one for each. Add "
            f"{json.dumps({'file_name': _short(bare[0]), 'text': '…'}, ensure_ascii=False)}, or remove the "
            "image."
        )
    strays = [name for name in files if name not in images]
    if strays:
        raise DataError(
            f"{path} has lines for {len(strays):,} images that are not in the folder, the first "
            f"{_short(strays[0])}; expected paths relative to {path.parent}. Add the images, or remove "
            "their lines."
        )


def _writable(text: str) -> bool:
    """Whether the text can be printed and saved: JSON can spell half a surrogate pair, which cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _quoted(line: Mapping[str, Any], column: str) -> str:
    return f"the `{column}` {_short(json.dumps(line[column]))}" if column in line else f"no `{column}`"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
