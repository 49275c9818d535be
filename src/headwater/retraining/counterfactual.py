"""Counterfactual jobs: for each method and query, train without the query's strongest proponents and make the picture again.

The retrained model has the full model's seed and number of steps, and the picture starts from the same noise. Each job's result is
one file named by all that decides it, so a run that was stopped goes on, and equal removals are done once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from headwater import seeds
from headwater.bank import Bank
from headwater.diffusion.encoding import encoded
from headwater.disk.files import locked, written
from headwater.disk.npz import arrays as read_arrays
from headwater.errors import DataError
from headwater.evaluate.counterfactual import Paired, distance, paired, spread, without
from headwater.examples import Examples, to_uint8
from headwater.families.embedding import Embedder, cosine
from headwater.methods.random import Random
from headwater.models import loading
from headwater.models.cache import Training, trained
from headwater.retraining.build import Place
from headwater.retraining.jobs import trainable
from headwater.retraining.outcomes import outcomes
from headwater.retraining.queries import regenerated, told_of
from headwater.retraining.recipe import BankRecipe, from_fields
from headwater.run import RunFolder, distinguished
from headwater.scores import dense

RANDOM = "Random removal"


class Removal(NamedTuple):
    """Training images that stay, and the place of the query (in the bank's) whose picture is made again."""

    kept: Bool[np.ndarray, " n"]
    query: int


class Shared(NamedTuple):
    """What all jobs need."""

    recipe: BankRecipe
    training: Examples
    queries: Examples
    model: Path
    place: Place


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What to remove: for each method its scores of the chosen queries, `[query, train]`, and how many images go."""

    bank: Bank
    scores: Mapping[str, Float32[np.ndarray, "q n"]]
    queries: Sequence[int]
    counts: Sequence[int]
    signed: Mapping[str, bool]

    def shared(self, place: Place) -> Shared:
        """What the jobs need of the bank."""
        bank = self.bank
        return Shared(from_fields(bank.info["recipe"]), bank.train, bank.queries, bank.folder / "model", place)

    def before(self) -> list[Removal]:
        """Nothing removed, for each query."""
        return [Removal(np.ones(len(self.bank.train), bool), query) for query in self.queries]

    def removals(self) -> dict[tuple[str, int, int], Removal]:
        """The removal of (method, count, query)."""
        return {
            (name, k, query): Removal(without(values[row], k), query)
            for name, values in self.scores.items()
            for k in self.counts
            for row, query in enumerate(self.queries)
        }


def planned(bank: Bank, runs: Sequence[RunFolder], queries: int, counts: Sequence[int]) -> Counterfactual:
    """`queries` of the bank's generated pictures, drawn by name among those that every run has scored; random removal is added."""
    recipe = from_fields(bank.info["recipe"])
    split = bank.queries.split or ()
    generated = [place for place, word in enumerate(split) if word == "gen"][: recipe.generated]
    rows = [{content: row for row, content in enumerate(run.queries.hashes)} for run in runs]
    for run in runs:
        if len(run.scores.train_ids) != len(bank.train):
            raise DataError(
                f"The run {run.folder} has {len(run.scores.train_ids)} training images; the bank has {len(bank.train)}."
            )
    hashes = bank.queries.hashes
    common = [place for place in generated if all(hashes[place] in each for each in rows)]
    if len(common) < queries:
        raise DataError(
            f"The runs share {len(common)} of the bank's generated queries; expected at least {queries}. Make them with "
            f"--query {bank.folder}/queries.npz."
        )
    chosen = sorted(seeds.stream(0, "counterfactual").permutation(common)[:queries].tolist())
    runs = distinguished(runs)
    scores = {run.name: run.scores.values[[each[hashes[q]] for q in chosen]] for run, each in zip(runs, rows, strict=True)}
    chance = dense(Random().score(bank.train, bank.queries.take(chosen)))
    signed = {run.name: run.signed for run in runs} | {RANDOM: True}
    return Counterfactual(bank, {RANDOM: chance.astype(np.float32), **scores}, chosen, counts, signed)


def remove(what: Counterfactual, folder: Path, place: Place) -> Iterator[tuple[int, int]]:
    """Do the jobs that have no result in `folder` yet; yields (done, in all) after each."""
    place.crew.check()
    shared = what.shared(place)
    removals = {_name(shared, each): each for each in (*what.before(), *what.removals().values())}
    with locked(folder / "parts", wait=False):
        there = {name for name in removals if _result(shared, folder, name) is not None}
        jobs = [each for name, each in removals.items() if name not in there]
        yield len(there), len(removals)
        for done, (job, found) in enumerate(place.crew.work(retrained, shared, jobs), len(there) + 1):
            with written(folder / "parts" / f"{_name(shared, job)}.npz") as file:
                np.savez(file, **found)
            yield done, len(removals)


def retrained(shared: Shared, job: Removal) -> dict[str, np.ndarray]:
    """The picture as the model makes it that was trained on what stays, and the query's outcomes under that model."""
    if job.kept.all() and loading.has_model(shared.model):
        model = loading.load(shared.model, shared.place.device)
    else:
        training = _training(shared, job, shared.place.device)
        model = trained(training, shared.training, shared.place.models, device=shared.place.device)
    recipe, queries = shared.recipe, shared.queries
    number = job.query - (queries.split or ()).index("gen")
    told = told_of(recipe, model, shared.training)
    picture = regenerated(recipe, model, range(number, number + 1), told)[0]
    query = encoded(model, queries.take([job.query]), shared.place.store)
    measured = outcomes(model, query, recipe.measurements, recipe.outcome_draws)
    return {"picture": picture, **{name: values[0] for name, values in measured.items()}}


def collected(what: Counterfactual, folder: Path, place: Place, embedder: Embedder | None = None) -> dict[str, Any]:
    """What the removals did: every effect of every query, quartiles, and each method against random removal; pictures beside."""
    shared = what.shared(place)
    before = _stacked([_needed(shared, folder, each) for each in what.before()])
    found: dict[str, Any] = {"methods": {}}
    pictures = {"before": to_uint8(before["picture"])}
    for name in what.scores:
        found["methods"][name] = {"signed": what.signed[name], "removed": {}}
        for k in what.counts:
            removals = (Removal(without(row, k), query) for row, query in zip(what.scores[name], what.queries, strict=True))
            after = _stacked([_needed(shared, folder, each) for each in removals])
            found["methods"][name]["removed"][str(k)] = effects(before, after, embedder)
            pictures[f"{name}/{k}"] = to_uint8(after["picture"])
    _compare(found["methods"], what.counts)
    with written(folder / "pictures.npz") as file:
        np.savez_compressed(file, **pictures)  # pyright: ignore[reportArgumentType]
    found = _described(what, embedder) | found
    with written(folder / "counterfactual.json", "w") as file:
        json.dump(found, file, indent=1, ensure_ascii=False)
    return found


def effects(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], embedder: Embedder | None) -> dict[str, Any]:
    """Each effect of each query, and its quartiles: `l2`, `cosine` (with an embedder), and the rise of every measurement."""
    each = {"l2": distance(before["picture"], after["picture"])}
    if embedder is not None:
        each["cosine"] = cosine(*(embedder(to_uint8(side["picture"])) for side in (before, after)))
    each |= {name: after[name].astype(np.float64) - before[name] for name in before if name not in ("picture", "per-timestep")}
    return {name: {"each": values.tolist(), "quartiles": spread(values)._asdict()} for name, values in each.items()}


