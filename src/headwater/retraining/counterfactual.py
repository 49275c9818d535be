"""Counterfactual jobs: train without a query's strongest proponents, and make its picture again.

The retrained model has the full model's seed and number of steps, and the picture starts from the same noise.
Each job's result is one file named by all that decides it, so a run that was stopped goes on, and equal
removals are done once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from headwater import seeds
from headwater.bank import Bank, rows_by_content
from headwater.diffusion.encoding import encoded
from headwater.disk.files import locked, written
from headwater.disk.npz import arrays as read_arrays
from headwater.errors import DataError
from headwater.evaluate.counterfactual import distance, removal_effect, without
from headwater.evaluate.removals import MethodEffects, RemovalEffect, RemovalFigures, write_figures
from headwater.examples import Examples, to_uint8
from headwater.families.embedding import Embedder, cosine
from headwater.methods.random import Random
from headwater.models import loading
from headwater.models.cache import Training, trained
from headwater.retraining.jobs import trainable
from headwater.retraining.outcomes import outcomes
from headwater.retraining.queries import conditions_of, generate_queries
from headwater.retraining.recipe import BankRecipe, from_fields
from headwater.retraining.workplace import Workplace
from headwater.run import Run, distinguished
from headwater.scores import dense

RANDOM = "Random removal"


class Removal(NamedTuple):
    """True for the training images that stay, and the place in the bank of the query to make again."""

    mask: Bool[np.ndarray, " n"]
    query: int


class RemovalInputs(NamedTuple):
    """The inputs that all removals share."""

    recipe: BankRecipe
    training: Examples
    queries: Examples
    model: Path
    workplace: Workplace


@dataclass(frozen=True, eq=False)
class Remade:
    """A picture in [−1, 1], made again, and its outcomes by measurement; or those of several, stacked.

    Beside the measurements' means, `per-timestep` holds the bins of `simple`.
    """

    picture: Float[np.ndarray, "*q c h w"]
    outcomes: Mapping[str, Float[np.ndarray, "..."]]


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The removals to do: each method's scores of the chosen queries, and the numbers of images to remove."""

    bank: Bank
    scores: Mapping[str, Float32[np.ndarray, "q n"]]
    queries: Sequence[int]
    counts: Sequence[int]
    signed: Mapping[str, bool]

    def inputs(self, workplace: Workplace) -> RemovalInputs:
        """The inputs that all removals share."""
        bank = self.bank
        return RemovalInputs(
            from_fields(bank.info["recipe"]), bank.train, bank.queries, bank.folder / "model", workplace
        )

    def before(self) -> list[Removal]:
        """A removal of nothing, for each query."""
        return [Removal(np.ones(len(self.bank.train), bool), query) for query in self.queries]

    def after(self, method: str, count: int) -> list[Removal]:
        """The removal of a method's `count` strongest proponents, for each query."""
        rows = zip(self.scores[method], self.queries, strict=True)
        return [Removal(without(scores, count), query) for scores, query in rows]

    def every_removal(self) -> Iterator[Removal]:
        """The removals of nothing, then each method's at each count."""
        yield from self.before()
        for method in self.scores:
            for count in self.counts:
                yield from self.after(method, count)


def plan_removals(bank: Bank, runs: Sequence[Run], queries: int, counts: Sequence[int]) -> Counterfactual:
    """Removals for `queries` generated pictures of the bank, drawn among those that every run has scored.

    Random removal is added to the runs.
    """
    for run in runs:
        if (n := len(run.scores.train_ids)) != len(bank.train):
            raise DataError(f"The run {run.folder} has {n} training images; the bank has {len(bank.train)}.")
    rows = [rows_by_content(run.queries) for run in runs]
    chosen, hashes = _draw_queries(bank, rows, queries), bank.queries.hashes
    runs = distinguished(runs)
    tables = zip(runs, rows, strict=True)
    scores = {run.name: run.scores.values[[table[hashes[q]] for q in chosen]] for run, table in tables}
    chance = dense(Random().score(bank.train, bank.queries.take(chosen)))
    signed = {run.name: run.signed for run in runs} | {RANDOM: True}
    return Counterfactual(bank, {RANDOM: chance.astype(np.float32), **scores}, chosen, counts, signed)


