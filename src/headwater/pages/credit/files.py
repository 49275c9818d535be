"""Credit in a file: every query and group, as CSV or JSON-LD by the file's suffix. No torch."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from headwater.credit.groups import COLUMNS, split
from headwater.credit.shares import Share
from headwater.disk.files import written
from headwater.errors import OptionError
from headwater.pages.credit.jsonld import jsonld
from headwater.pages.credit.run import Credited, QueryShares

FIGURES = ("query", "split", *Share._fields)


def csv_lines(credited: Credited, rows: QueryShares) -> Iterator[str]:
    """A line for each query and group, groups by name; a figure that does not exist is empty."""
    second, run = credited.second, credited.run
    yield _csv_line([*FIGURES, *([] if second is None else [second.column])])
    splits = run.queries.split or ("",) * len(run.queries)
    for query, shares in rows:
        for share in sorted(shares):
            names = [] if second is None else ["; ".join(second.names[share.group])]
            yield _csv_line([run.scores.query_ids[query], splits[query], *share.as_json().values(), *names])


WRITERS: Mapping[str, Callable[[Credited, QueryShares], Iterator[str]]] = {
    ".csv": csv_lines,
    ".jsonld": jsonld,
    ".json-ld": jsonld,
}


def check_options(out: Path | None, by: str | None, also: str | None) -> None:
    """Refuse a file that cannot be written as the options say, before anything is read."""
    if also is not None and out is None:
        fault = f"--also {also} is a column of the file that --out names, and none is named."
        raise OptionError(f"{fault} Give --out FILE.csv as well.")
    if also in FIGURES:
        advice = "Call it otherwise in the file of names."
        raise OptionError(f"--also {also}: the file has a column of that name already. {advice}")
    if out is None:
        return
    if out.suffix.lower() not in WRITERS or out.is_dir():
        ending = f"ends in '{out.suffix}'" if out.suffix else "has no suffix"
        fault = "is a folder" if out.is_dir() else ending
        raise OptionError(f"--out {out} {fault}; expected a file that ends in .csv or in .jsonld (JSON-LD).")
    if by is not None and by not in COLUMNS and split(by)[0].resolve() == out.resolve():
        raise OptionError(f"--out {out} would overwrite the names that --by reads. Name another file.")


def write(
    path: Path, credited: Credited, queries: Sequence[int], tick: Callable[[int, int], None] | None = None
) -> None:
    """Write the file, which appears only when it is complete; characters that are no text become `?`."""
    rows = zip(queries, credited.credit.each(queries, tick), strict=True)
    with written(path) as file:
        for line in WRITERS[path.suffix.lower()](credited, rows):
            file.write(line.encode(errors="replace"))


def _csv_line(cells: Sequence[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue()
