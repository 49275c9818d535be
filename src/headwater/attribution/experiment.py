"""One experiment: models × training images × queries × method → scores → a run folder that the report is made from."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from headwater import scores as ranking
from headwater.bank import Bank
from headwater.data import open_examples
from headwater.diffusion.denoiser import Denoiser, check_fits
from headwater.diffusion.draws import kept_path
from headwater.diffusion.encoding import encoded
from headwater.disk.files import written
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import OptionError
from headwater.evaluate.ground_truth import ground_truth
from headwater.examples import Examples, labelled_like
from headwater.methods import make, settings_of
from headwater.models import loading
from headwater.patches.regions import Regions, write_regions
from headwater.run import chosen
from headwater.scores import Scores

REGIONS = 48  # queries of which maps are drawn, by methods that can
PICTURES = 2**26  # bytes of training pictures that a run folder keeps whole; of larger sets only those that the report shows


@dataclass(eq=False)
class Clock:
    """Seconds spent in each named stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


Model = Denoiser | str | Path


def attribute(
    model: Model | Sequence[Model] | None,
    train: Examples | str,
    queries: Examples | str,
    *,
    method: Any,
    store: FeatureStore | None = None,
) -> Scores:
    """Scores of every training image for every query: positive where removing the image should raise the query's loss.

    Several models are an ensemble: the mean of their scores, member s with its own projection and draws (seed + s).
    Images are Examples or a source's name; a model is a Denoiser or a folder.
    """
    train = _examples(train)
    queries = labelled_like(_examples(queries), train)
    given = [None] if model is None else [model] if isinstance(model, Model) else list(model)
    wanted = getattr(method, "checkpoints", 0)
    denoisers = [loading.load(each, checkpoints=wanted) if isinstance(each, str | Path) else each for each in given]
    clock = Clock()
    (values,), own, _ = scored(denoisers, train, [queries], method, store or FeatureStore(default_root()), clock)
    provenance = {"method": type(method).__name__, "fields": fields(method), "seconds": clock.seconds}
    return Scores(values, queries.ids, train.ids, own, provenance)


def scored(
    models: Sequence[Denoiser | None], train: Examples, sets: Sequence[Examples], method: Any, store: FeatureStore, clock: Clock
) -> tuple[list[Float32[np.ndarray, "q n"]], Float32[np.ndarray, " n"], dict[str, Any]]:
    """The scores of each set of queries from one fit, the self scores, and what the fields became; over models, their mean."""
    each: list[list[np.ndarray]] = []
    own: list[np.ndarray] = []
    resolved: dict[str, Any] = {}
    for model in models:
        for examples in (train, *sets):
            if model is not None:
                check_fits(model, examples)
    with clock.stage("encode"):
        shown = [[encoded(model, examples, store) for examples in (train, *sets)] for model in models]
    for model, (_, *asked) in zip(models, shown, strict=True):
        for queries in asked:
            check_queries(method, [] if model is None else [model], queries)
    for (model, mine), (seen, *asked) in zip(members(models, method), shown, strict=True):
        with clock.stage("fit"):
            index = mine.fit(model, seen, store)
        with clock.stage("score"):
            each.append([ranking.dense(mine.score(model, index, queries, store)) for queries in asked])
            own.append(np.asarray(mine.self_scores(index), np.float32))
        resolved = resolved or dict(mine.resolved(index))
    return [np.mean(found, axis=0) for found in zip(*each, strict=True)], np.mean(own, axis=0), resolved


def check_queries(method: Any, models: Sequence[Denoiser], queries: Examples) -> None:
    """Raise a DataError where the method needs the path that made each query and it is not there, or is no path of the model."""
    if getattr(method, "along_path", False):
        kept_path(queries, min((model.schedule.T for model in models), default=None))


