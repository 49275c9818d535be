"""The captions of a folder's images: a file `metadata.jsonl` among them, as the hub's image folders have it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from headwater.errors import DataError

FILE = "metadata.jsonl"
COLUMNS = ("caption", "prompt", "text")
LINE = '{"file_name": "a.png", "text": "a red car"}'


def captions(root: Path, ids: Sequence[str]) -> tuple[str, ...] | None:
    """The caption of each image, in the order of `ids`, its path relative to `root`; None where there is no `metadata.jsonl`.

    Each line of the file is a JSON object: an image's `file_name`, relative to the folder, and its caption under the first name
    of COLUMNS that any line has. Other names are not read. Every image needs one line, every line an image.
    """
    path = root / FILE
    if not os.path.lexists(path):  # a link that leads nowhere is an error, not a folder without captions
        return None
    lines = _lines(path)
    column = _column(path, lines)
    found: dict[str, str] = {}
    for number, line in lines.items():
        file = _file(path, number, line)
        if file in found:
            raise DataError(f"{path}, line {number}, is another line for {file}; expected one for each image. Keep one of them.")
        found[file] = _caption(path, number, line, column)
    _check_same(path, list(found), ids)
    return tuple(found[name] for name in ids)


def _lines(path: Path) -> dict[int, dict[str, Any]]:
    """The object on each line, by the line's number; blank lines are passed over."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return {number: _object(path, number, text.strip()) for number, text in enumerate(file, 1) if text.strip()}
    except OSError as error:
        raise DataError(f"Could not open {path}: {error.strerror}. Expected a file with a line {LINE} for each image.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 ({error}). Save it as UTF-8, with a line {LINE} for each image.") from error


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


def _column(path: Path, lines: Mapping[int, Mapping[str, Any]]) -> str:
    """The name that captions have in this file."""
    names = dict.fromkeys(name for line in lines.values() for name in line)
    column = next((name for name in COLUMNS if name in names), None)
    if column is None:
        seen = _short(", ".join(f"`{name}`" for name in names)) if names else "none"
        raise DataError(
            f"{path} has no captions: its columns are {seen}; expected {' or '.join(f'`{name}`' for name in COLUMNS)}. "
            "Call the column of captions so, or remove the file."
        )
    return column


def _file(path: Path, number: int, line: Mapping[str, Any]) -> str:
    name = line.get("file_name")
    if not isinstance(name, str):
        seen = f"the `file_name` {_json(name)}" if "file_name" in line else "no `file_name`"
        raise DataError(f"{path}, line {number}, has {seen}; expected the path of an image relative to {path.parent}.")
    return PurePosixPath(name).as_posix()


def _caption(path: Path, number: int, line: Mapping[str, Any], column: str) -> str:
    text = line.get(column)
    if not isinstance(text, str) or not _writable(text):
        seen = f"the `{column}` {_json(text)}" if column in line else f"no `{column}`"
        raise DataError(f'{path}, line {number}, has {seen}; expected text. Write one, or "" for an image without a caption.')
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


def _json(value: Any) -> str:
    return _short(json.dumps(value))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
