"""One experiment: everything that decides the scores of a run, and the run folder made from it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headwater.attribution.attribute import Clock, members, scores_of_sets
from headwater.bank import Bank
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import encoded
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, once
from headwater.evaluate.ground_truth import ground_truth
from headwater.examples import Examples, alike, with_channels
from headwater.families.protocol import Embedding, Mapped, Method, PathBound
from headwater.methods import field_values, make
from headwater.patches.regions import Regions
from headwater.run import existing_info, first_queries, holds_run, write_run
from headwater.scores import Scores

REGIONS = 48  # queries of which maps are drawn, by methods that can


@dataclass(frozen=True, eq=False)
class Experiment:
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
            model.check(self.train)
            model.check(self.queries)
        if not self.models:
            self._show_alike()
        if self.bank is not None:
            self.bank.check_made_from(self.train)
            check_draws(self.built(), self.bank, len(self.models))

    def _show_alike(self) -> None:
        """Compare images without a model with equally many channels; those of a bank stay as they are."""
        if self.bank is None:
            train, queries = alike(self.train, self.queries)
        else:
            train, queries = self.train, with_channels(self.queries, self.train.shape[0])
        object.__setattr__(self, "train", train)
        object.__setattr__(self, "queries", queries)

    def built(self) -> Method:
        """The method with its fields."""
        return make(self.method, dict(self.fields), self.bank)

    @property
    def settings(self) -> dict[str, Any]:
        """What must be equal for two runs to have equal scores."""
        method = self.built()
        settings: dict[str, Any] = {
            "method": self.method,
            "fields": field_values(method),
            "train": self.train.fingerprint,
            "queries": self.queries.fingerprint,
            "models": [model.fingerprint for model in self.models],
            "bank": None if self.bank is None else self.bank.state,
        }
        return json.loads(json.dumps(settings | self._special_settings(method)))

    def _special_settings(self, method: Method) -> dict[str, Any]:
        """The settings that only some methods and some models have."""
        settings: dict[str, Any] = {}
        if isinstance(method, Embedding):
            settings["embedder"] = method.fingerprint
        if any(model.text is not None for model in self.models):
            settings["prompts"] = [self.train.prompts, self.queries.prompts]
        if any(model.checkpoints for model in self.models):
            stages = [model.checkpoints for model in self.models]
            settings["checkpoints"] = [[stage.fingerprint for stage in model] for model in stages]
        if isinstance(method, PathBound) and method.along_path:
            settings["paths"] = self.queries.path_keys
        return settings


def run(
    experiment: Experiment, out: Path, store: FeatureStore, *, force: bool = False, maps: bool = True
) -> bool:
    """Make the run folder `out`; False where it already holds this very run. Other settings are refused
    without `force`.

    `maps`: draw where in the queries each training image counts, of a method that knows.
    """
    settings, method = experiment.settings, experiment.built()
    drawn = maps and isinstance(method, Mapped)
    if not _is_new(out, method, settings, drawn, force):
        return False
    _check_bank_paths(experiment, method)
    clock, started, notes = Clock(), datetime.now(UTC), list[str]()
    store = replace(store, warn=once(store.warn, notes))
    sets = [experiment.queries] if experiment.bank is None else [experiment.queries, experiment.bank.queries]
    models = list(experiment.models) or [None]
    (values, *of_bank), self_scores, resolved = scores_of_sets(
        models, experiment.train, sets, method, store, clock
    )
    scores = Scores(values, experiment.queries.ids, experiment.train.ids, self_scores)
    with clock.stage("ground truth"):
        truth = _truth(experiment, method, of_bank, resolved.get("subsets", ()))
    regions = _regions(experiment, method, store, clock) if drawn else None
    info = describe(experiment, method, settings) | {
        "notes": [*experiment.notes, *notes],
        "ground_truth": truth,
        "signed": method.signed,
        "maps": regions is not None,
        "resolved": resolved,
        "seconds": clock.seconds,
        "started": started.isoformat(timespec="seconds"),
    }
    write_run(out, experiment.train, experiment.queries, scores, regions, info)
    return True


def _with_defaults(settings: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """The settings of a run, with the defaults of fields that the method did not have when it was made."""
    defaults = {field.name: field.default for field in dataclasses.fields(method)}  # pyright: ignore
    known = {name: value for name, value in defaults.items() if name in field_values(method)}
    fields = json.loads(json.dumps(known, default=str)) | settings.get("fields", {})
    return {**settings, "fields": fields}


def check_draws(method: Method, bank: Bank, models: int) -> None:
    """Refuse a seed under which the method sees the very noise that the bank's outcomes were measured with;
    member s of an ensemble draws by seed + s."""
    first = field_values(method).get("seed")
    outcomes = bank.info["recipe"].get("outcome_draws", {}).get("seed")
    if first is not None and outcomes in range(first, first + max(1, models)):
        raise OptionError(
            f"seed is {first}; the outcomes of the bank {bank.folder.name} were measured with the noise of "
            f"seed {outcomes}, and a method that sees the same noise would look better than it is. Choose "
            "another seed."
        )


def _is_new(out: Path, method: Method, settings: Mapping[str, Any], drawn: bool, force: bool) -> bool:
    """Whether this run is still to be made in `out`; a run with other settings there is refused without
    `force`."""
    existing = existing_info(out)
    repeated = existing is not None and _with_defaults(existing.get("settings", {}), method) == settings
    # an unknown embedder may have changed
    known = not isinstance(method, Embedding) or method.fingerprint is not None
    if repeated and known and holds_run(out, maps=drawn) and not force:
        return False
    if existing is not None and not repeated and not force:
        raise OptionError(
            f"{out} already holds a run of {existing.get('method', 'another method')} with other settings. "
            "Name another folder.",
            hint="Name another folder with --out, or overwrite it with --force.",
        )
    return True


def _check_bank_paths(experiment: Experiment, method: Method) -> None:
    """Refuse a comparison with a bank whose queries lack the paths that the method needs."""
    if experiment.bank is None or not (isinstance(method, PathBound) and method.along_path):
        return
    if experiment.bank.queries.trajectory is None:
        raise OptionError(
            f"The bank's queries have no sampler's path, which {experiment.method} with these fields needs: "
            "it cannot be compared with retraining.",
            hint="Leave --bank out.",
        )


def _truth(
    experiment: Experiment, method: Method, of_bank: Sequence[np.ndarray], learned: Sequence[int]
) -> dict[str, Any] | None:
    """The agreement with the bank, if there is one, with the figures of those of the run's own queries that
    the bank has."""
    if experiment.bank is None:
        return None
    truth = ground_truth(experiment.bank, of_bank[0], learned, signed=method.signed).as_json()
    figures = dict(zip(experiment.bank.queries.hashes, truth["per_query"], strict=True))
    return truth | {"per_query": [figures.get(content) for content in experiment.queries.hashes]}


def _regions(experiment: Experiment, method: Method, store: FeatureStore, clock: Clock) -> Regions:
    with clock.stage("regions"):
        model, first = next(members(list(experiment.models) or [None], method, store.memory))
        assert isinstance(first, Mapped)
        rows = first_queries(experiment.queries, REGIONS)
        train, queries = (
            encoded(model, examples, store) for examples in (experiment.train, experiment.queries)
        )
        return first.regions(first.fit(model, train, store), queries, store, rows)


def _models(experiment: Experiment) -> list[dict[str, Any]]:
    names = experiment.sources.get("models", [])
    return [
        {
            "path": str(names[i]) if i < len(names) else "",
            "fingerprint": model.fingerprint,
            "parameters": sum(p.numel() for p in model.module.parameters()),
            "dtype": str(model.dtype)[6:],
        }
        for i, model in enumerate(experiment.models)
    ]


def describe(experiment: Experiment, method: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `run.json` that is known before anything has run: method, fields, sources, fingerprints,
    versions."""
    paragraphs = [" ".join(part.split()) for part in (type(method).__doc__ or "").split("\n\n")]
    fields = field_values(method)
    return {
        "headwater": version("headwater"),
        "method": experiment.method,
        "title": method.title,
        "equation": paragraphs[0],
        "summary": paragraphs[1] if len(paragraphs) > 1 else "",
        "fields": fields,
        "seed": fields.get("seed"),
        "models": _models(experiment),
        "train": _source(experiment.sources.get("train", ""), experiment.train),
        "query": _source(experiment.sources.get("query", ""), experiment.queries),
        "versions": {name: version(name) for name in ("torch", "numpy", "diffusers")},
        "device": str(experiment.models[0].device) if experiment.models else "cpu",
        "notes": list(experiment.notes),
        "settings": dict(settings),
    }


def _source(source: object, examples: Examples) -> dict[str, Any]:
    return {"source": str(source), "count": len(examples), "fingerprint": examples.fingerprint}
