"""The LDS of runs as a table of words, for a terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from headwater.evaluate.ground_truth import DECIMALS, PairFigures, RunsFigures, SplitFigures
from headwater.evaluate.lds import LDSComparison
from headwater.linalg.rank import Interval

REFERENCES = {"random": "random scores", "oracle": "another retraining"}


def as_text(figures: RunsFigures) -> str:
    """For each split the runs, chance, a second retraining, and the best run's lead."""
    runs = figures.runs
    first = next(iter(runs.values()))
    models = f"{first.subsets} subsets × {first.seeds} {'seed' if first.seeds == 1 else 'seeds'}"
    text = [f"{first.bank}: {first.measurement} of models retrained on {models}"]
    for split in first.splits:
        rows = {name: run.splits[split] for name, run in runs.items()}
        text += ["", *_table(split, rows, first.over)]
        text += _lead(split, figures)
    for name, run in runs.items():
        if run.sign == "negated":
            opposite = f"{name} predicts the opposite of what happens: an interval lies wholly below 0."
            text += ["", f"{opposite} Its scores are probably"]
            text += ["negated. A positive score must mean that removing the image raises the query's loss."]
    return "\n".join(text)


def _table(split: str, rows: Mapping[str, SplitFigures], over: str) -> Iterator[str]:
    """A line for each run (mean LDS with interval, error, quartiles, share below 0), then the references."""
    first = next(iter(rows.values()))
    title = f"{split}, {first.queries} queries"
    width = max(map(len, [title, *rows, *REFERENCES.values()])) + 1
    columns = f"{'LDS':>7}{f'95 % over {over}':>18}{'± s.e.':>9}{'quartiles of queries':>23}{'below 0':>9}"
    yield f"{title:{width}}{columns}"
    for name, row in rows.items():
        error = "–" if row.standard_error is None else _number(row.standard_error)
        quartiles = "  ".join(map(_number, row.quartiles))
        yield f"{name:{width}}{_figure(row.lds)}{error:>9}{quartiles:>23}{_share(row.below):>9}"
    for key, name in REFERENCES.items():
        if key in first.references:
            yield f"{name:{width}}{_figure(first.references[key])}"
    if first.reachable is not None:
        yield f"{'perfect scores':{width}}{_number(first.reachable):>7}{'about':>18}"


def _lead(split: str, figures: RunsFigures) -> Iterator[str]:
    """The best run of a split minus each of the rest, paired."""
    best = max(figures.runs, key=lambda name: figures.runs[name].splits[split].lds.mean)
    for pair in figures.pairs:
        if pair.split == split and best in (pair.a, pair.b):
            ahead = pair if pair.a == best else _turned(pair)
            gap = ahead.comparison
            subsets, queries = (
                f"[{_number(low, '+')}, {_number(high, '+')}]"
                for _, low, high in (gap.over_subsets, gap.over_queries)
            )
            title = f"{best} − {ahead.b}: {_number(gap.over_subsets.mean, '+')}"
            yield f"{title}, over subsets {subsets}, over queries {queries};"
            yield f"    above on {_share(gap.above)} of queries, below on {_share(gap.below)}"


def _turned(pair: PairFigures) -> PairFigures:
    """The comparison of b with a."""
    gap = pair.comparison
    subsets, queries = (
        Interval(-mean, -high, -low) for mean, low, high in (gap.over_subsets, gap.over_queries)
    )
    return replace(pair, a=pair.b, b=pair.a, comparison=LDSComparison(subsets, queries, gap.below, gap.above))


def _figure(interval: Interval) -> str:
    mean, low, high = map(_number, interval)
    return f"{mean:>7}{f'[{low}, {high}]':>18}"


def _number(value: float, sign: str = "-") -> str:
    """Three decimals of the value as it is recorded, so that a table says what the record says."""
    return f"{round(value, DECIMALS):{sign}.3f}"


def _share(value: float) -> str:
    return f"{round(value, DECIMALS):.0%}"
