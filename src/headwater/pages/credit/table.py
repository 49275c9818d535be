"""Who gets the credit in a run: figures per split and per query, as words for a terminal. No torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from headwater.credit.accuracy import right
from headwater.credit.shares import Share
from headwater.pages.credit.run import Credited

SHOWN, WIDE = 50, 40  # groups in a table, letters of a name


def found(what: Credited, queries: Sequence[int] = ()) -> dict[str, Any]:
    """Everything in one record: means over the queries of each split, and the queries asked for."""
    run, credit = what.run, what.credit
    splits = np.array(run.queries.split or ("all",) * len(run.queries))
    each = zip(queries, credit.each(queries), strict=True)
    return {
        "run": str(run.folder),
        "method": run.info.get("method"),
        "signed": run.signed,
        "by": what.by,
        "images": len(credit.member),
        "splits": {name: _split(what, np.flatnonzero(splits == name)) for name in dict.fromkeys(splits.tolist())},
        "queries": [
            {"query": run.scores.query_ids[row], "split": str(splits[row]), "groups": records(shares)} for row, shares in each
        ],
    }


def _split(what: Credited, rows: Int64[np.ndarray, " c"]) -> dict[str, Any]:
    counted = right(what.credit, what.own, rows)
    return {
        "queries": len(rows),
        "without_shares": int((~np.isfinite(what.credit.share[rows, 0])).sum()),
        "right": None if counted is None else counted._asdict(),
        "groups": records(what.credit.mean(rows)),
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
        if each["right"]:
            text += _right(each["right"])
    for each in record["queries"]:
        text += ["", *_table(f"{each['query']} ({each['split']})", "95 % over images", each["groups"])]
    return [line.encode(errors="replace").decode() for line in text]  # names of files need not be text


def records(shares: Sequence[Share]) -> list[dict[str, Any]]:
    """Shares as JSON has them: a figure that does not exist is None."""
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


def _right(found: Mapping[str, Any]) -> list[str]:
    counted, ends = f"{found['right']} of {found['pictures']} pictures", _between(found["low"], found["high"])
    rate, even, largest, random = (_percent(found[name]) for name in ("rate", "even", "largest", "random"))
    return [
        f"the largest share is the picture's own group's in {counted}: {rate}, 95 % interval {ends}",
        f"by chance: random scores {random}, the group of any training image {even}, always the group with most images {largest}",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{100 * low:.1f} to {_percent(high)}"


def _short(name: str) -> str:
    return name if len(name) <= WIDE else f"{name[: WIDE - 1]}…"
