"""Rows of a folder's tables of metadata, JSON lines, CSV or Parquet, as in the hub's image folders."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from headwater.errors import DataError
from headwater.words import Names

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
LINE = '{"file_name": "a.png", "text": "a red car"}'


class TableRow(NamedTuple):
    """One row: where it stands, its image relative to the folder, and its cells by column."""

    place: str
    file: str
    cells: Mapping[str, Any]


def rows_of(root: Path, tables: Sequence[str]) -> list[TableRow]:
    """The rows of all tables, which are paths relative to `root`; a table names images relative to its own
    folder."""
    homes: dict[str, str] = {}
    for table in tables:
        home, _, name = table.rpartition("/")
        if home in homes:
            raise DataError(
                f"The folder {root / home} has both {homes[home]} and {name}; expected one of them. Remove "
                "the other."
            )
        homes[home] = name
    return [row for table in tables for row in _rows(root, table)]


def of_images(
    root: Path, tables: Sequence[str], rows: Sequence[TableRow], ids: Sequence[str]
) -> list[TableRow]:
    """The row of each image, in the order of `ids`: every image needs one in all tables, every row an image.

    Names are found in any Unicode form.
    """
    names, matches, strays = Names(ids), dict[str, TableRow](), list[TableRow]()
    for row in rows:
        file = names.find(row.file)
        if file is None:
            strays.append(row)
        elif file in matches:
            raise DataError(
                f"{row.place}, is a second line for {row.file}; expected one for each image. Keep one "
                "of them."
            )
        else:
            matches[file] = row
    _check_same(root, tables, ids, matches, strays)
    return [matches[name] for name in ids]


def short(text: str) -> str:
    """The text, or the beginning of a long one."""
    return text if len(text) <= 80 else f"{text[:80]}…"


def quoted(cells: Mapping[str, Any], column: str) -> str:
    """The cell as an error names it."""
    return (
        f"the `{column}` {short(json.dumps(cells[column], default=str))}"
        if column in cells
        else f"no `{column}`"
    )


def _rows(root: Path, table: str) -> Iterator[TableRow]:
    path, home = root / table, PurePosixPath(table).parent
    word = "row" if path.suffix == ".parquet" else "line"
    for number, cells in _cells(path):
        place, name = f"{path}, {word} {number}", cells.get("file_name")
        if not isinstance(name, str):
            raise DataError(
                f"{place}, has {quoted(cells, 'file_name')}; expected the path of an image relative to "
                f"{path.parent}."
            )
        yield TableRow(place, (home / name).as_posix(), cells)


def _cells(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the cells of each line or row; blank lines are skipped."""
    if path.suffix == ".parquet":
        yield from enumerate(_of_parquet(path), 1)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                yield from _of_csv(path, csv.DictReader(file, strict=True))
                return
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, _object(path, number, text.strip())
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


def _of_csv(path: Path, rows: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str, Any]]]:
    head = rows.fieldnames or []
    _check_distinct(f"{path}, line 1,", "column", head)
    for row in rows:
        if any(row.pop(None, ())):  # pyright: ignore[reportArgumentType,reportCallIssue]
            raise DataError(
                f"{path}, line {rows.line_num}, has more cells than the {len(head)} columns; expected one "
                'for each. Put a text with commas in quotes: "a cat, asleep".'
            )
        yield rows.line_num, row


def _of_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise DataError(
            f"Reading {path} needs the `datasets` library, which is not installed: pip install "
            "'headwater[hub]'."
        ) from error
    try:
        table = read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(f"{path} cannot be read as Parquet ({reason}). Write it again.") from error
    _check_distinct(f"{path}", "column", table.column_names)
    return table.to_pylist()


def _object(path: Path, number: int, text: str) -> dict[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_distinct(f"{path}, line {number},", "entry", [name for name, _ in pairs])
        return dict(pairs)

    try:
        line = json.loads(text, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}, is not JSON ({error}): {short(text)}. Expected an object on one line, "
            f"such as {LINE}."
        ) from error
    if not isinstance(line, dict):
        raise DataError(f"{path}, line {number}, is {short(text)}; expected a JSON object such as {LINE}.")
    return line


def _check_distinct(place: str, kind: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            f"{place} has more than one {kind} `{short(twice[0])}`; expected one. Remove the other."
        )


def _check_same(
    root: Path,
    tables: Sequence[str],
    ids: Sequence[str],
    rows: Mapping[str, TableRow],
    strays: Sequence[TableRow],
) -> None:
    """Raise a DataError unless the rows name exactly the images."""
    where = f"{root / tables[0]} has" if len(tables) == 1 else f"The {len(tables)} tables of {root} have"
    home = PurePosixPath(tables[0]).parent if len(tables) == 1 else PurePosixPath()
    bare = [name for name in ids if name not in rows]
    if bare:
        local = PurePosixPath(bare[0]).is_relative_to(home)
        example = PurePosixPath(bare[0]).relative_to(home).as_posix() if local else bare[0]
        advice = json.dumps({"file_name": short(example), "text": "…"}, ensure_ascii=False)
        raise DataError(
            f"{where} no line for {len(bare):,} of the {len(ids):,} images, the first {short(bare[0])}; "
            f"expected one for each. Add {advice}, or remove the image."
        )
    if strays:
        raise DataError(
            f"{where} lines for {len(strays):,} images that are not in the folder, the first "
            f"{short(strays[0].file)}; expected paths relative to {root / home}. Add the images, or remove "
            "their lines."
        )