def _draw_queries(bank: Bank, rows: Sequence[Mapping[str, int]], count: int) -> list[int]:
    """`count` of the bank's generated queries that every run has, in the bank's order."""
    split, hashes = bank.queries.split or (), bank.queries.hashes
    recipe = from_fields(bank.info["recipe"])
    generated = [q for q, name in enumerate(split) if name == "gen"][: recipe.generated]
    common = [q for q in generated if all(hashes[q] in table for table in rows)]
    if len(common) < count:
        raise DataError(
            f"The runs share {len(common)} of the bank's generated queries; expected at least {count}.",
            hint=f"Make the runs with --query {bank.folder}/queries.npz.",
        )
    return sorted(seeds.generator(0, "counterfactual").permutation(common)[:count].tolist())


def remove(counterfactual: Counterfactual, folder: Path, workplace: Workplace) -> Iterator[tuple[int, int]]:
    """Do the removals that have no result in `folder` yet; yields (done, in all) after each."""
    workplace.crew.check()
    inputs = counterfactual.inputs(workplace)
    removals = {_name(inputs, removal): removal for removal in counterfactual.every_removal()}
    with locked(folder / "parts", wait=False):
        jobs = [removal for name, removal in removals.items() if _result(inputs, folder, name) is None]
        count = len(removals) - len(jobs)
        yield count, len(removals)
        for removal, result in workplace.crew.work(retrain_without, inputs, jobs):
            with written(folder / "parts" / f"{_name(inputs, removal)}.npz") as file:
                np.savez(file, picture=result.picture, **result.outcomes)  # pyright: ignore[reportArgumentType]
            count += 1
            yield count, len(removals)


def retrain_without(inputs: RemovalInputs, removal: Removal) -> Remade:
    """The query's picture, and its outcomes, from a model trained on the images that stay."""
    recipe, queries, workplace = inputs.recipe, inputs.queries, inputs.workplace
    if removal.mask.all() and loading.has_model(inputs.model):
        model = loading.load(inputs.model, workplace.device)
    else:
        training = _training(inputs, removal, workplace.device)
        model = trained(training, inputs.training, workplace.models, device=workplace.device)
    number = _number(inputs, removal)
    conditions = conditions_of(recipe, model, inputs.training)
    picture = generate_queries(recipe, model, range(number, number + 1), conditions)[0]
    query = encoded(model, queries.take([removal.query]), workplace.store)
    measured = outcomes(model, query, recipe.measurements, recipe.outcome_draws)
    return Remade(picture, {name: np.asarray(values[0]) for name, values in measured.items()})


def collect_results(
    counterfactual: Counterfactual, folder: Path, workplace: Workplace, embedder: Embedder | None = None
) -> RemovalFigures:
    """The figures of all removals: effects of every query, quartiles, comparison with random removal.

    They are written to `counterfactual.json`, and the pictures to `pictures.npz`.
    """
    inputs = counterfactual.inputs(workplace)
    before = _results(inputs, folder, counterfactual.before())
    pictures, effects = {"before": to_uint8(before.picture)}, {}
    for name in counterfactual.scores:
        for k in counterfactual.counts:
            after = _results(inputs, folder, counterfactual.after(name, k))
            pictures[f"{name}/{k}"] = to_uint8(after.picture)
            effects[name, k] = removal_effects(before, after, embedder)
    with written(folder / "pictures.npz") as file:
        np.savez_compressed(file, **pictures)  # pyright: ignore[reportArgumentType]
    figures = _figures(counterfactual, effects, embedder)
    write_figures(folder, figures)
    return figures


