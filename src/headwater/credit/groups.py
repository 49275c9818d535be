"""The group of each training image: a column of the images, or of a CSV file by their ids. Numpy only."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Int64
from numpy import ndarray

from headwater.errors import DataError, OptionError, unknown
from headwater.words import Names, composed

COLUMNS = {"group": "groups", "label": "labels", "prompt": "prompts"}


@runtime_checkable
class Grouped(Protocol):
    """Training images that may have groups, labels and prompts: Examples, or a run folder."""

    @property
    def groups(self) -> tuple[str, ...] | None: ...
    @property
    def labels(self) -> Int64[ndarray, " n"] | None: ...
    @property
    def prompts(self) -> tuple[str, ...] | None: ...


def default(images: Grouped) -> str | None:
    """The default column of groups: `group` if the images have it, else `label`."""
    return next((name for name in ("group", "label") if getattr(images, COLUMNS[name]) is not None), None)


def column(images: Grouped, name: str) -> tuple[str, ...]:
    """The `group`, `label` or `prompt` of each image, as text; the label −1 is `none`."""
    if name not in COLUMNS:
        raise unknown("column", name, COLUMNS)
    values = getattr(images, COLUMNS[name])
    if values is None:
        existing = [word for word, field in COLUMNS.items() if getattr(images, field) is not None]
        raise DataError(
            f"The training images have no {COLUMNS[name]}; they have "
            f"{' and '.join(existing) or 'none of group, label and prompt'}. "
            "Name one of these, or a CSV file with a column `id` and one of names."
        )
    if name == "label":
        return tuple("none" if label < 0 else str(label) for label in values.tolist())
    return tuple(map(composed, values))  # one artist in two Unicode forms is one


def from_csv(source: str, ids: Sequence[str]) -> tuple[str, ...]:
    """The name of each id, from `FILE.csv` with a column `id` and a second one, or `FILE.csv:column`."""
    path, name = split(source)
    rows = _rows(path)
    head = [cell.strip() for cell in rows[0]] if rows else []
    value = _names_column(path, head, name)
    key = head.index("id")
    padded = ([cell.strip() for cell in row] + [""] * len(head) for row in rows[1:] if row)
    return _matched(path, [(row[key], row[value]) for row in padded], ids)


def _names_column(path: Path, head: Sequence[str], name: str | None) -> int:
    """The place of the column with this name, or of the only one beside `id`."""
    columns = [cell for cell in head if cell != "id"]
    if "id" not in head or not columns:
        raise DataError(
            f"{path} has the columns {_listed(head)}; expected `id` and at least one column of names."
        )
    if name is None and len(columns) > 1:
        raise OptionError(
            f"{path} has several columns of names: {_listed(columns)}. Say which: {path}:{columns[0]}."
        )
    if name is not None and name not in columns:
        raise unknown(f"column in {path}", name, columns)
    return head.index(name or columns[0])


def split(source: str) -> tuple[Path, str | None]:
    """The file and the column of `FILE.csv` or `FILE.csv:column`."""
    path, colon, name = source.rpartition(":")
    return (Path(path), name) if colon and not Path(source).exists() else (Path(source), None)


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.reader(file, strict=True))
    except OSError as error:
        raise DataError(
            f"Could not open {path}: {error.strerror}. Expected a CSV file with columns `id` and names."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is no CSV file in UTF-8 ({error}). Save it as one, with commas between columns."
        ) from error


def _matched(path: Path, pairs: Sequence[tuple[str, str]], ids: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of `ids`, each of which must have exactly one; other ids are ignored."""
    own = Names(ids)
    pairs = [(own.find(identity) or identity, name) for identity, name in pairs]
    names = dict(pairs)
    counts = Counter(identity for identity, _ in pairs)
    twice = [identity for identity in ids if counts[identity] > 1]
    missing = [identity for identity in ids if identity not in names]
    blank = [identity for identity in ids if names.get(identity) == ""]
    for faulty, fault, advice in (
        (missing, "no row for", "The run's ids are in its pictures.npz, under `train_ids`."),
        (twice, "more than one row for", "Keep one row for each id."),
        (blank, "no name for", "Write one, such as `unknown`."),
    ):
        if faulty:
            raise DataError(
                f"{path} has {fault} {len(faulty):,} of the {len(ids):,} training images, the first with id "
                f"'{faulty[0]}'; expected exactly one name each. {advice}"
            )
    return tuple(composed(names[identity]) for identity in ids)


def _listed(names: Sequence[str]) -> str:
    return (
        ", ".join(f"`{name}`" for name in names[:8]) + (" …" if len(names) > 8 else "") if names else "none"
    )