def members(models: Sequence[Denoiser | None], method: Any) -> Iterator[tuple[Denoiser | None, Any]]:
    """Each model of an ensemble with its method: member s draws and projects by seed + s."""
    for s, model in enumerate(models):
        yield model, replace(method, seed=method.seed + s) if s and "seed" in settings_of(method) else method


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that decides the scores of a run, opened and checked before the first gradient."""

    method: str
    fields: Mapping[str, Any]
    train: Examples
    queries: Examples
    models: Sequence[Denoiser] = ()
    bank: Bank | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)  # what the user called train, query and models
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for model in self.models:
            check_fits(model, self.train)
            check_fits(model, self.queries)
        if self.bank is not None:
            self.bank.check_made_from(self.train)

    def made(self) -> Any:
        """The method."""
        return make(self.method, dict(self.fields), self.bank)

    @property
    def settings(self) -> dict[str, Any]:
        """What must be equal for two runs to have equal scores."""
        settings = {
            "method": self.method,
            "fields": fields(self.made()),
            "train": self.train.fingerprint,
            "queries": self.queries.fingerprint,
            "models": [model.fingerprint for model in self.models],
            "bank": None if self.bank is None else self.bank.state,
        }
        if hasattr(self.made(), "fingerprint"):
            settings["embedder"] = self.made().fingerprint
        if any(model.text is not None for model in self.models):
            settings["prompts"] = [self.train.prompts, self.queries.prompts]
        if any(model.checkpoints for model in self.models):
            settings["checkpoints"] = [[each.fingerprint for each in model.checkpoints] for model in self.models]
        if getattr(self.made(), "along_path", False):
            settings["paths"] = self.queries.path_keys
        return json.loads(json.dumps(settings))


def run(experiment: Run, out: Path, store: FeatureStore, *, force: bool = False, maps: bool = True) -> bool:
    """Make the run folder `out`; False where it already holds this very run. Other settings are refused without `force`.

    `maps`: draw where in the queries which training image counts, of a method that can tell.
    """
    settings = experiment.settings
    there = _there(out)
    same = there is not None and there.get("settings") == settings
    method = experiment.made()
    known = getattr(method, "fingerprint", "") is not None  # an embedder that does not say what it is may be another now
    drawn = maps and hasattr(method, "regions")
    whole = (out / "scores.npy").exists() and ((out / "regions.npz").exists() or not drawn)
    if same and known and whole and not force:
        return False
    if there is not None and not same and not force:
        raise OptionError(
            f"{out} already holds a run of {there.get('method', 'another method')} with other settings. "
            "Name another folder with --out, or overwrite it with --force."
        )
    if experiment.bank is not None and getattr(method, "along_path", False) and experiment.bank.queries.trajectory is None:
        raise OptionError(
            f"The bank's queries have no sampler's path, which {experiment.method} with these fields needs: it cannot be compared "
            "with retraining. Leave --bank out."
        )
    clock, started = Clock(), datetime.now(UTC)
    sets = [experiment.queries] if experiment.bank is None else [experiment.queries, experiment.bank.queries]
    (values, *of_bank), own, resolved = scored(list(experiment.models) or [None], experiment.train, sets, method, store, clock)
    scores = Scores(values, experiment.queries.ids, experiment.train.ids, own)
    with clock.stage("ground truth"):
        learned = resolved.get("subsets", ())
        truth = None
        if experiment.bank is not None:
            truth = ground_truth(experiment.bank, of_bank[0], learned, signed=method.signed).as_json()
            known = dict(zip(experiment.bank.queries.hashes, truth["per_query"], strict=True))
            truth["per_query"] = [known.get(content) for content in experiment.queries.hashes]
    regions = None
    if drawn:
        with clock.stage("regions"):
            model, rows = next(iter(experiment.models), None), chosen(experiment.queries, REGIONS)
            shown = (encoded(model, examples, store) for examples in (experiment.train, experiment.queries))
            regions = method.regions(model, *shown, store, rows)
    info = describe(experiment, method, settings) | {
        "ground_truth": truth,
        "signed": method.signed,
        "maps": regions is not None,
        "resolved": resolved,
        "seconds": clock.seconds,
        "started": started.isoformat(timespec="seconds"),
    }
    _write(experiment, scores, info, out, regions)
    return True


def describe(experiment: Run, method: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` says before anything has run: method, fields, sources, fingerprints, versions."""
    paragraphs = [" ".join(part.split()) for part in (type(method).__doc__ or "").split("\n\n")]
    names = experiment.sources.get("models", [])
    return {
        "headwater": version("headwater"),
        "method": experiment.method,
        "title": method.title,
        "equation": paragraphs[0],
        "summary": paragraphs[1] if len(paragraphs) > 1 else "",
        "fields": fields(method),
        "seed": fields(method).get("seed"),
        "models": [
            {
                "path": str(names[i]) if i < len(names) else "",
                "fingerprint": model.fingerprint,
                "parameters": sum(p.numel() for p in model.module.parameters()),
                "dtype": str(model.dtype)[6:],
            }
            for i, model in enumerate(experiment.models)
        ],
        "train": _told(experiment.sources.get("train", ""), experiment.train),
        "query": _told(experiment.sources.get("query", ""), experiment.queries),
        "versions": {name: version(name) for name in ("torch", "numpy", "diffusers")},
        "device": str(experiment.models[0].device) if experiment.models else "cpu",
        "notes": list(experiment.notes),
        "settings": dict(settings),
    }


