"""Building a bank: train on all data, generate queries, retrain on every subset and measure each model on every query.

One job is one (subset, seed). Its outcome is one file, written whole, and collected into the bank's arrays; jobs that have an
outcome are never run again, so a killed build goes on where it stopped.
"""

import json
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater import seeds
from headwater.archive import arrays as read_arrays
from headwater.archive import read_examples, write_examples
from headwater.bank import Bank, array, open_bank, read_info
from headwater.core import Examples, to_uint8
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import elbo, simple
from headwater.diffusion.sample import sample
from headwater.disk import locked, written
from headwater.errors import DataError, OptionError
from headwater.models import unet
from headwater.models.train import DIGITS, Recipe, Watch, train

BINS = 20  # per-timestep outcomes are kept as means over this many stretches of the schedule

OUTCOMES = Draws(100, "stratified", 2, seed=20231101)  # a seed that attribution does not use


@dataclass(frozen=True, kw_only=True)
class BankRecipe:
    """What to build: how models train, how many subsets and seeds, how outcomes are measured.

    `outcome_draws` are common to all models of the bank, and their seed is not one that attribution uses.
    """

    model: Mapping[str, Any]
    training: Recipe
    subsets: int = 64
    seeds: int = 2
    part: float = 0.5
    generated: int = 100
    sample_seed: int = 0
    outcome_draws: Draws = OUTCOMES

    def __post_init__(self) -> None:
        if self.outcome_draws.strategy == "random":
            raise OptionError(
                "outcome_draws has strategy 'random'; outcomes per timestep need draws in order of time, such as stratified."
            )
        steps = self.outcome_draws.timesteps
        count = (steps if isinstance(steps, int) else len(steps)) * self.outcome_draws.noises
        if count % BINS:
            raise OptionError(
                f"outcome_draws has {count} draws; expected a multiple of {BINS}, the stretches of the schedule kept."
            )

    def fields(self) -> dict[str, Any]:
        """The recipe as JSON-ready values."""
        return json.loads(json.dumps(asdict(self)))


def build(
    folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples, *, workers: int = 1, keep_models: Path | None = None
) -> Iterator[tuple[int, int]]:
    """Build the bank, or go on with it; yields (jobs done, jobs in all) after each job. A second build of it is refused."""
    with locked(folder / "parts", wait=False):  # two would collect each other's outcomes, and one would lose some
        yield from _built(folder, recipe, training, held_out, workers, keep_models)


def _built(
    folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples, workers: int, keep_models: Path | None
) -> Iterator[tuple[int, int]]:
    _begin(folder, recipe, training, held_out)
    total = (recipe.subsets + 1) * recipe.seeds
    _full_model(folder, recipe, training, held_out)
    bank = open_bank(folder)
    _collect(bank, recipe)
    jobs = _missing(bank, recipe)
    yield total - len(jobs), total
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
        futures = [pool.submit(_job, folder, recipe, subset, seed, keep_models) for subset, seed in jobs]
        try:
            for done, future in enumerate(as_completed(futures), total - len(jobs) + 1):
                future.result()
                _collect(bank, recipe)
                yield done, total
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def outcomes(model: Denoiser, queries: Examples, draws: Draws, batch: int = 1024) -> dict[str, np.ndarray]:
    """`simple` and `elbo` of each query, float32 `[q]`, and `per-timestep`, `simple` in BINS stretches, float16 `[q, BINS]`."""
    like = next(model.module.parameters())
    found: dict[str, list[torch.Tensor]] = {"simple": [], "elbo": []}
    size = max(
        1, batch // (int(np.size(draws.timesteps) if not isinstance(draws.timesteps, int) else draws.timesteps) * draws.noises)
    )
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        draw = draws.of(queries, rows, model.schedule, like)
        labels = None
        if model.classes is not None and queries.labels is not None:
            labels = torch.as_tensor(queries.labels[rows])[:, None].expand(draw.t.shape).reshape(-1)
        with torch.no_grad():
            output = model.predict(draw.x_t.flatten(0, 1), draw.t.reshape(-1), labels).view_as(draw.x_t)
        found["simple"].append(simple(output, draw, model.schedule))
        found["elbo"].append(elbo(output, draw, model.schedule))
    per_draw = torch.cat(found["simple"])
    return {
        "simple": per_draw.double().mean(1).float().numpy(),
        "elbo": torch.cat(found["elbo"]).double().mean(1).float().numpy(),
        "per-timestep": per_draw.view(len(queries), BINS, -1).mean(2).numpy().astype(np.float16),
    }


def _begin(folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples) -> None:
    """Write the recipe and the subsets, or check that the folder holds the same ones."""
    info = {"recipe": recipe.fields(), "train": training.fingerprint, "held_out": held_out.fingerprint, "format": 1}
    path = folder / "bank.json"
    if path.exists():
        there = read_info(folder)
        changed = [k for k in info if there.get(k) != info[k]]
        if changed:
            raise OptionError(
                f"The bank {folder} was begun with another {', '.join(changed)}. Name a new folder, or delete that one."
            )
        return
    n, m = len(training), recipe.subsets
    kept = np.zeros((m, n), bool)
    for row in range(m):
        kept[row, seeds.stream(0, "subset", row).permutation(n)[: round(recipe.part * n)]] = True
    write_examples(folder / "train.npz", training)
    with written(folder / "subsets.npy") as file:
        np.save(file, kept)
    with written(path, "w") as file:
        json.dump(info | {"versions": {p: version(p) for p in ("torch", "diffusers", "numpy")}}, file, indent=1)


