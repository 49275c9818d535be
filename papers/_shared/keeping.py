"""Finished rows in `docs/results/BANK/EXHIBIT.json`, one row a line of the file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.disk.files import written

Row = dict[str, Any]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SPLITS = {"val": "validation", "gen": "generation", "all": "all queries"}


class RowFile:
    """The rows of an exhibit. Rows with another stamp (of bank and numerics) are dropped.

    `known`: the rows of every line by its key, including those of the bank's other exhibits: no line is
    measured twice.
    """

    def __init__(self, path: Path, stamp: Mapping[str, Any]) -> None:
        self.path, self.stamp = path, stamp
        self.rows: list[Row] = []
        self.runs: dict[str, Any] = {}  # when something was measured, and on what machine
        self.known: dict[str, list[Row]] = {}
        for place in [*sorted(set(path.parent.glob("*.json")) - {path}), path]:
            file = json.loads(place.read_text()) if place.exists() else {}
            self.rows = file["rows"] if file.get("stamp") == stamp else []
            self.runs |= file["runs"] if self.rows else {}
            keys = {row["key"] for row in self.rows}
            self.known |= {key: [row for row in self.rows if row["key"] == key] for key in keys}

    def put(self, rows: Sequence[Row]) -> None:
        """Add the rows of a line, in place of those at the same places. The file is whole at any time."""
        places = {_place(row) for row in rows}
        self.rows = [row for row in self.rows if _place(row) not in places] + list(rows)
        named = {row[name] for row in self.rows for name in ("run", "run_of_seconds") if name in row}
        runs = {name: self.runs[name] for name in sorted(named)}
        head = json.dumps({"stamp": self.stamp, "runs": runs}, indent=1, ensure_ascii=False)
        body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows)
        with written(self.path, "w") as file:
            file.write(f'{head[:-2]},\n "rows": [\n{body}\n]}}\n')


def _place(row: Row) -> tuple[Any, ...]:
    return row["row"], row["column"], row["x"], row["against"], tuple(row["swept"])
