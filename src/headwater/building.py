"""Building a bank: train on all data, generate queries, retrain on every subset and measure each model on every query.

One job is one (subset, seed); jobs that have an outcome are never done again, so a killed build goes on where it stopped. Models
are kept outside the bank, so that queries added later are measured without training.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from headwater import ledger, seeds
from headwater.archive import read_examples, write_examples
from headwater.bank import array, read_info
from headwater.core import Examples, labelled_like, to_uint8
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.sample import sample
from headwater.disk import locked, written
from headwater.errors import DataError, OptionError
from headwater.evaluate.subsets import subsets
from headwater.jobs import Crew, Pool
from headwater.ledger import Job
from headwater.models import unet
from headwater.models.kept import Training, trained
from headwater.models.train import Watch, train
from headwater.models.unet import Network
from headwater.outcomes import BINS, outcomes
from headwater.recipes import BankRecipe

GROWS = ("subsets", "seeds", "learning", "learning_seeds")  # of a recipe, what a bank may be given more of
ROUNDING = 0.02  # of an outcome: what a few pixels rounded otherwise may change
TOGETHER = 256  # pictures generated at once

Kept = Bool[np.ndarray, "m n"]


@dataclass(frozen=True)
class Place:
    """Who trains and where: the crew, the device of each job, the folder that keeps models (None: none are kept)."""

    crew: Crew = field(default_factory=Pool)
    device: str = "cpu"
    models: Path | None = None


class Shared(NamedTuple):
    """What all jobs of a build need."""

    recipe: BankRecipe
    training: Examples
    queries: Examples
    kept: Kept
    model: Path
    place: Place


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def build(
    folder: Path,
    recipe: BankRecipe,
    training: Examples,
    held_out: Examples,
    place: Place | None = None,
    *,
    more: Examples | None = None,
    told: Callable[[str], None] = _to_stderr,
) -> Iterator[tuple[int, int]]:
    """Build the bank, or go on with it; yields (jobs done, jobs in all) after each job. A second build of it is refused.

    A bank may grow: more subsets or seeds than it has, and queries (`more`), which join it when all models have measured them.
    Damaged outcomes are told, and measured again.
    """
    place = place or Place()
    with locked(folder / "parts", wait=False):  # two would enter each other's outcomes, and one would lose some
        kept = _begun(folder, recipe, training, held_out)
        made = _full_model(folder, recipe, training, held_out, place.device)
        queries = _with_added(folder, training, more)
        found = ledger.read(folder, _size(recipe, len(queries)), told)
        if made:
            _check_measured(folder, recipe, queries, found["full"][0], told)
        ledger.collect(folder, found, told)
        everything = jobs_of(recipe)
        jobs = [job for job in everything if not ledger.done(found, job)]
        yield len(everything) - len(jobs), len(everything)
        shared = Shared(recipe, training, queries, kept, folder / "model", place)
        for finished, (job, measured) in enumerate(place.crew.work(outcome, shared, jobs), len(everything) - len(jobs) + 1):
            ledger.enter(folder, job, measured)
            ledger.collect(folder, found, told)
            yield finished, len(everything)
        _publish(folder, queries)


def outcome(shared: Shared, job: Job) -> dict[str, np.ndarray]:
    """Train one model, or take it from where it is kept, and measure it. That of all data and seed 0 is there already."""
    recipe, place = shared.recipe, shared.place
    if job == (-1, 0) and (shared.model / "unet").is_dir():
        model = unet.load(shared.model, place.device)
    else:
        model = trained(training_of(recipe, shared.kept, job), shared.training, place.models, device=place.device)
    return outcomes(model, shared.queries, recipe.measurements, recipe.outcome_draws)


def training_of(recipe: BankRecipe, kept: Kept, job: Job) -> Training:
    """How the model of (subset, seed) is trained. Without `common` each subset has initial weights and noise of its own."""
    subset, seed = job
    if subset < 0:
        return Training(Network(recipe.model), recipe.training, seed)
    named = seed if recipe.common else seeds.key(seed, "own stream", subset, bits=32)
    return Training(Network(recipe.model), recipe.subset_training, named, kept[subset])


def jobs_of(recipe: BankRecipe) -> list[Job]:
    """Every (subset, seed), seed after seed; all the data first, subsets to compare with before those to learn from."""
    jobs = [(m, seed) for m in range(-1, recipe.subsets) for seed in range(recipe.seeds)]
    jobs += [(recipe.subsets + m, seed) for m in range(recipe.learning) for seed in range(recipe.learning_seeds)]
    return sorted(jobs, key=lambda job: job[1])


def subsets_of(recipe: BankRecipe, training: Examples) -> Kept:
    """Those to compare with, then those to learn from."""
    compared = subsets(recipe.scheme, recipe.subsets, training, recipe.part)
    learning = subsets(recipe.scheme, recipe.learning, training, recipe.part, family="learning", apart=compared)
    return np.concatenate([compared, learning])


def _size(recipe: BankRecipe, queries: int) -> ledger.Size:
    each = max(recipe.seeds, recipe.learning_seeds if recipe.learning else 1)
    return ledger.Size(recipe.subsets + recipe.learning, each, recipe.seeds, queries, BINS, recipe.measurements)


def _begun(folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples) -> Kept:
    """Write the recipe and the subsets, or check that the folder holds the same ones or fewer; returns the subsets."""
    sides = {"train": training.fingerprint, "held_out": held_out.fingerprint}
    info: dict[str, Any] = {"recipe": recipe.fields(), **sides, "format": 2}
    versions = {name: version(name) for name in ("torch", "diffusers", "numpy")}
    there = read_info(folder) if (folder / "bank.json").exists() else None
    if there is not None:
        _check_grows(folder, there, info)
        versions = there.get("versions", versions)
    kept = subsets_of(recipe, training)
    if not (folder / "train.npz").exists():
        write_examples(folder / "train.npz", training)
    if there is None or there != info | {"versions": versions}:
        if there is not None:
            _move(folder, there["recipe"], recipe)
        ledger.save(folder / "subsets.npy", kept)
        with written(folder / "bank.json", "w") as file:
            json.dump(info | {"versions": versions}, file, indent=1)
    elif not np.array_equal(array(folder / "subsets.npy"), kept):
        raise DataError(f"{folder / 'subsets.npy'} is not what the recipe gives: it is damaged. Delete it and bank.json.")
    return kept


def _move(folder: Path, old: dict[str, Any], recipe: BankRecipe) -> None:
    """Make room for more subsets and seeds. Those to learn from come after those to compare with, and move up."""
    rows = [row if row < old["subsets"] else row + recipe.subsets - old["subsets"] for row in range(_old_rows(old))]
    if (folder / "queries.npz").exists():
        ledger.grow(folder, rows, _size(recipe, len(read_examples(folder / "queries.npz"))))


def _old_rows(old: dict[str, Any]) -> int:
    return old["subsets"] + old.get("learning", 0)


def _full_model(folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples, device: str) -> bool:
    """Train the model on all data with the first seed, with its checkpoints, and generate the queries; False if all was there."""
    if (folder / "queries.npz").exists():
        return False
    if not (folder / "model" / "unet").is_dir():
        state = folder / "parts" / "full.safetensors"
        watch = Watch(state, checkpoint=lambda step, model: unet.save(model, folder / "checkpoints" / f"step-{step}"))
        model = train(Network(recipe.model), training, recipe.training, 0, device=device, watch=watch)
        unet.save(model, folder / "model")
        state.unlink(missing_ok=True)
    write_examples(folder / "queries.npz", _queries(recipe, unet.load(folder / "model", device), held_out))
    return True


def _check_measured(
    folder: Path, recipe: BankRecipe, queries: Examples, measured: Float[np.ndarray, " q"], told: Callable[[str], None]
) -> None:
    """Tell where pictures made anew are others than those whose outcomes are there: the model's own outcomes must come again."""
    if not np.isfinite(measured).all():
        return
    again = outcomes(unet.load(folder / "model"), queries, (), recipe.outcome_draws)["simple"]
    if (worst := float(np.max(np.abs(again / measured - 1)))) > ROUNDING:
        told(
            f"The pictures made for {folder} are not those that were measured: the model's own outcomes differ by up to "
            f"{worst:.0%}. Another machine may round a picture differently; more means other data or another model."
        )


