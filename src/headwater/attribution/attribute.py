"""`attribute`: models × training images × queries × method → scores."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from headwater.attribution.notes import note_on_checkpoints, notes_on_conditions
from headwater.data import open_examples
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import encoded
from headwater.diffusion.paths import stored_path
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import Warn, once, to_warnings
from headwater.examples import Examples, alike, labelled_like
from headwater.families.protocol import Method, PathBound, Staged
from headwater.methods import field_values, settings_of
from headwater.models import hub, loading
from headwater.scores import Scores, dense


@dataclass(eq=False)
class Clock:
    """Seconds spent in each named stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


class SetScores(NamedTuple):
    """Scores of several sets of queries from one fit, with the self scores and what the fields became."""

    sets: list[Float32[np.ndarray, "q n"]]
    self_scores: Float32[np.ndarray, " n"]
    resolved: dict[str, Any]


Model = Denoiser | str | Path


def attribute(
    model: Model | Sequence[Model] | None,
    train: Examples | str,
    queries: Examples | str,
    *,
    method: Method,
    store: FeatureStore | None = None,
    warn: Warn = to_warnings,
) -> Scores:
    """Scores of every training image for every query: positive where removing the image should raise the
    query's loss.

    Several models are an ensemble: the mean of their scores, member s with its own projection and draws (seed
    + s). Images are Examples or a source's name; a model is a Denoiser or a folder. `store` keeps the
    features, and its `memory` is the budget of a pass. `warn` hears of what is not an error, such as captions
    that are cut off."""
    warn = once(warn)
    store = store or FeatureStore(default_root())
    train = _examples(train, "training images", warn)
    queries = labelled_like(_examples(queries, "queries", warn), train, warn)
    models = [None] if model is None else [model] if isinstance(model, Model) else list(model)
    checkpoints = method.checkpoints if isinstance(method, Staged) else 0
    denoisers = [_opened(source, checkpoints, warn) for source in models]
    for denoiser in denoisers:
        for note in [] if denoiser is None else notes_on_conditions(denoiser, train, queries):
            warn(note)
    if denoisers == [None]:
        train, queries = alike(train, queries)
    clock = Clock()
    heard = replace(store, warn=once(store.warn))
    (values,), self_scores, _ = scores_of_sets(denoisers, train, [queries], method, heard, clock)
    provenance = {"method": type(method).__name__, "fields": field_values(method), "seconds": clock.seconds}
    return Scores(values, queries.ids, train.ids, self_scores, provenance)


def scores_of_sets(
    models: Sequence[Denoiser | None],
    train: Examples,
    sets: Sequence[Examples],
    method: Method,
    store: FeatureStore,
    clock: Clock,
) -> SetScores:
    """The scores of each set of queries from one fit; over several models, the mean."""
    for model in models:
        for examples in (train, *sets):
            if model is not None:
                model.check(examples)
    with clock.stage("encode"):
        inputs = [[encoded(model, examples, store) for examples in (train, *sets)] for model in models]
    for model, (_, *query_sets) in zip(models, inputs, strict=True):
        for queries in query_sets:
            check_paths(method, [] if model is None else [model], queries)
    blocks: list[list[np.ndarray]] = []
    self_scores: list[np.ndarray] = []
    resolved: dict[str, Any] = {}
    ensemble = members(models, method, store.memory)
    for (model, member), (examples, *query_sets) in zip(ensemble, inputs, strict=True):
        with clock.stage("fit"):
            index = member.fit(model, examples, store)
        with clock.stage("score"):
            blocks.append([dense(member.score(index, queries, store)) for queries in query_sets])
            self_scores.append(np.asarray(member.self_scores(index), np.float32))
        resolved = resolved or dict(member.resolved(index))
    means = [np.mean(scores, axis=0) for scores in zip(*blocks, strict=True)]
    _warn_of_zeros(means, sets, store)
    return SetScores(means, np.mean(self_scores, axis=0), resolved)


def _warn_of_zeros(
    means: Sequence[Float32[np.ndarray, "q n"]], sets: Sequence[Examples], store: FeatureStore
) -> None:
    """Say which queries have no score but 0: nothing reached them, or the damping left nothing."""
    for scores, queries in zip(means, sets, strict=True):
        rows = np.flatnonzero(~scores.any(axis=1))
        if len(rows):
            store.warn(
                f"Every score of {len(rows)} of {len(queries)} queries is 0, the first "
                f"{queries.ids[rows[0]]}: their gradients are zero, or the damping is so large that scores "
                "are below the smallest number."
            )


def check_paths(method: Method, models: Sequence[Denoiser], queries: Examples) -> None:
    """Raise a DataError where the method needs the path that made each query and there is none, or none of
    the model's."""
    if isinstance(method, PathBound) and method.along_path:
        stored_path(queries, min((model.schedule.T for model in models), default=None))


def members(
    models: Sequence[Denoiser | None], method: Method, memory: int
) -> Iterator[tuple[Denoiser | None, Method]]:
    """Each model of an ensemble, within `memory` bytes, with its method: member s draws and projects by
    seed + s."""
    for s, model in enumerate(models):
        seeded = s > 0 and "seed" in settings_of(method)
        member = replace(method, seed=method.seed + s) if seeded else method  # pyright: ignore
        yield None if model is None else model.within(memory), member


def _opened(source: Model | None, checkpoints: int, warn: Warn) -> Denoiser | None:
    """The model with its checkpoints; notes on it go to `warn`."""
    if source is None:
        return None
    name, notes = "The model", []
    if not isinstance(source, Denoiser):
        folder = hub.place(source, hub.pipeline_files)
        name, notes, source = str(source), loading.notes_on(folder), loading.load(folder)
    model = source.with_checkpoints(checkpoints)
    for note in notes + note_on_checkpoints(name, model, checkpoints):
        warn(note)
    return model


def _examples(source: Examples | str, kind: str, warn: Warn) -> Examples:
    return open_examples(source, kind=kind, warn=warn) if isinstance(source, str) else source
