"""The LDS of runs as a table of words, for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

REFERENCES = {"random": "random scores", "oracle": "another retraining"}


def as_text(record: Mapping[str, Any]) -> str:
    """From `of_runs`: for each split the runs, chance, a second retraining, and the best run's lead."""
    runs = record["runs"]
    first = next(iter(runs.values()))
    models = f"{first['subsets']} subsets × {first['seeds']} {'seed' if first['seeds'] == 1 else 'seeds'}"
    text = [f"{first['bank']}: {first['measurement']} of models retrained on {models}"]
    for split in first["splits"]:
        rows = {name: run["splits"][split] for name, run in runs.items()}
        text += ["", *_table(split, rows, first["over"])]
        text += _lead(split, record)
    for name, run in runs.items():
        if run["sign"] == "negated":
            opposite = f"{name} predicts the opposite of what happens: an interval lies wholly below 0."
            text += ["", f"{opposite} Its scores are probably"]
            text += ["negated. A positive score must mean that removing the image raises the query's loss."]
    return "\n".join(text)


def _table(split: str, rows: Mapping[str, Mapping[str, Any]], over: str) -> Iterator[str]:
    """A line for each run (mean LDS with interval, error, quartiles, share below 0), then the references."""
    first = next(iter(rows.values()))
    title = f"{split}, {first['queries']} queries"
    width = max(map(len, [title, *rows, *REFERENCES.values()])) + 1
    columns = f"{'LDS':>7}{f'95 % over {over}':>18}{'± s.e.':>9}{'quartiles of queries':>23}{'below 0':>9}"
    yield f"{title:{width}}{columns}"
    for name, row in rows.items():
        error = f"{row['standard_error']:9.3f}" if "standard_error" in row else f"{'–':>9}"
        quartiles = "  ".join(f"{value:.3f}" for value in row["quartiles"])
        yield f"{name:{width}}{_figure(row, 'lds', '')}{error}{quartiles:>23}{row['below']:9.0%}"
    for key, name in REFERENCES.items():
        if key in first:
            yield f"{name:{width}}{_figure(first, key, key + '_')}"
    if "reachable" in first:
        yield f"{'perfect scores':{width}}{first['reachable']:7.3f}{'about':>18}"


def _lead(split: str, record: Mapping[str, Any]) -> Iterator[str]:
    """The best run of a split minus each of the rest, paired."""
    best = max(record["runs"], key=lambda name: record["runs"][name]["splits"][split]["lds"])
    for row in record["paired"]:
        if row["split"] == split and best in (row["a"], row["b"]):
            ahead = row if row["a"] == best else _turned(row)
            intervals = (ahead["over_subsets"], ahead["over_queries"])
            subsets, queries = (f"[{low:+.3f}, {high:+.3f}]" for low, high in intervals)
            gap = f"{best} − {ahead['b']}: {ahead['difference']:+.3f}"
            yield f"{gap}, over subsets {subsets}, over queries {queries};"
            yield f"    above on {ahead['above']:.0%} of queries, below on {ahead['below']:.0%}"


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison of b with a."""
    intervals = {name: [-row[name][1], -row[name][0]] for name in ("over_subsets", "over_queries")}
    turned = {"a": row["b"], "b": row["a"], "above": row["below"], "below": row["above"]}
    return {**row, **turned, **intervals, "difference": -row["difference"]}


def _figure(row: Mapping[str, Any], name: str, prefix: str) -> str:
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return f"{row[name]:7.3f}{f'[{low:.3f}, {high:.3f}]':>18}"
