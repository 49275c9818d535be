"""Building a bank: train on all data, generate queries, retrain on every subset and measure each model on every query.

One job is one (subset, seed); jobs that have an outcome are never done again, so a killed build goes on where it stopped. Models
are kept outside the bank, so that queries added later are measured without training.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from headwater.bank import outcome_path, read_info, subsets_check
from headwater.diffusion.encoding import encoded
from headwater.disk.files import locked, sweep, written
from headwater.disk.npz import write_examples
from headwater.disk.store import FeatureStore, default_root, to_stderr
from headwater.examples import Examples
from headwater.models import loading, lora
from headwater.models.cache import trained
from headwater.models.train import Trainable, Watch, train
from headwater.retraining import ledger
from headwater.retraining.grow import check_grows, finish_growing, grow
from headwater.retraining.jobs import Kept, jobs_of, size_of, subsets_of, trainable, training_of
from headwater.retraining.ledger import Job
from headwater.retraining.outcomes import outcomes
from headwater.retraining.queries import publish, queries_of, rehearse, with_added
from headwater.retraining.recipe import BankRecipe, from_fields
from headwater.workers import Crew, Here, on_one_thread

ROUNDING = 0.02  # of an outcome: what a few pixels rounded otherwise may change


@dataclass(frozen=True)
class Place:
    """Who trains and where: the crew, the device of each job, the folder that keeps models (None: none are kept), and the store of
    latents and embedded prompts: the first job that needs them makes them, for all."""

    crew: Crew = field(default_factory=Here)
    device: str = "cpu"
    models: Path | None = None
    store: FeatureStore = field(default_factory=lambda: FeatureStore(default_root()))

    @property
    def here(self) -> str:
        """The device for what this process does itself: the jobs' own, where this machine has it."""
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError):
            return "cpu"
        return self.device


class Shared(NamedTuple):
    """What all jobs of a build need."""

    recipe: BankRecipe
    training: Examples
    queries: Examples
    kept: Kept
    model: Path
    place: Place


def build(
    folder: Path,
    recipe: BankRecipe,
    training: Examples,
    held_out: Examples,
    place: Place | None = None,
    *,
    more: Examples | None = None,
    told: Callable[[str], None] = to_stderr,
) -> Iterator[tuple[int, int]]:
    """Build the bank, or go on with it; yields (jobs done, jobs in all) after each job. A second build of it is refused.

    A bank may grow: more subsets or seeds than it has, and queries (`more`), which join it when all models have measured them.
    Damaged outcomes are told, and measured again.
    """
    place = place or Place()
    place.crew.check()
    network = trainable(recipe, training.shape[1:], place.store, place.here)
    for side in (training, held_out, *([] if more is None else [more])):
        network.check(side)
    if not (folder / "bank.json").exists():
        on_one_thread(rehearse, recipe, network.finished(network.fresh(0)), training, held_out, place.store)
    everything = jobs_of(recipe)
    with locked(folder / "parts", wait=False):  # two would enter each other's outcomes, and one would lose some
        for here in (folder, folder / "outcomes"):
            sweep(here)
        finish_growing(folder)
        kept = _begun(folder, recipe, network, training, held_out, told)
        made = on_one_thread(_full_model, folder, recipe, network, training, held_out, place.here, told)
        queries = with_added(folder, training, more)
        found = ledger.read(folder, size_of(recipe, len(queries)), told)
        if made:
            on_one_thread(_check_measured, folder, recipe, queries, place, found["full"][0], told)
        ledger.collect(folder, found, told)
        jobs = [job for job in everything if not ledger.done(found, job)]
        yield len(everything) - len(jobs), len(everything)
        shared = Shared(recipe, training, queries, kept, folder / "model", place)
        for finished, (job, measured) in enumerate(place.crew.work(outcome, shared, jobs), len(everything) - len(jobs) + 1):
            ledger.enter(folder, job, measured)
            ledger.collect(folder, found, told)
            yield finished, len(everything)
        publish(folder, queries)


