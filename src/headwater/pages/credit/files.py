"""Credit that leaves the program: every query and group in a file, CSV or JSON-LD by its suffix. No torch."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from headwater.credit.groups import COLUMNS, split
from headwater.credit.shares import Share
from headwater.disk.files import written
from headwater.errors import OptionError
from headwater.pages.credit import jsonld as credit_jsonld
from headwater.pages.credit.run import Credited, Told
from headwater.pages.credit.table import records

FIGURES = ("query", "split", *Share._fields)


def csv_lines(what: Credited, told: Told) -> Iterator[str]:
    """A row for each query and group, groups by name; a figure that does not exist is empty."""
    also = [] if what.also is None else [what.also.column]
    yield _row([*FIGURES, *also])
    splits = what.run.queries.split or ("",) * len(what.run.queries)
    for query, shares in told:
        for each in records(sorted(shares)):
            more = [] if what.also is None else ["; ".join(what.also.names[each["group"]])]
            yield _row([what.run.scores.query_ids[query], splits[query], *each.values(), *more])


KINDS: Mapping[str, Callable[..., Iterator[str]]] = {
    ".csv": csv_lines,
    ".jsonld": credit_jsonld.lines,
    ".json-ld": credit_jsonld.lines,
}


def check(out: Path | None, by: str | None, also: str | None) -> None:
    """Refuse a file that cannot be written as asked, before anything is read."""
    if also is not None and out is None:
        raise OptionError(
            f"--also {also} is a column of the file that --out names, and none is named. Give --out FILE.csv as well."
        )
    if also in FIGURES:
        raise OptionError(f"--also {also}: the file has a column of that name already. Call it otherwise in the file of names.")
    if out is None:
        return
    if out.suffix.lower() not in KINDS or out.is_dir():
        seen = "is a folder" if out.is_dir() else f"ends in '{out.suffix}'" if out.suffix else "has no suffix"
        raise OptionError(f"--out {out} {seen}; expected a file that ends in .csv or in .jsonld (JSON-LD).")
    if by is not None and by not in COLUMNS and split(by)[0].resolve() == out.resolve():
        raise OptionError(f"--out {out} would overwrite the names that --by reads. Name another file.")


def write(path: Path, what: Credited, queries: Sequence[int], tick: Callable[[int, int], None] | None = None) -> None:
    """The file, which appears only when it is complete. Names that are no text, as those of files can be, lose what is not."""
    told = zip(queries, what.credit.each(queries, tick), strict=True)
    with written(path) as file:
        for line in KINDS[path.suffix.lower()](what, told):
            file.write(line.encode(errors="replace"))


def _row(cells: Sequence[object]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue()