def _queries(recipe: BankRecipe, model: Denoiser, held_out: Examples) -> Examples:
    """The held-out images (`val`) and the model's own pictures (`gen`)."""
    count = recipe.generated
    labels = None if model.classes is None else np.arange(count) % model.classes
    shown = np.full(count, -1) if labels is None else labels
    pictures = [regenerated(recipe, model, range(low, min(low + TOGETHER, count)), labels) for low in range(0, count, TOGETHER)]
    return Examples(
        np.concatenate([held_out.images, *(to_uint8(each) for each in pictures)]),
        ids=(*held_out.ids, *(f"generated-{i:03d}" for i in range(count))),
        labels=None if held_out.labels is None else np.append(held_out.labels, shown),
        split=("val",) * len(held_out) + ("gen",) * count,
    )


def regenerated(recipe: BankRecipe, model: Denoiser, rows: range, labels: Int64[np.ndarray, " g"] | None) -> np.ndarray:
    """The generated queries numbered `rows` as this model makes them of the same noise, float32 `[b, c, h, w]`."""
    given = None if labels is None else torch.as_tensor(labels[rows.start : rows.stop], device=model.device)
    made = sample(model, rows, recipe.sample_seed, sampler=recipe.sampler, steps=recipe.sample_steps, labels=given)
    return made.pictures.float().cpu().numpy()


