"""What is credited: a run's scores, how its training images are grouped, what else is known of the groups. No torch."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headwater.credit.groups import COLUMNS, column, default, from_csv, split
from headwater.credit.shares import Credit, Share
from headwater.errors import DataError, OptionError, unknown
from headwater.run import RunFolder

Told = Iterable[tuple[int, list[Share]]]  # queries, each with what `Credit.each` says of it


class Also(NamedTuple):
    """A second column of the CSV file: the distinct names in it of each group's images."""

    column: str
    names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Credited:
    """A run whose scores are summed by groups; `by` is what the user calls the column that makes them."""

    run: RunFolder
    by: str
    credit: Credit
    also: Also | None = None

    @property
    def column(self) -> str:
        """`by` without the folders of this machine."""
        path, name = split(self.by)
        return self.by if self.by in COLUMNS else path.name + (f":{name}" if name else "")

    @property
    def own(self) -> tuple[str | None, ...]:
        """Each query's own group as far as the run knows it: its label where images go by label, else its group. Prompts: none."""
        labels, groups = self.run.queries.labels, self.run.queries.groups
        if self.by == "label" and labels is not None:
            return tuple(None if label < 0 else str(label) for label in labels.tolist())
        return (None,) * len(self.run.queries) if self.by in ("label", "prompt") or groups is None else groups


def credited(run: RunFolder, by: str | None, also: str | None = None) -> Credited:
    """The run's scores by a column of the run or of a CSV file of ids and names, `also` being another column of that file."""
    by = by or default(run)
    if by is None:
        raise OptionError(
            f"The run {run.folder} keeps neither groups nor labels of its training images. Give --by FILE.csv with a column `id` "
            "and one of names. (A run made before groups were kept gets them with --force.)"
        )
    path, _ = split(by)
    if by not in COLUMNS and path.suffix.lower() != ".csv" and not path.exists():
        raise unknown("column or CSV file", by, COLUMNS)
    if also is not None and by in COLUMNS:
        raise OptionError(f"--also {also} is given with --by {by}; expected --by FILE.csv:column, of which it is another column.")
    try:
        groups = column(run, by) if by in COLUMNS else from_csv(by, run.scores.train_ids)
    except DataError as error:
        raise error if by not in COLUMNS else DataError(f"In the run {run.folder}: {error}") from error
    more = None if also is None else _also(also, groups, from_csv(f"{path}:{also}", run.scores.train_ids))
    return Credited(run, by, run.scores.credit(groups), more)


def chosen(run: RunFolder, count: int, query: str | None) -> list[int]:
    """The queries asked for by themselves: the one of that id, or the first few."""
    ids = run.scores.query_ids
    if query is None:
        return list(range(min(count, len(ids))))
    if count:
        raise OptionError(f"Both --queries {count} and --query {query} are given; expected one of them.")
    rows = [row for row, each in enumerate(ids) if each == query]
    if not rows:
        near = difflib.get_close_matches(query, ids, n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise OptionError(f"The run {run.folder} has no query '{query}'.{guess} It has {len(ids)}, from '{ids[0]}' to '{ids[-1]}'.")
    return rows


def _also(name: str, groups: tuple[str, ...], names: tuple[str, ...]) -> Also:
    found: dict[str, set[str]] = {}
    for group, each in zip(groups, names, strict=True):
        found.setdefault(group, set()).add(each)
    return Also(name, {group: tuple(sorted(each)) for group, each in found.items()})
