"""What all tables and figures share: lines, measured once and kept, from which pages are written.

A recipe is a module. Its docstring is the caption, `PAPER` what the paper found, and `lines(given)` says what is measured. It may
have `base(line)`, the line that another is compared with in pairs; `draw(rows)`, its figure; `COLUMNS`, the word for its columns;
`HERE`, what was found on each bank, in words; `PAGES` that show its table too. Recipes of pictures have `page(given)` instead.
"""

import argparse
import hashlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import pages
from headwater.attribution.experiment import Experiment
from headwater.attribution.open import Machine, Models, Sources, open_experiment
from headwater.attribution.sweep import cross_fitted, learned_from, settings
from headwater.bank import Bank, open_bank
from headwater.cli.arguments import crew
from headwater.cli.environment import environment
from headwater.cli.progress import bar
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import UserError
from headwater.evaluate.ground_truth import Yardstick
from headwater.evaluate.lds import LDS, against, difference
from headwater.evaluate.tune import Setting, tuned
from headwater.families.protocol import Embedding
from headwater.gradients import features
from headwater.methods import field_values, make
from keeping import Kept, Row
from pages import RESULTS

D_TRAK = (
    *("table_1", "table_2", "table_4", "table_5", "table_7"),
    *("figure_1", "figure_2", "figure_5", "figure_6", "figure_9", "figure_10", "figure_15", "figure_20"),
)
K_FAC = (*(f"kfac_figure_{number}" for number in (1, 2, 3, 4, 6, 7, 11, 13, 15, 16, 17, 18)), "kfac_refined")
NDA = ("nda_table_1", *(f"nda_figure_{number}" for number in (5, 6, 7, 8)))
RECIPES = (*D_TRAK, *K_FAC, *NDA)
NUMERICS = 1  # of what a row's figures stand for: raised where they change and neither a field nor a feature does
DAMPINGS = [a * 10.0**b for b in range(-4, 2) for a in (1, 2, 5)]
REFERENCES = {"random": "`random`", "ceiling": "*one seed predicting the other*"}

RECENT = 4  # lines remembered


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method at one setting of its fields: one place in a table, or the point `x` of a curve.

    `swept` fields are chosen by cross-fitting; with `each`, every value is a point of its own. `model`: a folder of the bank; with
    `ensemble`, so many models of learning subsets instead. `against`: the outcome that scores are to predict. `dtype`: that of the
    features in the store, if not float32.
    """

    row: str
    column: str = ""
    x: float | None = None
    method: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    swept: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    each: bool = False
    model: str = "model"
    ensemble: int | None = None
    against: str = "simple"
    dtype: str | None = None  # of the features in the store

    @property
    def name(self) -> str:
        """What it is called where others are compared with it."""
        return self.row if self.x is None else f"{self.row} = {self.x:g}"

    @property
    def place(self) -> dict[str, Any]:
        """Where its figures go."""
        return {"row": self.row, "column": self.column, "x": self.x}

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its figures, but for the bank."""
        given = {name: value for name, value in asdict(self).items() if name not in self.place}
        if self.dtype is None:
            del given["dtype"]
        if self.method not in REFERENCES:
            made = make(self.method, dict(self.fields))
            given["fields"] = field_values(made) | ({"fingerprint": made.fingerprint} if isinstance(made, Embedding) else {})
        return json.loads(json.dumps(given))


def influence(method: str, timesteps: int, swept: Mapping[str, Sequence[Any]] | None = None, **more: Any) -> dict[str, Any]:
    """What a line of an influence function needs: nothing is chosen unless said, λ is the paper's 1e-8."""
    return {"method": method, "fields": {"timesteps": timesteps, **more}, "swept": swept or {}}


def kernel(method: str, timesteps: int, swept: Mapping[str, Sequence[Any]] | None = None, **more: Any) -> dict[str, Any]:
    """What a line needs whose method has a kernel: unless said otherwise, its damping is chosen by cross-fitting."""
    return {"method": method, "fields": {"timesteps": timesteps, **more}, "swept": swept or {"damping": DAMPINGS}}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line gives to every recipe. `models`: where those of learning subsets are kept."""

    bank: Bank
    store: FeatureStore
    models: Path
    machine: Machine
    results: Path = RESULTS
    timesteps: tuple[int, ...] | None = None
    embedder: str | None = None

    @property
    def stamp(self) -> dict[str, Any]:
        """The state of the bank and the version of the numerics: rows with another stamp are measured again."""
        numerics = {"headwater": version("headwater"), "features": features.VERSION, "figures": NUMERICS}
        return {"bank": [*self.bank.state, self.bank.train.fingerprint], "numerics": numerics}

    @property
    def folder(self) -> Path:
        """Where the bank's results are."""
        return self.results / self.bank.folder.name

    def counts(self, *usual: int) -> tuple[int, ...]:
        """Numbers of timesteps: those of --timesteps, else the recipe's own."""
        return self.timesteps or usual

    def references(self, against: str = "simple", column: str = "") -> list[Line]:
        """What every table has: random scores and, where there are several seeds, how well one predicts the other."""
        names = list(REFERENCES)[: 2 if len(self.bank.seeds()) > 1 else 1]
        return [Line(row=REFERENCES[name], column=column, method=name, against=against) for name in names]

    def run(self, line: Line) -> Experiment:
        """The line as an experiment: models loaded or trained, queries with their paths where the method needs them."""
        models = Models([] if line.ensemble else [self.bank.folder / line.model], line.ensemble, self.models, store=self.store)
        return open_experiment(line.method, dict(line.fields), Sources(), models, str(self.bank.folder), self.machine)