def _with_added(folder: Path, training: Examples, more: Examples | None) -> Examples:
    """The bank's queries and those being added to it, now or by a build that was stopped."""
    queries, path = read_examples(folder / "queries.npz"), folder / "parts" / "added.npz"
    if more is not None:
        added = _joined(read_examples(path), more) if path.exists() else more
        new = [row for row, content in enumerate(added.hashes) if content not in set(queries.hashes)]
        if new:
            write_examples(path, labelled_like(added.take(new), training))
    return _joined(queries, read_examples(path)) if path.exists() else queries


def _publish(folder: Path, queries: Examples) -> None:
    """Let added queries join the bank, now that all models have measured them."""
    if (folder / "parts" / "added.npz").exists():
        write_examples(folder / "queries.npz", queries)
        (folder / "parts" / "added.npz").unlink()


def _joined(queries: Examples, more: Examples) -> Examples:
    """Both, one after the other; queries without a split are `added`, without a label −1."""
    if queries.shape != more.shape:
        raise DataError(f"The queries to add are {list(more.images.shape[1:])}; the bank's are {list(queries.images.shape[1:])}.")
    split = tuple(word for each in (queries, more) for word in (each.split or ("added",) * len(each)))
    labels = None
    if queries.labels is not None:
        labels = np.concatenate([queries.labels, np.full(len(more), -1) if more.labels is None else more.labels])
    return Examples(np.concatenate([queries.images, more.images]), ids=(*queries.ids, *more.ids), labels=labels, split=split)


def _check_grows(folder: Path, there: dict[str, Any], info: dict[str, Any]) -> None:
    """Refuse another recipe or other images, but for more of what a bank may grow by."""
    old, new = dict(there.get("recipe", {})), dict(info["recipe"])
    changed = [side for side in ("train", "held_out") if there.get(side) != info[side]]
    changed += [f"recipe ({name})" for name in new if name not in GROWS and old.get(name) != new[name]]
    changed += [f"recipe (fewer {name})" for name in GROWS if old.get(name, 0) > new[name]]
    if changed:
        raise OptionError(
            f"The bank {folder} was begun with another {', '.join(changed)}. A bank may be given more of {', '.join(GROWS)}; "
            "nothing else may change. Name a new folder, or delete that one."
        )