def _described(what: Counterfactual, embedder: Embedder | None) -> dict[str, Any]:
    bank = what.bank
    recipe = from_fields(bank.info["recipe"])
    guided = "" if recipe.guidance == 1 else f", guidance {recipe.guidance:g}"
    return {
        "bank": bank.folder.name,
        "train": len(bank.train),
        "queries": [bank.queries.ids[query] for query in what.queries],
        "removed": list(what.counts),
        "embedder": None if embedder is None else embedder.name,
        "steps": recipe.training.total(len(bank.train)),
        "sampler": f"{recipe.sampler}, {recipe.sample_steps} steps" + guided,
        "seed": 0,
    }


def _compare(methods: dict[str, Any], counts: Sequence[int]) -> None:
    """Each method's effects against those of random removal on the same queries."""
    for name, found in methods.items():
        for k in map(str, counts):
            for effect, values in found["removed"][k].items():
                if name != RANDOM:
                    control = np.array(methods[RANDOM]["removed"][k][effect]["each"])
                    values["against_random"] = _words(paired(np.array(values["each"]), control))


def _words(found: Paired) -> dict[str, Any]:
    return {**found.difference._asdict(), "p": found.p, "above": found.above}


def _training(shared: Shared, job: Removal, device: str) -> Training:
    """The full model's seed and number of steps, whatever is left."""
    recipe = shared.recipe
    steps = recipe.training.total(len(shared.training))
    network = trainable(recipe, shared.training.shape[1:], shared.place.store, device)
    return Training(network, replace(recipe.training, steps=steps), 0, job.kept)


def _name(shared: Shared, job: Removal) -> str:
    """A hash of the training, and of all that decides what is seen of its model."""
    recipe, split = shared.recipe, shared.queries.split or ()
    settings = {
        "training": _training(shared, job, shared.place.here).name(shared.training),
        "query": shared.queries.keys[job.query],
        "number": job.query - split.index("gen"),
        "sampler": [recipe.sampler, recipe.sample_steps, recipe.sample_seed],
        "measured": [*recipe.measurements, asdict(recipe.outcome_draws)],
    }
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def _result(shared: Shared, folder: Path, name: str) -> dict[str, np.ndarray] | None:
    """A finished job's result; None where there is none, or a damaged one, which is done again."""
    names = ("picture", "per-timestep", "simple", *shared.recipe.measurements)
    try:
        found = read_arrays(folder / "parts" / f"{name}.npz", dict.fromkeys(names))
    except DataError:
        return None
    return found if found.keys() == dict.fromkeys(names).keys() else None


def _needed(shared: Shared, folder: Path, job: Removal) -> dict[str, np.ndarray]:
    name = _name(shared, job)
    found = _result(shared, folder, name)
    if found is None:
        raise DataError(f"The result {name} is missing from {folder}. Run the same command again.")
    return found


def _stacked(found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([each[name] for each in found]) for name in found[0]}