class Found(NamedTuple):
    """LDS at every setting, for the queries that this bank has (for a method of paths, the generated ones alone)."""

    bank: Bank
    settings: Mapping[Setting, LDS]


def measured(line: Line, given: Given) -> Found:
    """The line's scores against retraining."""
    if line.method in REFERENCES:
        return Found(given.bank, {(): Yardstick(given.bank, measurement=line.against).references[line.method]})
    run = given.run(line)
    assert run.bank is not None
    scores, learned = settings(run, line.swept, given.store), learned_from(run, line.swept)
    return Found(run.bank, {setting: against(run.bank, values, learned, line.against) for setting, values in scores.items()})


def measured_scores(line: Line, given: Given) -> np.ndarray:
    """The scores of a line without swept fields, [q, n]."""
    ((_, values),) = settings(given.run(line), {}, given.store).items()
    return values


def figures(line: Line, found: Found, base: Found | None = None) -> Iterator[Row]:
    """The figures of each split: cross-fitted, or with `each` of every setting. `minus` is the paired difference to the base."""
    splits = Yardstick(found.bank).splits
    for part in [{setting: lds} for setting, lds in found.settings.items()] if line.each else [found.settings]:
        for split, row in cross_fitted(found.bank, part).items():
            minus = None
            if base is not None:
                mine, other = (tuned(each, splits[split]).lds for each in (part, same_queries(base, found.bank)))
                minus = difference(mine, other, splits[split])._asdict()
            alone = {"oracle": None, "all": []} if len(part) == 1 else {}
            yield _rounded({"split": split, **row, **alone, "minus": minus})


def same_queries(found: Found, bank: Bank) -> dict[Setting, LDS]:
    """What was found for the queries of `bank`, which may be fewer."""
    places = {content: place for place, content in enumerate(found.bank.queries.hashes)}
    rows = [places[content] for content in bank.queries.hashes]

    def of(lds: LDS) -> LDS:
        return LDS(lds.per_query[rows], lambda: lds.bootstrap[:, rows])

    return {setting: of(lds) for setting, lds in found.settings.items()}


