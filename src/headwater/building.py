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
from headwater.bank import array, outcome_path, read_info, subsets_check
from headwater.core import Examples, labelled_like, to_uint8
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.sample import sample
from headwater.disk import locked, written
from headwater.errors import DataError, OptionError
from headwater.evaluate.subsets import subsets
from headwater.jobs import Crew, Here, on_one_thread
from headwater.ledger import Job
from headwater.models import unet
from headwater.models.kept import Training, trained
from headwater.models.train import Watch, train
from headwater.models.unet import Network
from headwater.outcomes import BINS, outcomes
from headwater.recipes import BankRecipe, from_fields

GROWS = ("subsets", "seeds", "learning", "learning_seeds")  # of a recipe, what a bank may be given more of
ROUNDING = 0.02  # of an outcome: what a few pixels rounded otherwise may change
TOGETHER = 256  # pictures generated at once

Kept = Bool[np.ndarray, "m n"]


@dataclass(frozen=True)
class Place:
    """Who trains and where: the crew, the device of each job, the folder that keeps models (None: none are kept)."""

    crew: Crew = field(default_factory=Here)
    device: str = "cpu"
    models: Path | None = None

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
    place.crew.check()
    for side in (training, held_out, *([] if more is None else [more])):
        _check_side(recipe, side)
    everything = jobs_of(recipe)
    with locked(folder / "parts", wait=False):  # two would enter each other's outcomes, and one would lose some
        _finish_growing(folder)
        kept = _begun(folder, recipe, training, held_out, told)
        made = on_one_thread(_full_model, folder, recipe, training, held_out, place.here, told)
        queries = _with_added(folder, training, more)
        found = ledger.read(folder, _size(recipe, len(queries)), told)
        if made:
            on_one_thread(_check_measured, folder, recipe, queries, found["full"][0], told)
        ledger.collect(folder, found, told)
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


def _check_side(recipe: BankRecipe, examples: Examples) -> None:
    """Refuse, before anything is written, images that the recipe's network cannot be shown."""
    side, channels, classes = (recipe.model.get(name) for name in ("sample_size", "in_channels", "num_class_embeds"))
    height, width = (side, side) if isinstance(side, int) else tuple(side or examples.shape[1:])
    if examples.shape != (channels or 3, height, width):
        c, h, w = examples.shape
        raise DataError(f"Images are {h}×{w} with {c} channels; the recipe's network takes {height}×{width} with {channels or 3}.")
    if classes is not None and (examples.labels is None or not 0 <= examples.labels.min() <= examples.labels.max() < classes):
        seen = "none" if examples.labels is None else f"{examples.labels.min()} … {examples.labels.max()}"
        raise DataError(
            f"The recipe's network has {classes} classes, and the labels of the images are {seen}; expected 0 … {classes - 1}."
        )


def _begun(folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples, told: Callable[[str], None]) -> Kept:
    """Write the recipe and the subsets, or check that the folder holds the same ones or fewer; returns the subsets."""
    kept = subsets_of(recipe, training)
    sides = {"train": training.fingerprint, "held_out": held_out.fingerprint}
    info: dict[str, Any] = {"recipe": recipe.fields(), **sides, "format": 2, "subsets": subsets_check(kept)}
    there = read_info(folder) if (folder / "bank.json").exists() else None
    if there is None:
        info["versions"] = {name: version(name) for name in ("torch", "diffusers", "numpy")}
    else:
        _check_grows(folder, there, info)
        info["versions"] = there.get("versions")
    if not (folder / "train.npz").exists():
        write_examples(folder / "train.npz", training)
    if there is not None and there.get("recipe") != info["recipe"] and outcome_path(folder, "full").exists():
        _grow(folder, from_fields(there["recipe"]), recipe, training, info, told)
    else:
        ledger.save(folder / "subsets.npy", kept)
        with written(folder / "bank.json", "w") as file:
            json.dump(info, file, indent=1)
    return kept


def _grow(
    folder: Path, old: BankRecipe, recipe: BankRecipe, training: Examples, info: dict[str, Any], told: Callable[[str], None]
) -> None:
    """Make room for more subsets and seeds. Those to learn from come after those to compare with, and move up.

    All that changes is written to one file first, from which a growth that was killed is finished.
    """
    before, after = subsets_of(old, training), subsets_of(recipe, training)
    found = ledger.read(folder, _size(old, array(outcome_path(folder, "simple")).shape[2]), told)
    ledger.collect(folder, found, told)
    rows = [row if row < old.subsets else row + recipe.subsets - old.subsets for row in range(len(before))]
    moved = [
        to if np.array_equal(before[row], after[to]) else None for row, to in enumerate(rows)
    ]  # `apart` may have changed a set
    arrays = ledger.grown(found, moved, _size(recipe, 0))
    with written(_growth(folder)) as file:
        np.savez(file, subsets=after, info=np.array(json.dumps(info, indent=1)), **arrays)  # pyright: ignore[reportArgumentType]
    _finish_growing(folder)


def _finish_growing(folder: Path) -> None:
    """Bring what `_grow` wrote to its places; again, if a kill came in between."""
    path = _growth(folder)
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as file:
        everything = {name: file[name] for name in file.files}
    info = str(everything.pop("info"))
    ledger.save(folder / "subsets.npy", everything.pop("subsets"))
    ledger.write(folder, everything)
    with written(folder / "bank.json", "w") as file:
        file.write(info)
    path.unlink()


def _growth(folder: Path) -> Path:
    return folder / "parts" / "growth.npz"


def _full_model(
    folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples, device: str, told: Callable[[str], None]
) -> bool:
    """Train the model on all data with the first seed, with its checkpoints, and generate the queries; False if all was there."""
    if (folder / "queries.npz").exists():
        return False
    if not (folder / "model" / "unet").is_dir():
        told(f"The model of all {len(training):,} images comes first: {recipe.training.total(len(training)):,} steps.")
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
    """The bank's queries and those being added to it, now or by a build that was stopped; none twice."""
    queries, path = read_examples(folder / "queries.npz"), folder / "parts" / "added.npz"
    waiting = [read_examples(path)] if path.exists() else []
    if more is not None:
        waiting.append(labelled_like(more, training))
    if not waiting:
        return queries
    added = waiting[0] if len(waiting) == 1 else _joined(*waiting)
    first = dict(zip(reversed(added.hashes), reversed(range(len(added))), strict=True))  # of equal pictures the first
    new = sorted(row for content, row in first.items() if content not in set(queries.hashes))
    if not new:
        path.unlink(missing_ok=True)
        return queries
    if more is not None:
        write_examples(path, added.take(new))
    return _joined(queries, added.take(new))


def _publish(folder: Path, queries: Examples) -> None:
    """Let added queries join the bank, now that all models have measured them."""
    if (folder / "parts" / "added.npz").exists():
        write_examples(folder / "queries.npz", queries)
        (folder / "parts" / "added.npz").unlink()


def _joined(queries: Examples, more: Examples) -> Examples:
    """Both, one after the other; queries without a split are `added`, without a label −1."""
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
