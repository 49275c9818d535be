"""Building a bank: train on all data, generate queries, retrain on every subset, measure every model.

One job is one (subset, seed); jobs that have an outcome are never repeated, so a killed build goes on where
it stopped. Models are kept outside the bank, so that queries added later are measured without training.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.bank import read_info, subsets_checksum, write_info, write_subsets
from headwater.diffusion.encoding import encoded
from headwater.disk.files import locked, remove_partial
from headwater.disk.npz import write_examples
from headwater.disk.outcomes import Job, Outcomes, outcome_path, recover_outcomes
from headwater.errors import Warn, to_stderr
from headwater.examples import Examples
from headwater.models import loading, lora
from headwater.models.cache import trained
from headwater.models.train import Trainable, Watch, train
from headwater.retraining import ledger
from headwater.retraining.grow import check_grows, finish_growing, grow
from headwater.retraining.jobs import Subsets, jobs_of, outcome_shape, subsets_of, trainable, training_of
from headwater.retraining.outcomes import outcomes
from headwater.retraining.queries import publish, queries_of, rehearse, with_new
from headwater.retraining.recipe import BankRecipe, from_fields
from headwater.retraining.workplace import Workplace
from headwater.workers import on_one_thread

TOLERANCE = 0.02  # relative change of an outcome that a few differently rounded pixels may cause


class BuildInputs(NamedTuple):
    """The inputs that all jobs of a build share."""

    recipe: BankRecipe
    training: Examples
    queries: Examples
    subsets: Subsets
    model: Path
    workplace: Workplace


def build(
    folder: Path,
    recipe: BankRecipe,
    training: Examples,
    held_out: Examples,
    workplace: Workplace | None = None,
    *,
    new_queries: Examples | None = None,
    warn: Warn = to_stderr,
) -> Iterator[tuple[int, int]]:
    """Build the bank, or go on with it; yields (jobs done, jobs in all) after each job.

    A second build of the same bank at a time is refused. A bank may grow: more subsets or seeds, and
    `new_queries`, which join it when all models have measured them. Damaged outcomes are measured again, with
    a warning.
    """
    workplace = workplace or Workplace()
    workplace.crew.check()
    network = trainable(recipe, training.shape[1:], workplace.store, workplace.local_device)
    for images in (training, held_out, *([] if new_queries is None else [new_queries])):
        network.check(images)
        for note in network.notes(images):
            warn(note)
    if not (folder / "bank.json").exists():
        on_one_thread(
            rehearse, recipe, network.finished(network.fresh(0)), training, held_out, workplace.store
        )
    with locked(folder / "parts", wait=False):  # two builds would lose outcomes of each other
        remove_partial(folder)
        remove_partial(folder / "outcomes")
        finish_growing(folder)
        subsets = _begin(folder, recipe, network, training, held_out, warn)
        is_new = on_one_thread(
            _full_model, folder, recipe, network, training, held_out, workplace.local_device, warn
        )
        queries = with_new(folder, training, new_queries, warn)
        arrays = recover_outcomes(folder, outcome_shape(recipe, len(queries)), warn)
        if is_new:
            on_one_thread(_check_full_outcomes, folder, recipe, queries, workplace, arrays["full"][0], warn)
        yield from _work(
            folder, BuildInputs(recipe, training, queries, subsets, folder / "model", workplace), arrays, warn
        )
        publish(folder, queries)


def _work(folder: Path, inputs: BuildInputs, arrays: Outcomes, warn: Warn) -> Iterator[tuple[int, int]]:
    """Do the jobs without an outcome, and enter their outcomes; yields (jobs done, jobs in all)."""
    every_job = jobs_of(inputs.recipe)
    ledger.collect(folder, arrays, warn)
    jobs = [job for job in every_job if not ledger.is_done(arrays, job)]
    count = len(every_job) - len(jobs)
    yield count, len(every_job)
    for job, measured in inputs.workplace.crew.work(outcome, inputs, jobs):
        ledger.save_job(folder, job, measured)
        ledger.collect(folder, arrays, warn)
        count += 1
        yield count, len(every_job)


def outcome(inputs: BuildInputs, job: Job) -> dict[str, np.ndarray]:
    """Measure the job's model, trained now or loaded; the model of all data and seed 0 is the bank's."""
    recipe, workplace = inputs.recipe, inputs.workplace
    if job == (-1, 0) and loading.has_model(inputs.model):
        model = loading.load(inputs.model, workplace.device)
    else:
        network = trainable(recipe, inputs.training.shape[1:], workplace.store, workplace.device)
        training = training_of(network, recipe, inputs.subsets, job)
        model = trained(training, inputs.training, workplace.models, device=workplace.device)
    return outcomes(
        model, encoded(model, inputs.queries, workplace.store), recipe.measurements, recipe.outcome_draws
    )


def _begin(
    folder: Path, recipe: BankRecipe, network: Trainable, training: Examples, held_out: Examples, warn: Warn
) -> Subsets:
    """Write the recipe and the subsets, or check that they only grow, and grow the bank."""
    subsets = subsets_of(recipe, training)
    sides = {"train": training.fingerprint, "held_out": held_out.fingerprint}
    sides |= _adapter_inputs(recipe, network, training, held_out)
    info: dict[str, Any] = {
        "recipe": recipe.fields(),
        **sides,
        "format": 2,
        "subsets": subsets_checksum(subsets),
    }
    existing = read_info(folder) if (folder / "bank.json").exists() else None
    if existing is None:
        info["versions"] = {name: version(name) for name in ("torch", "diffusers", "numpy")}
    else:
        check_grows(folder, existing, info)
        info["versions"] = existing.get("versions")
        # Further keys stay, such as how the models were made.
        info |= {name: existing[name] for name in existing.keys() - info.keys()}
        _move_base(folder, recipe, training)
    if not (folder / "train.npz").exists():
        write_examples(folder / "train.npz", training)
    if (
        existing is not None
        and existing.get("recipe") != info["recipe"]
        and outcome_path(folder, "full").exists()
    ):
        grow(folder, from_fields(existing["recipe"]), recipe, training, info, warn)
    else:
        write_subsets(folder, subsets)
        write_info(folder, info)
    return subsets


def _move_base(folder: Path, recipe: BankRecipe, training: Examples) -> None:
    """Record the present place of the adapters' base in the bank's models."""
    if recipe.adapters is not None:
        base = lora.Base(loading.absolute_name(recipe.adapters.base), training.shape[1:])
        for path in folder.rglob(lora.BASE_FILE):
            lora.write_base(path.parent, base)


def _adapter_inputs(
    recipe: BankRecipe, network: Trainable, training: Examples, held_out: Examples
) -> dict[str, str]:
    """Hashes of the other inputs of a bank of adapters: the base's weights, and the prompts."""
    if recipe.adapters is None:
        return {}
    words = json.dumps([training.prompts, held_out.prompts])
    prompts = hashlib.blake2b(words.encode(), digest_size=16).hexdigest()
    return {"base": network.settings(training)["base"], "prompts": prompts}