def _rounded(value: Any, name: str = "") -> Any:
    """Figures to five decimals."""
    if isinstance(value, dict):
        return {key: _rounded(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 5) if name in ("lds", "low", "high", "mean") else value


@dataclass(eq=False)
class Bench:
    """Measures lines. The last few are remembered, because others are compared with them."""

    given: Given
    recent: dict[str, tuple[Found, dict[str, Any]]] = field(default_factory=dict)

    def rows(self, line: Line, base: Line | None) -> list[Row]:
        """The rows of a line, with the seconds they took and how many feature rows were not in the store."""
        found, took = self.found(line)
        truth = {"subsets": len(self.given.bank.rows()), "seeds": len(self.given.bank.seeds())}
        same = {**line.settings, "swept": list(line.swept), **truth, **took}
        if base is None:
            return [{**same, **row} for row in figures(line, found)]
        other, _ = self.found(base)
        return [{**same, **row, "minus": {"row": base.name, **row["minus"]}} for row in figures(line, found, other)]

    def found(self, line: Line) -> tuple[Found, dict[str, Any]]:
        """What `measured` says and what it took, from memory if it was asked lately."""
        key = key_of(line)
        if line.each:  # a whole curve, which nothing is compared with
            return self._measured(line)
        self.recent[key] = self.recent.pop(key, None) or self._measured(line)
        while len(self.recent) > RECENT:
            self.recent.pop(next(iter(self.recent)))
        return self.recent[key]

    def _measured(self, line: Line) -> tuple[Found, dict[str, Any]]:
        computed: list[int] = []
        start = time.perf_counter()
        with bar(f"{line.row} {line.column}") as tick:

            def progress(done: int, total: int) -> None:
                tick(done, total)
                computed.extend([total] * (done == total))

            store = replace(self.given.store, progress=progress, dtype=line.dtype or self.given.store.dtype)
            found = measured(line, replace(self.given, store=store))
        return found, {"seconds": round(time.perf_counter() - start, 2), "features_computed": sum(computed)}


def key_of(line: Line, base: Line | None = None) -> str:
    """A name for all that decides a line's rows, but for the bank."""
    settings = [line.settings, None if base is None else base.settings]
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def base_of(recipe: ModuleType, line: Line) -> Line | None:
    """The other line that this one is compared with, if there is one."""
    base = recipe.base(line) if hasattr(recipe, "base") else None
    return None if base == line else base


def run(name: str, given: Given, anew: Sequence[str] = ()) -> list[Row]:
    """Measure what is not known yet of a recipe, and all lines of the methods `anew`; then write its page."""
    recipe = importlib.import_module(name)
    if hasattr(recipe, "page"):
        recipe.page(given)
        return []
    lines = recipe.lines(given)
    if all(line.method in REFERENCES for line in lines):
        print(f"{name}: the bank {given.bank.folder.name} has nothing to measure for it.", file=sys.stderr)
        return []
    kept, bench = Kept(given.folder / f"{name}.json", given.stamp), Bench(given)
    here = {datetime.now(UTC).isoformat(timespec="seconds"): environment()}
    for line in lines:
        base = base_of(recipe, line)
        key = key_of(line, base)
        rows = None if line.method in anew else kept.known.get(key)
        if rows is None:
            kept.runs |= here
            rows = [{"key": key, "run": next(iter(here)), **row} for row in bench.rows(line, base)]
            print(name, line.row, line.column, *(f"{row['split']} {100 * row['lds']:.1f}" for row in rows[:2]), file=sys.stderr)
        if base is not None:  # another recipe may call the same base by another name
            rows = [{**row, "minus": {**row["minus"], "row": base.name}} for row in rows]
        kept.put([{**line.place, **row, **line.place} for row in rows])
    pages.write(recipe, kept.rows, given.bank, given.folder)
    return kept.rows


def tuned_line(line: Line, given: Given) -> Line:
    """The line with its swept fields as they are best on validation: for pictures, where no figure is reported."""
    found = measured(line, given)
    splits = Yardstick(found.bank).splits
    best = tuned(found.settings, splits.get("val", next(iter(splits.values())))).oracle
    return replace(line, fields={**line.fields, **dict(best)}, swept={})


def time_alone(name: str, given: Given) -> None:
    """Seconds of each line at one setting, from an empty store: all its features and scores. Only on a quiet machine."""
    recipe, kept = importlib.import_module(name), Kept(given.folder / f"{name}.json", given.stamp)
    here = {datetime.now(UTC).isoformat(timespec="seconds"): environment()}
    for line in recipe.lines(given):
        one = replace(line, swept={field: values[:1] for field, values in line.swept.items()})
        with tempfile.TemporaryDirectory() as empty:
            start = time.perf_counter()
            measured(one, replace(given, store=replace(given.store, root=Path(empty))))
        alone = {"seconds_from_empty_store": round(time.perf_counter() - start, 2), "run_of_seconds": next(iter(here))}
        rows = kept.known.get(key_of(line, base_of(recipe, line)), [])
        kept.runs |= here
        kept.put([{**row, **line.place, **(alone if line.method not in REFERENCES else {})} for row in rows])
    pages.write(recipe, kept.rows, given.bank, given.folder)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The options that all recipes share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", default="digits", help="a bank that ships, or its folder")
    parser.add_argument("--store", type=Path, help="where features are kept [default: $HEADWATER_STORE or the user cache]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows and pages go [default: docs/results]")
    parser.add_argument("--timesteps", type=int, nargs="+", help="numbers of timesteps [default: the recipe's own]")
    parser.add_argument("--embedder", help="for clip: a name, a folder, or package.module:function [default: clip is left out]")
    parser.add_argument("--models", type=Path, help="where models of learning subsets are kept [default: in the store]")
    parser.add_argument("--anew", nargs="+", default=[], metavar="METHOD", help="measure these methods again")
    parser.add_argument("--workers", type=int, help="compute features in so many processes [default: in this one]")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, …")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB that one pass through a model may take")
    parser.add_argument("--seconds", action="store_true", help="only the seconds of each line, each from an empty store")
    return parser


def given_of(words: argparse.Namespace) -> Given:
    """What the options stand for."""
    root = words.store or default_root()
    return Given(
        bank=open_bank(words.bank),
        store=FeatureStore(root, crew=crew(words.workers, None, 0)),
        models=words.models or root / "models",
        machine=Machine(words.device, words.memory),
        results=words.results,
        timesteps=tuple(words.timesteps) if words.timesteps else None,
        embedder=words.embedder,
    )


def main(*names: str, doc: str | None = None) -> None:
    """Carry out the recipes as the command line says, and write the index of all results."""
    words = arguments(doc).parse_args()
    try:
        given = given_of(words)
        for name in names:
            time_alone(name, given) if words.seconds else run(name, given, words.anew)
    except UserError as error:
        sys.exit(f"{error}")
    pages.index([[importlib.import_module(name) for name in paper] for paper in (D_TRAK, K_FAC, NDA)], given.results)
