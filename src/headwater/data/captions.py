"""What a folder says of its images: a file `metadata.jsonl` or `metadata.csv` among them, as the hub's image folders have it."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from headwater.errors import DataError

FILES = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("caption", "prompt", "text")
GROUPS = ("group", "label")
LINE = '{"file_name": "a.png", "text": "a red car"}'


class Told(NamedTuple):
    """The caption and the group of each image; None where nothing is said of them."""

    prompts: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


def told(root: Path, ids: Sequence[str]) -> Told:
    """What the folder's metadata say of each image, in the order of `ids`, its path relative to `root`.

    Each line is a JSON object, or a row under the CSV file's names: an image's `file_name`, relative to the folder, its caption
    under the first name of COLUMNS that any line has, its group under the first of GROUPS that has words. Other names are not
    read. Every image needs one line, every line an image.
    """
    there = [root / name for name in FILES if os.path.lexists(root / name)]  # a link that leads nowhere is an error
    if not there:
        return Told()
    if len(there) > 1:
        raise DataError(f"The folder {root} has both {' and '.join(FILES)}; expected one of them. Remove the other.")
    path = there[0]
    lines = _lines(path)
    columns = _columns(path, lines)
    files = _files(path, lines)
    said = {
        column: {file: _word(path, number, lines[number], column) for file, number in files.items()} for column in columns if column
    }
    _check_same(path, list(files), ids)
    prompts, groups = (tuple(said[column][name] for name in ids) if column else None for column in columns)
    return Told(prompts, groups)


def _lines(path: Path) -> dict[int, dict[str, Any]]:
    """The object on each line, by the line's number; blank lines are passed over."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                rows = csv.DictReader(file, strict=True)
                return dict((rows.line_num, row) for row in rows)  # noqa: C402 - the key moves on with each row
            return {number: _object(path, number, text.strip()) for number, text in enumerate(file, 1) if text.strip()}
    except OSError as error:
        raise DataError(f"Could not open {path}: {error.strerror}. Expected a file with a line for each image.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}). Save it as UTF-8, with a line for each image.") from error
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error}). Save it with commas between columns, their names first.") from error


def _object(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}, is no JSON ({error}): {_short(text)}. Expected an object on one line, such as {LINE}."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path}, line {number}, is {_short(text)}; expected a JSON object such as {LINE}.")
    return found


def _columns(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """The names that captions and groups have in this file. A column of numbers alone is none of groups."""
    names = dict.fromkeys(name for line in lines.values() for name in line)
    worded = {name for line in lines.values() for name, word in line.items() if isinstance(word, str)}
    column = next((name for name in COLUMNS if name in names), None)
    groups = next((name for name in GROUPS if name in worded), None)
    if column is None and groups is None:
        seen = _short(", ".join(f"`{name}`" for name in names)) if names else "none"
        raise DataError(
            f"{path} has no captions: its columns are {seen}; expected {' or '.join(f'`{name}`' for name in COLUMNS)} (or groups: "
            f"{' or '.join(f'`{name}`' for name in GROUPS)}, in words). Call the column so, or remove the file."
        )
    return column, groups


def _files(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """The number of each file's line."""
    found: dict[str, int] = {}
    for number, line in lines.items():
        name = line.get("file_name")
        if not isinstance(name, str):
            raise DataError(
                f"{path}, line {number}, has {_seen(line, 'file_name')}; expected the path of an image relative to {path.parent}."
            )
        file = PurePosixPath(name).as_posix()
        if file in found:
            raise DataError(f"{path}, line {number}, is another line for {file}; expected one for each image. Keep one of them.")
        found[file] = number
    return found


def _word(path: Path, number: int, line: Mapping[str, Any], column: str) -> str:
    text = line.get(column)
    if not isinstance(text, str) or not _writable(text):
        what = "group" if column in GROUPS else "caption"
        raise DataError(
            f'{path}, line {number}, has {_seen(line, column)}; expected text. Write one, or "" for an image without a {what}.'
        )
    return text


def _check_same(path: Path, files: Sequence[str], ids: Sequence[str]) -> None:
    """Raise a DataError unless the lines' files and the images are the same."""
    have, images = set(files), set(ids)
    without = [name for name in ids if name not in have]
    if without:
        raise DataError(
            f"{path} has no line for {len(without):,} of the {len(ids):,} images, the first {_short(without[0])}; expected one for "
            f"each. Add {json.dumps({'file_name': _short(without[0]), 'text': '…'}, ensure_ascii=False)}, or remove the image."
        )
    nowhere = [name for name in files if name not in images]
    if nowhere:
        raise DataError(
            f"{path} has lines for {len(nowhere):,} images that are not in the folder, the first {_short(nowhere[0])}; expected "
            f"paths relative to {path.parent}. Add the images, or remove their lines."
        )


def _writable(text: str) -> bool:
    """Whether the text is whole: half a surrogate pair, which JSON can spell, can be neither printed nor saved."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _seen(line: Mapping[str, Any], column: str) -> str:
    return f"the `{column}` {_short(json.dumps(line[column]))}" if column in line else f"no `{column}`"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
