"""A run's credit: its scores, the groups of its training images, and second names for them. No torch."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headwater.credit.groups import COLUMNS, column, default, from_csv, split
from headwater.credit.shares import Credit, Share
from headwater.errors import DataError, OptionError, unknown
from headwater.run import Run
from headwater.words import Names

QueryShares = Iterable[tuple[int, Sequence[Share]]]  # the row of a query, and the shares of its groups


class SecondColumn(NamedTuple):
    """A second column of the CSV file: its distinct names among each group's images."""

    column: str
    names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Credited:
    """A run whose scores are summed by groups; `by` is the user's name for the column that makes them."""

    run: Run
    by: str
    credit: Credit
    second: SecondColumn | None = None

    @property
    def column(self) -> str:
        """`by` without the folders of this machine."""
        path, name = split(self.by)
        return self.by if self.by in COLUMNS else path.name + (f":{name}" if name else "")

    @property
    def query_groups(self) -> tuple[str | None, ...]:
        """Each query's group, where known: its label where labels are the groups, else its own group."""
        labels, groups = self.run.queries.labels, self.run.queries.groups
        if self.by == "label" and labels is not None:
            return tuple(None if label < 0 else str(label) for label in labels.tolist())
        return (None,) * len(self.run.queries) if self.by in ("label", "prompt") or groups is None else groups


def credited(run: Run, by: str | None, also: str | None = None) -> Credited:
    """The run's scores by one of its columns, or by a CSV file of ids and names.

    `also` names a second column of the file.
    """
    by = by or _default_column(run)
    path, _ = split(by)
    if by not in COLUMNS and path.suffix.lower() != ".csv" and not path.exists():
        raise unknown("column or CSV file", by, COLUMNS)
    if also is not None and by in COLUMNS:
        expected = "expected --by FILE.csv:column, of which it is another column"
        raise OptionError(f"--also {also} is given with --by {by}; {expected}.")
    try:
        groups = column(run, by) if by in COLUMNS else from_csv(by, run.scores.train_ids)
    except DataError as error:
        raise error if by not in COLUMNS else DataError(f"In the run {run.folder}: {error}") from error
    second = None if also is None else _second(also, groups, from_csv(f"{path}:{also}", run.scores.train_ids))
    return Credited(run, by, run.scores.credit(groups), second)


def _default_column(run: Run) -> str:
    if (by := default(run)) is None:
        raise OptionError(
            f"The run {run.folder} keeps neither groups nor labels of its training images. Give --by "
            "FILE.csv with a column `id` and one of names. (A run made before groups were kept gets them "
            "with --force.)"
        )
    return by


def queries_by_option(run: Run, count: int, query: str | None) -> list[int]:
    """The rows of the queries to list one by one: the query with this id, or the first few."""
    ids = run.scores.query_ids
    if query is None:
        return list(range(min(count, len(ids))))
    if count:
        raise OptionError(f"Both --queries {count} and --query {query} are given; expected one of them.")
    query = Names(ids).find(query) or query
    rows = [row for row, identity in enumerate(ids) if identity == query]
    if not rows:
        near = difflib.get_close_matches(query, ids, n=1, cutoff=0.5)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        known = f"It has {len(ids)}, from '{ids[0]}' to '{ids[-1]}'."
        raise OptionError(f"The run {run.folder} has no query '{query}'.{guess} {known}")
    return rows


def _second(name: str, groups: tuple[str, ...], names: tuple[str, ...]) -> SecondColumn:
    distinct: dict[str, set[str]] = {}
    for group, word in zip(groups, names, strict=True):
        distinct.setdefault(group, set()).add(word)
    return SecondColumn(name, {group: tuple(sorted(words)) for group, words in distinct.items()})