def outcome(shared: Shared, job: Job) -> dict[str, np.ndarray]:
    """Train one model, or take it from where it is kept, and measure it. That of all data and seed 0 is there already."""
    recipe, place = shared.recipe, shared.place
    if job == (-1, 0) and loading.holds(shared.model):
        model = loading.load(shared.model, place.device)
    else:
        network = trainable(recipe, shared.training.shape[1:], place.store, place.device)
        training = training_of(network, recipe, shared.kept, job)
        model = trained(training, shared.training, place.models, device=place.device)
    return outcomes(model, encoded(model, shared.queries, place.store), recipe.measurements, recipe.outcome_draws)


def _begun(
    folder: Path, recipe: BankRecipe, network: Trainable, training: Examples, held_out: Examples, told: Callable[[str], None]
) -> Kept:
    """Write the recipe and the subsets, or check that the folder holds the same ones or fewer; returns the subsets."""
    kept = subsets_of(recipe, training)
    sides = {"train": training.fingerprint, "held_out": held_out.fingerprint} | _of_adapters(recipe, network, training, held_out)
    info: dict[str, Any] = {"recipe": recipe.fields(), **sides, "format": 2, "subsets": subsets_check(kept)}
    there = read_info(folder) if (folder / "bank.json").exists() else None
    if there is None:
        info["versions"] = {name: version(name) for name in ("torch", "diffusers", "numpy")}
    else:
        check_grows(folder, there, info)
        info["versions"] = there.get("versions")
        info |= {name: there[name] for name in there.keys() - info.keys()}  # what others wrote there, such as how models were made
        if recipe.adapters is not None:  # the base may lie elsewhere now
            base = lora.Base(loading.named(recipe.adapters.base), training.shape[1:])
            for path in folder.rglob(lora.TOLD):
                lora.tell(path.parent, base)
    if not (folder / "train.npz").exists():
        write_examples(folder / "train.npz", training)
    if there is not None and there.get("recipe") != info["recipe"] and outcome_path(folder, "full").exists():
        grow(folder, from_fields(there["recipe"]), recipe, training, info, told)
    else:
        ledger.save(folder / "subsets.npy", kept)
        with written(folder / "bank.json", "w") as file:
            json.dump(info, file, indent=1)
    return kept


def _of_adapters(recipe: BankRecipe, network: Trainable, training: Examples, held_out: Examples) -> dict[str, str]:
    """What decides a bank of adapters beside its recipe and its pictures: the base's weights, and the prompts."""
    if recipe.adapters is None:
        return {}
    words = json.dumps([training.prompts, held_out.prompts])
    return {"base": network.settings(training)["base"], "prompts": hashlib.blake2b(words.encode(), digest_size=16).hexdigest()}


def _full_model(
    folder: Path,
    recipe: BankRecipe,
    network: Trainable,
    training: Examples,
    held_out: Examples,
    device: str,
    told: Callable[[str], None],
) -> bool:
    """Train the model on all data with the first seed, with its checkpoints, and generate the queries; False if all was there."""
    if (folder / "queries.npz").exists():
        return False
    if not loading.holds(folder / "model"):
        told(f"The model of all {len(training):,} images comes first: {recipe.training.total(len(training)):,} steps.")
        state = folder / "parts" / "full.safetensors"
        watch = Watch(state, checkpoint=lambda step, model: network.save(model, folder / "checkpoints" / f"step-{step}"))
        network.save(train(network, training, recipe.training, 0, device=device, watch=watch), folder / "model")
        state.unlink(missing_ok=True)
    write_examples(folder / "queries.npz", queries_of(recipe, loading.load(folder / "model", device), training, held_out))
    return True


def _check_measured(
    folder: Path,
    recipe: BankRecipe,
    queries: Examples,
    place: Place,
    measured: Float[np.ndarray, " q"],
    told: Callable[[str], None],
) -> None:
    """Tell where pictures made anew are others than those whose outcomes are there: the model's own outcomes must come again."""
    if not np.isfinite(measured).all():
        return
    model = loading.load(folder / "model", place.here)
    again = outcomes(model, encoded(model, queries, place.store), (), recipe.outcome_draws)["simple"]
    if (worst := float(np.max(np.abs(again / measured - 1)))) > ROUNDING:
        told(
            f"The pictures made for {folder} are not those that were measured: the model's own outcomes differ by up to "
            f"{worst:.0%}. Another machine may round a picture differently; more means other data or another model."
        )