def _full_model(
    folder: Path,
    recipe: BankRecipe,
    network: Trainable,
    training: Examples,
    held_out: Examples,
    device: str,
    warn: Warn,
) -> bool:
    """Train the model of all data and seed 0, and generate the queries; False if both exist already."""
    if (folder / "queries.npz").exists():
        return False
    if not loading.has_model(folder / "model"):
        steps = recipe.training.total(len(training))
        warn(f"The model of all {len(training):,} images comes first: {steps:,} steps.")
        state = folder / "parts" / "full.safetensors"
        watch = Watch(
            state, checkpoint=lambda step, model: network.save(model, folder / "checkpoints" / f"step-{step}")
        )
        network.save(
            train(network, training, recipe.training, 0, device=device, watch=watch), folder / "model"
        )
        state.unlink(missing_ok=True)
    queries = queries_of(recipe, loading.load(folder / "model", device), training, held_out)
    write_examples(folder / "queries.npz", queries)
    return True


def _check_full_outcomes(
    folder: Path,
    recipe: BankRecipe,
    queries: Examples,
    workplace: Workplace,
    measured: Float[np.ndarray, " q"],
    warn: Warn,
) -> None:
    """Warn unless the full model has its old outcomes on pictures that were generated again."""
    if not np.isfinite(measured).all():
        return
    model = loading.load(folder / "model", workplace.local_device)
    repeated = outcomes(model, encoded(model, queries, workplace.store), (), recipe.outcome_draws)["simple"]
    if (worst := float(np.max(np.abs(repeated / measured - 1)))) > TOLERANCE:
        warn(
            f"The pictures made for {folder} are not those that were measured: the full model's outcomes "
            f"differ by up to {worst:.0%}. Another machine may round a picture differently; more means other "
            "data or another model."
        )
