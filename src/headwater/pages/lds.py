"""LDS of runs as a table of words, for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

REFERENCES = {"random": "random scores", "oracle": "another retraining"}


def lines(found: Mapping[str, Any]) -> list[str]:
    """What `of_runs` found: for each split the runs, chance and another retraining, and how far the best run leads."""
    runs = found["runs"]
    first = next(iter(runs.values()))
    models = f"{first['subsets']} subsets × {first['seeds']} {'seed' if first['seeds'] == 1 else 'seeds'}"
    text = [f"{first['bank']}: {first['measurement']} of models retrained on {models}"]
    for split in first["splits"]:
        text += ["", *_table(split, {name: each["splits"][split] for name, each in runs.items()}, first["over"])]
        text += _lead(split, found)
    for name, each in runs.items():
        if each["sign"] == "negated":
            text += ["", f"{name} predicts the opposite of what happens: an interval lies wholly below 0. Its scores are probably"]
            text += ["negated. A positive score must mean that removing the image raises the query's loss."]
    return text


def _table(split: str, rows: Mapping[str, Mapping[str, Any]], over: str) -> Iterator[str]:
    """Runs, then references: mean LDS with its interval; of runs also its standard error, quartiles and share below 0."""
    head = next(iter(rows.values()))
    title = f"{split}, {head['queries']} queries"
    width = max(map(len, [title, *rows, *REFERENCES.values()])) + 1
    yield f"{title:{width}}{'LDS':>7}{f'95 % over {over}':>18}{'± s.e.':>9}{'quartiles of queries':>23}{'below 0':>9}"
    for name, row in rows.items():
        error = f"{row['standard_error']:9.3f}" if "standard_error" in row else f"{'–':>9}"
        quartiles = "  ".join(f"{value:.3f}" for value in row["quartiles"])
        yield f"{name:{width}}{_figure(row, 'lds', '')}{error}{quartiles:>23}{row['below']:9.0%}"
    for key, name in REFERENCES.items():
        if key in head:
            yield f"{name:{width}}{_figure(head, key, key + '_')}"
    if "reachable" in head:
        yield f"{'perfect scores':{width}}{head['reachable']:7.3f}{'about':>18}"


def _lead(split: str, found: Mapping[str, Any]) -> Iterator[str]:
    """The best run of a split minus each other run, paired."""
    best = max(found["runs"], key=lambda name: found["runs"][name]["splits"][split]["lds"])
    for row in found["paired"]:
        if row["split"] == split and best in (row["a"], row["b"]):
            ahead = row if row["a"] == best else _turned(row)
            subsets, queries = (f"[{low:+.3f}, {high:+.3f}]" for low, high in (ahead["over_subsets"], ahead["over_queries"]))
            yield f"{best} − {ahead['b']}: {ahead['difference']:+.3f}, over subsets {subsets}, over queries {queries};"
            yield f"    above on {ahead['above']:.0%} of queries, below on {ahead['below']:.0%}"


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison of b with a."""
    intervals = {name: [-high, -low] for name in ("over_subsets", "over_queries") for low, high in [row[name]]}
    turned = {"a": row["b"], "b": row["a"], "difference": -row["difference"], "above": row["below"], "below": row["above"]}
    return {**row, **turned, **intervals}


def _figure(row: Mapping[str, Any], name: str, prefix: str) -> str:
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return f"{row[name]:7.3f}{f'[{low:.3f}, {high:.3f}]':>18}"
