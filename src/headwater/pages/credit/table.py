"""Who gets the credit in a run: figures per split and per query, as tables for a terminal. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from headwater.credit.accuracy import right
from headwater.pages.credit.run import Credited, records

ROWS, LETTERS = 50, 40  # groups in a table, letters of a name


def credit_record(credited: Credited, queries: Sequence[int] = ()) -> dict[str, Any]:
    """All figures as JSON: means over the queries of each split, then `queries` one by one."""
    run, credit = credited.run, credited.credit
    splits = np.array(run.queries.split or ("all",) * len(run.queries))
    names = dict.fromkeys(splits.tolist())
    return {
        "run": str(run.folder),
        "method": run.info.get("method"),
        "signed": run.signed,
        "by": credited.by,
        "images": len(credit.member),
        "splits": {name: _split(credited, np.flatnonzero(splits == name)) for name in names},
        "queries": [
            {"query": run.scores.query_ids[row], "split": str(splits[row]), "groups": records(shares)}
            for row, shares in zip(queries, credit.each(queries), strict=True)
        ],
    }


def _split(credited: Credited, rows: Int64[np.ndarray, " c"]) -> dict[str, Any]:
    credit = credited.credit
    hits = right(credit, credited.query_groups, rows)
    return {
        "queries": len(rows),
        "without_shares": int((~np.isfinite(credit.share[rows, 0])).sum()),
        "right": None if hits is None else hits._asdict(),
        "groups": records(credit.mean(rows)),
    }


def as_text(record: Mapping[str, Any]) -> str:
    """The record as tables."""
    title = f"{record['run']} by {record['by']}"
    text = [
        f"{title}: share of all score above 0 that falls on each group's training images",
        "by chance: what as many images drawn at random would have; a share within it is no finding",
    ]
    if not record["signed"]:
        likeness = "a share says how much of the likeness it has, and nothing of influence."
        text.append(f"{record['method']} measures likeness: {likeness}")
    for name, split in record["splits"].items():
        text += ["", *_table(f"{name}, {split['queries']} queries", "95 % over queries", split["groups"])]
        if split["without_shares"]:
            missing = f"{split['without_shares']} of these queries have no score above 0, so no shares"
            text.append(f"{missing}; the mean leaves them out.")
        if split["right"]:
            text += _right(split["right"])
    for query in record["queries"]:
        text += ["", *_table(f"{query['query']} ({query['split']})", "95 % over images", query["groups"])]
    # names of files need not be text
    return "\n".join(line.encode(errors="replace").decode() for line in text)


def _table(title: str, interval: str, groups: Sequence[Mapping[str, Any]]) -> list[str]:
    first = groups[:ROWS]
    names = [_short(group["group"]) for group in first]
    width = max(map(len, [title, *names])) + 1
    columns = f"{'images':>8}{'net':>12}{'even':>9}{'95 % by chance':>18}{'share':>9}{interval:>20}"
    text = [f"{title:{width}}{columns}"]
    for name, group in zip(names, first, strict=True):
        images, net = f"{group['images']:8,}", f"{group['net']:+#.4g}"
        chance, ends = _between(group["even_low"], group["even_high"]), _between(group["low"], group["high"])
        even, share = _percent(group["even"]), _percent(group["share"])
        text.append(f"{name:{width}}{images}{net:>12}{even:>9}{chance:>18}{share:>9}{ends:>20}")
    if len(groups) > ROWS:
        text.append(f"… and {len(groups) - ROWS:,} groups more: --json and --out have all")
    return text


def _right(hits: Mapping[str, Any]) -> list[str]:
    count, ends = f"{hits['right']} of {hits['pictures']} pictures", _between(hits["low"], hits["high"])
    rate, even, largest, random = (_percent(hits[name]) for name in ("rate", "even", "largest", "random"))
    by_chance = f"random scores {random}, the group of any training image {even}"
    return [
        f"the largest share is the picture's own group's in {count}: {rate}, 95 % interval {ends}",
        f"by chance: {by_chance}, always the group with most images {largest}",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:.1f} to {_percent(high)}"


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