def removal_effects(before: Remade, after: Remade, embedder: Embedder | None) -> dict[str, np.ndarray]:
    """Each effect on each query: `l2`, `cosine` (with an embedder), and the rise of every measurement."""
    effects = {"l2": distance(before.picture, after.picture)}
    if embedder is not None:
        effects["cosine"] = cosine(*(embedder(to_uint8(side.picture)) for side in (before, after)))
    old, new = before.outcomes, after.outcomes
    return effects | {
        name: new[name].astype(np.float64) - old[name] for name in old if name != "per-timestep"
    }


def _figures(
    counterfactual: Counterfactual,
    effects: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
    embedder: Embedder | None,
) -> RemovalFigures:
    """The effects of each method at each count, compared with random removal on the same queries."""
    bank = counterfactual.bank
    recipe = from_fields(bank.info["recipe"])
    guided = "" if recipe.guidance == 1 else f", guidance {recipe.guidance:g}"

    def compared(method: str, k: int) -> dict[str, RemovalEffect]:
        controls = {} if method == RANDOM else effects[RANDOM, k]
        return {
            name: removal_effect(values, controls.get(name)) for name, values in effects[method, k].items()
        }

    return RemovalFigures(
        bank=bank.folder.name,
        train=len(bank.train),
        queries=[bank.queries.ids[query] for query in counterfactual.queries],
        removed=list(counterfactual.counts),
        embedder=None if embedder is None else embedder.name,
        steps=recipe.training.total(len(bank.train)),
        sampler=f"{recipe.sampler}, {recipe.sample_steps} steps" + guided,
        seed=0,
        methods={
            method: MethodEffects(
                counterfactual.signed[method], {k: compared(method, k) for k in counterfactual.counts}
            )
            for method in counterfactual.scores
        },
    )


def _training(inputs: RemovalInputs, removal: Removal, device: str) -> Training:
    """A training with the full model's seed and number of steps, however many images stay."""
    recipe = inputs.recipe
    steps = recipe.training.total(len(inputs.training))
    network = trainable(recipe, inputs.training.shape[1:], inputs.workplace.store, device)
    return Training(network, replace(recipe.training, steps=steps), 0, removal.mask)


def _number(inputs: RemovalInputs, removal: Removal) -> int:
    """The number of the query among the generated ones."""
    return removal.query - (inputs.queries.split or ()).index("gen")


def _name(inputs: RemovalInputs, removal: Removal) -> str:
    """A hash of the training, and of all that decides what is measured of its model."""
    recipe = inputs.recipe
    settings = {
        "training": _training(inputs, removal, inputs.workplace.local_device).name(inputs.training),
        "query": inputs.queries.keys[removal.query],
        "number": _number(inputs, removal),
        "sampler": [recipe.sampler, recipe.sample_steps, recipe.sample_seed],
        "measured": [*recipe.measurements, recipe.outcome_draws.manifest()],
    }
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def _result(inputs: RemovalInputs, folder: Path, name: str) -> Remade | None:
    """The result of a removal; None where there is none, or a damaged one, which is done again."""
    names = dict.fromkeys(("picture", "per-timestep", "simple", *inputs.recipe.measurements))
    try:
        result = read_arrays(folder / "parts" / f"{name}.npz", names)
    except DataError:
        return None
    return Remade(result.pop("picture"), result) if result.keys() == names.keys() else None


def _results(inputs: RemovalInputs, folder: Path, removals: Sequence[Removal]) -> Remade:
    """The results of removals that are done, stacked."""
    results = []
    for name in (_name(inputs, removal) for removal in removals):
        result = _result(inputs, folder, name)
        if result is None:
            raise DataError(
                f"The result {name} is missing from {folder}.", hint="Run the same command again."
            )
        results.append(result)
    measured = {name: np.stack([result.outcomes[name] for result in results]) for name in results[0].outcomes}
    return Remade(np.stack([result.picture for result in results]), measured)