def fields(method: Any) -> dict[str, Any]:
    """A method's hyperparameters as JSON-ready values."""
    return json.loads(json.dumps({name: getattr(method, name) for name in settings_of(method)}, default=lambda o: o.name))


def device(name: str) -> str:
    """`name` where torch can put a tensor there; else an OptionError."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise OptionError(f"The device '{name}' is not available here. Use --device cpu.") from error
    return name


def _examples(source: Examples | str) -> Examples:
    return open_examples(source) if isinstance(source, str) else source


def _there(out: Path) -> dict[str, Any] | None:
    path = out / "run.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        return {}


def _told(source: object, examples: Examples) -> dict[str, Any]:
    return {"source": str(source), "count": len(examples), "fingerprint": examples.fingerprint}


def _write(experiment: Run, scores: Scores, info: Mapping[str, Any], out: Path, regions: Regions | None) -> None:
    """Write the run folder, `run.json` last: a folder without it holds no run."""
    (out / "run.json").unlink(missing_ok=True)
    for name, array in (("scores.npy", scores.values), ("self.npy", scores.self_scores)):
        with written(out / name) as file:
            np.save(file, array)
    (out / "regions.npz").unlink(missing_ok=True)
    if regions is not None:
        write_regions(out / "regions.npz", regions)
    with written(out / "pictures.npz") as file:
        np.savez_compressed(file, **_pictures(experiment, scores, regions))
    with written(out / "run.json", "w") as file:
        json.dump(info, file, indent=1, ensure_ascii=False)


def _pictures(experiment: Run, scores: Scores, regions: Regions | None) -> dict[str, Any]:
    """The pictures that a report needs: all, or for a large training set those that can be shown."""
    train, queries, values, own = experiment.train, experiment.queries, scores.values, scores.self_scores
    rows = np.arange(len(train))
    if train.images.nbytes > PICTURES:
        shown = [ranking.top([values], 50).rows, ranking.top([-values], 50).rows]
        shown += [ranking.top([sign * own[None]], 50).rows for sign in (1, -1) if np.isfinite(own).all()]
        shown += [] if regions is None else [regions.images]
        rows = np.unique(np.concatenate([part.ravel() for part in shown]))
    found: dict[str, Any] = {
        "train_images": train.images[rows],
        "train_rows": rows,
        "train_ids": np.array(train.ids),
        "query_images": queries.images,
        "query_ids": np.array(queries.ids),
    }
    for side, examples in (("train", train), ("query", queries)):
        if examples.labels is not None:
            found[f"{side}_labels"] = examples.labels
    words = {"train_groups": train.groups, "train_prompts": train.prompts, "query_split": queries.split}
    words |= {"query_groups": queries.groups, "query_prompts": queries.prompts}
    found |= {name: np.array(column) for name, column in words.items() if column is not None}
    return found