def _full_model(folder: Path, recipe: BankRecipe, training: Examples, held_out: Examples) -> None:
    """Train the model on all data with the first seed, with its checkpoints, and generate the queries from it."""
    if (folder / "queries.npz").exists():
        return
    if not (folder / "model" / "unet").is_dir():
        cache = folder / "parts" / "full.safetensors"

        def keep(step: int, model: Denoiser) -> None:
            unet.save(model, folder / "checkpoints" / f"step-{step}")

        model = train(unet.Network(recipe.model), training, recipe.training, 0, watch=Watch(cache, checkpoint=keep))
        unet.save(model, folder / "model")
        cache.unlink(missing_ok=True)
    model = unet.load(folder / "model")
    labels = None if model.classes is None else torch.arange(recipe.generated) % model.classes
    pictures = to_uint8(sample(model, range(recipe.generated), recipe.sample_seed, labels=labels).pictures.numpy())
    shown = np.full(recipe.generated, -1) if labels is None else labels.numpy()
    count = len(held_out)
    queries = Examples(
        np.concatenate([held_out.images, pictures]),
        ids=(*held_out.ids, *(f"generated-{i:03d}" for i in range(recipe.generated))),
        labels=None if held_out.labels is None else np.concatenate([held_out.labels, shown]),
        split=("val",) * count + ("gen",) * recipe.generated,
    )
    shape = (recipe.subsets, recipe.seeds, len(queries))
    for name, size, kind in (("simple", (), np.float32), ("elbo", (), np.float32), ("per-timestep", (BINS,), np.float16)):
        _save(_path(folder, name), np.full(shape + size, np.nan, kind))
    _save(folder / "full.npy", np.full(shape[1:], np.nan, np.float32))
    write_examples(folder / "queries.npz", queries)


def _missing(bank: Bank, recipe: BankRecipe) -> list[tuple[int, int]]:
    """(subset, seed) pairs without an outcome, seed after seed; subset −1 is all the data."""
    done = bank.done()
    full = np.all(np.isfinite(array(bank.folder / "full.npy")), axis=1)
    jobs = [(-1, seed) for seed in range(recipe.seeds) if not full[seed]]
    jobs += [(m, seed) for seed in range(recipe.seeds) for m in range(recipe.subsets) if not done[m, seed]]
    return sorted(jobs, key=lambda job: job[1])


def _worker() -> None:
    """One thread each; Ctrl-C is for the parent, which ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _job(folder: Path, recipe: BankRecipe, subset: int, seed: int, keep_models: Path | None) -> None:
    """Train one model and write its outcomes to one file. The one of all data and seed 0 is there already."""
    training, queries = read_examples(folder / "train.npz"), read_examples(folder / "queries.npz")
    if (subset, seed) == (-1, 0):
        model = unet.load(folder / "model")
    else:
        keep = None if subset < 0 else array(folder / "subsets.npy")[subset]
        model = train(unet.Network(recipe.model), training, recipe.training, seed, keep=keep)
    if keep_models:
        unet.save(model, keep_models / f"subset-{subset}-seed-{seed}")
    with written(folder / "parts" / f"{subset}-{seed}.npz") as file:
        np.savez(file, **outcomes(model, queries, recipe.outcome_draws))  # pyright: ignore[reportArgumentType]


def _collect(bank: Bank, recipe: BankRecipe) -> None:
    """Move finished outcome files into the bank's arrays."""
    parts = sorted(bank.folder.glob("parts/*-*.npz"))
    if not parts:
        return
    arrays = {name: array(_path(bank.folder, name)) for name in ("simple", "elbo", "per-timestep")}
    full = array(bank.folder / "full.npy")
    for part in parts:
        subset, seed = (int(word) for word in part.stem.rsplit("-", 1))
        try:
            found = read_arrays(part, ("simple", "elbo", "per-timestep"))
        except DataError:
            continue  # cut short by a crash: the file goes, and its job is run again
        if subset < 0:
            full[seed] = found["simple"]
        else:
            for name, values in arrays.items():
                values[subset, seed] = found[name]
    for name, values in sorted(arrays.items(), reverse=True):
        _save(_path(bank.folder, name), values)
    _save(bank.folder / "full.npy", full)
    for part in parts:
        part.unlink()


def _path(folder: Path, name: str) -> Path:
    return folder / ("outcomes.npy" if name == "simple" else f"outcomes/{name}.npy")


def _save(path: Path, values: np.ndarray) -> None:
    with written(path) as file:
        np.save(file, values)


def bank_recipe(config: str, steps: int | None = None, **changes: Any) -> BankRecipe:
    """A bank of the named network. For `digits` the one that ships: 1,000 digits, 64 halves × 2 seeds."""
    training = DIGITS if config == "digits" else Recipe()
    if steps is not None:
        training = replace(training, steps=steps)
    return BankRecipe(model=unet.configuration(config), training=training, **changes)
