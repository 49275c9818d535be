"""Lines measured against retraining: their LDS on each split, and an exhibit's rows, measured once."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environment import environment
from headwater.attribution.sweep import cross_fitted, learned_from, settings
from headwater.bank import Bank
from headwater.cli.progress import progress_bar
from headwater.evaluate.ground_truth import Yardstick
from headwater.evaluate.lds import LDS, against, difference
from headwater.evaluate.tune import Setting, tuned
from papers._shared.exhibit import Exhibit
from papers._shared.keeping import Row, RowFile
from papers._shared.line import REFERENCES, Line, key_of
from papers._shared.session import Session

RECENT = 4  # lines remembered


class Result(NamedTuple):
    """LDS at every setting, for the queries of `bank` (for a method of paths, the generated ones alone)."""

    bank: Bank
    settings: Mapping[Setting, LDS]


def measured(line: Line, session: Session) -> Result:
    """The line's scores against retraining."""
    if line.method in REFERENCES:
        yardstick = Yardstick(session.bank, measurement=line.against)
        return Result(session.bank, {(): yardstick.references[line.method]})
    experiment = session.experiment(line)
    bank = experiment.bank
    assert bank is not None
    scores = settings(experiment, line.swept, session.store)
    learned = learned_from(experiment, line.swept)
    lds = {setting: against(bank, values, learned, line.against) for setting, values in scores.items()}
    return Result(bank, lds)


def measured_scores(line: Line, session: Session) -> np.ndarray:
    """The scores of a line without swept fields, [q, n]."""
    ((_, values),) = settings(session.experiment(line), {}, session.store).items()
    return values


def tuned_line(line: Line, session: Session) -> Line:
    """The line with its swept fields as they are best on validation: for pictures, which report no LDS."""
    result = measured(line, session)
    splits = Yardstick(result.bank).splits
    best = tuned(result.settings, splits.get("val", next(iter(splits.values())))).oracle
    return replace(line, fields={**line.fields, **dict(best)}, swept={})


def figures(line: Line, result: Result, base: Result | None = None) -> Iterator[Row]:
    """The figures of each split: cross-fitted, or with `each` of every setting.

    `minus` is the paired difference to the base.
    """
    splits = Yardstick(result.bank).splits
    points = [{setting: lds} for setting, lds in result.settings.items()] if line.each else [result.settings]
    for point in points:
        for split, of_split in cross_fitted(result.bank, point).items():
            minus = None
            if base is not None:
                pair = (point, same_queries(base, result.bank))
                a, b = (tuned(lds, splits[split]).lds for lds in pair)
                minus = difference(a, b, splits[split])._asdict()
            alone = {"oracle": None, "all": []} if len(point) == 1 else {}
            yield _rounded({"split": split, **of_split.as_json(), **alone, "minus": minus})


def same_queries(result: Result, bank: Bank) -> dict[Setting, LDS]:
    """The result for the queries of `bank` only, which may be fewer."""
    places = {content: place for place, content in enumerate(result.bank.queries.hashes)}
    rows = [places[content] for content in bank.queries.hashes]

    def of(lds: LDS) -> LDS:
        return LDS(lds.per_query[rows], lambda: lds.bootstrap[:, rows])

    return {setting: of(lds) for setting, lds in result.settings.items()}


def _rounded(value: Any, name: str = "") -> Any:
    """Figures to five decimals."""
    if isinstance(value, dict):
        return {key: _rounded(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 5) if name in ("lds", "low", "high", "mean") else value


@dataclass(eq=False)
class Bench:
    """Measures lines. The last few results are remembered, because other lines are compared with them."""

    session: Session
    recent: dict[str, tuple[Result, dict[str, Any]]] = field(default_factory=dict)

    def rows(self, line: Line, base: Line | None) -> list[Row]:
        """The rows of a line, with their seconds and the number of features that were not in the store."""
        result, cost = self.result(line)
        bank = self.session.bank
        truth = {"subsets": len(bank.rows()), "seeds": len(bank.seeds())}
        shared = {**line.settings, "swept": list(line.swept), **truth, **cost}
        if base is None:
            return [{**shared, **row} for row in figures(line, result)]
        rival, _ = self.result(base)
        return [
            {**shared, **row, "minus": {"row": base.name, **row["minus"]}}
            for row in figures(line, result, rival)
        ]

    def result(self, line: Line) -> tuple[Result, dict[str, Any]]:
        """The line's result and its cost, remembered if it is recent."""
        key = key_of(line)
        if line.each:  # a whole curve, which nothing is compared with
            return self._measured(line)
        self.recent[key] = self.recent.pop(key, None) or self._measured(line)
        while len(self.recent) > RECENT:
            self.recent.pop(next(iter(self.recent)))
        return self.recent[key]

    def _measured(self, line: Line) -> tuple[Result, dict[str, Any]]:
        computed: list[int] = []
        start = time.perf_counter()
        with progress_bar(f"{line.row} {line.column}") as tick:

            def progress(count: int, total: int) -> None:
                tick(count, total)
                computed.extend([total] * (count == total))

            store = self.session.store
            store = replace(store, progress=progress, dtype=line.dtype or store.dtype)
            result = measured(line, replace(self.session, store=store))
        return result, {"seconds": round(time.perf_counter() - start, 2), "features_computed": sum(computed)}


def rows_of(
    exhibit: Exhibit, lines: Sequence[Line], session: Session, again: Sequence[str] = ()
) -> list[Row]:
    """The rows of all lines: those that are known, and those measured now.

    Methods in `again` are measured in any case.
    """
    file, bench = RowFile(session.folder / f"{exhibit.stem}.json", session.stamp), Bench(session)
    now, machine = _now(), environment()
    for line in lines:
        base = exhibit.base(line)
        key = key_of(line, base)
        rows = None if line.method in again else file.known.get(key)
        if rows is None:
            file.runs |= {now: machine}
            rows = [{"key": key, "run": now, **row} for row in bench.rows(line, base)]
            percents = [f"{row['split']} {100 * row['lds']:.1f}" for row in rows[:2]]
            print(exhibit.stem, line.row, line.column, *percents, file=sys.stderr)
        if base is not None:  # another exhibit may call the same base by another name
            rows = [{**row, "minus": {**row["minus"], "row": base.name}} for row in rows]
        file.put([{**line.place, **row, **line.place} for row in rows])
    return file.rows


def rows_with_seconds(exhibit: Exhibit, lines: Sequence[Line], session: Session) -> list[Row]:
    """The known rows with the seconds of each line at one setting, from an empty store.

    They mean something only on a quiet machine.
    """
    file = RowFile(session.folder / f"{exhibit.stem}.json", session.stamp)
    now, machine = _now(), environment()
    for line in lines:
        single = replace(line, swept={name: values[:1] for name, values in line.swept.items()})
        with tempfile.TemporaryDirectory() as empty:
            start = time.perf_counter()
            measured(single, replace(session, store=replace(session.store, root=Path(empty))))
        seconds = {"seconds_from_empty_store": round(time.perf_counter() - start, 2), "run_of_seconds": now}
        rows = file.known.get(key_of(line, exhibit.base(line)), [])
        file.runs |= {now: machine}
        file.put(
            [{**row, **line.place, **(seconds if line.method not in REFERENCES else {})} for row in rows]
        )
    return file.rows


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
