"""Who gets the credit in a run: figures per split and per query, as words for a terminal and as a CSV file. Numpy only."""

import csv
import difflib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.columns import COLUMNS, column, default, from_csv, split
from headwater.credit import Credit, Share
from headwater.disk import written
from headwater.errors import DataError, OptionError, unknown
from headwater.runs import RunFolder

SHOWN, WIDE = 50, 40  # groups in a table, letters of a name


def names(run: RunFolder, by: str | None) -> tuple[str, tuple[str, ...]]:
    """What the training images are grouped by, and each one's group: a column of the run, or a CSV file of ids and names."""
    by = by or default(run)
    if by is None:
        raise OptionError(
            f"The run {run.folder} keeps neither groups nor labels of its training images. Give --by FILE.csv with a column `id` "
            "and one of names. (A run made before groups were kept gets them with --force.)"
        )
    path, _ = split(by)
    if by not in COLUMNS and path.suffix.lower() != ".csv" and not path.exists():
        raise unknown("column or CSV file", by, COLUMNS)
    try:
        return by, column(run, by) if by in COLUMNS else from_csv(by, run.scores.train_ids)
    except DataError as error:
        raise error if by not in COLUMNS else DataError(f"In the run {run.folder}: {error}") from error


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


def found(run: RunFolder, by: str, credit: Credit, queries: Sequence[int] = ()) -> dict[str, Any]:
    """Everything in one record: means over the queries of each split, and the queries asked for."""
    splits = np.array(run.queries.split or ("all",) * len(run.queries))
    without = ~np.isfinite(credit.share[:, 0])
    return {
        "run": str(run.folder),
        "method": run.info.get("method"),
        "signed": run.signed,
        "by": by,
        "images": len(credit.member),
        "splits": {
            name: {
                "queries": int((splits == name).sum()),
                "without_shares": int(without[splits == name].sum()),
                "groups": _records(credit.mean(np.flatnonzero(splits == name))),
            }
            for name in dict.fromkeys(splits.tolist())
        },
        "queries": [
            {"query": run.scores.query_ids[row], "split": str(splits[row]), "groups": _records(credit.of(row))} for row in queries
        ],
    }


def lines(record: Mapping[str, Any]) -> list[str]:
    """The record as tables."""
    text = [f"{record['run']} by {record['by']}: share of all score above 0 that falls on each group's training images"]
    text += ["by chance: what as many images drawn at random would have; a share within it is no finding"]
    if not record["signed"]:
        text += [f"{record['method']} measures likeness: a share says how much of the likeness it has, and nothing of influence."]
    for name, each in record["splits"].items():
        text += ["", *_table(f"{name}, {each['queries']} queries", "95 % over queries", each["groups"])]
        if each["without_shares"]:
            text += [f"{each['without_shares']} of these queries have no score above 0, so no shares; the mean leaves them out."]
    for each in record["queries"]:
        text += ["", *_table(f"{each['query']} ({each['split']})", "95 % over images", each["groups"])]
    return text


def write_csv(path: Path, run: RunFolder, credit: Credit) -> None:
    """All queries and groups, one row each; a query without shares has empty ones."""
    splits = run.queries.split or ("",) * len(run.queries)
    with written(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="", write_through=True)
        rows = csv.writer(text)
        rows.writerow(["query", "split", "group", "images", "even", "net", "share"])
        sizes = list(zip(credit.groups, credit.images.tolist(), credit.even.tolist(), strict=True))
        for query, split, net, share in zip(run.scores.query_ids, splits, credit.net, credit.share, strict=True):
            pairs = zip(sizes, net.tolist(), map(_known, share.tolist()), strict=True)
            rows.writerows([query, split, *size, *figures] for size, *figures in pairs)
        text.detach()


def _records(shares: Sequence[Share]) -> list[dict[str, Any]]:
    return [{name: _known(value) for name, value in each._asdict().items()} for each in shares]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _table(title: str, interval: str, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = groups[:SHOWN]
    called = [_short(each["group"]) for each in shown]
    width = max(map(len, [title, *called])) + 1
    text = [f"{title:{width}}{'images':>8}{'net':>12}{'even':>9}{'95 % by chance':>18}{'share':>9}{interval:>20}"]
    for name, each in zip(called, shown, strict=True):
        net, chance, ends = (
            f"{each['net']:+#.4g}",
            _between(each["even_low"], each["even_high"]),
            _between(each["low"], each["high"]),
        )
        even, share = _percent(each["even"]), _percent(each["share"])
        text.append(f"{name:{width}}{each['images']:8,}{net:>12}{even:>9}{chance:>18}{share:>9}{ends:>20}")
    return text + ([f"… and {len(groups) - SHOWN:,} groups more: --json and --out have all"] if len(groups) > SHOWN else [])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:.1f} to {_percent(high)}"


def _short(name: str) -> str:
    return name if len(name) <= WIDE else f"{name[: WIDE - 1]}…"
