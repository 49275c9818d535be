"""What a bank will cost before any of it runs: trainings, steps, hours here, memory, disk; and what each method costs on it.

Counts are exact; seconds come from a measurement of a few steps of the recipe's own network on this machine, on random pictures.
(The counts of evaluations are those of Zheng et al. 2023, D-TRAK, arXiv:2311.00500, appendix A.4.)
"""

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from headwater import seeds
from headwater.curvature.parameters import factor_numbers
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import condition
from headwater.diffusion.measure import simple
from headwater.disk.store import FeatureStore, default_root
from headwater.examples import Examples, Text
from headwater.families.gradients import Gradients, Passes
from headwater.families.protocol import Costed
from headwater.gradients.hooks import LayerGradient, stream
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.linalg.project import Sparse
from headwater.methods import METHODS, make
from headwater.retraining.jobs import jobs_of, trainable
from headwater.retraining.outcomes import BINS
from headwater.retraining.recipe import BankRecipe
from headwater.words import hours_in_words, sized

PATIENCE = 3.0  # seconds for each thing measured
MOST = 64  # pictures that a measurement takes together


@dataclass(frozen=True)
class Measured:
    """Seconds a picture on one thread (or the device): training step, forward pass, gradient, draw. And the process's peak."""

    step: float
    forward: float
    gradient: float
    draw: float
    peak: int


@dataclass(frozen=True)
class Counts:
    """What a recipe asks for, exactly. `pictures` are training pictures seen, over all steps of all models; `factors` the numbers
    of K-FAC's factors."""

    trainings: int
    steps: int
    pictures: int
    sampling: int
    measuring: int
    parameters: int
    factors: int
    n: int
    queries: int
    bytes_of_models: int
    bytes_of_bank: int


def counts(recipe: BankRecipe, n: int, held_out: int, parameters: int, factors: int = 0) -> Counts:
    """The counts for n training images, of which a subset keeps `part`, and a network of so many parameters and factors."""
    jobs, half = jobs_of(recipe), round(recipe.part * n)
    full = sum(subset < 0 for subset, _ in jobs)
    steps = {True: recipe.training.total(n), False: recipe.subset_training.total(half)}
    queries, draws = held_out + recipe.generated, recipe.outcome_draws
    every = draws.timesteps if isinstance(draws.timesteps, int) else len(draws.timesteps)
    outcome = 4 * len(dict.fromkeys(("simple", *recipe.measurements))) + 2 * BINS
    return Counts(
        trainings=len(jobs),
        steps=full * steps[True] + (len(jobs) - full) * steps[False],
        pictures=full * seen(n, steps[True], recipe.training.batch)
        + (len(jobs) - full) * seen(half, steps[False], recipe.training.batch),
        sampling=recipe.generated * recipe.sample_steps * (1 if recipe.guidance == 1 else 2),
        measuring=len(jobs) * queries * every * draws.noises,
        parameters=parameters,
        factors=factors,
        n=n,
        queries=queries,
        bytes_of_models=4 * parameters * len(jobs),
        bytes_of_bank=len(jobs) * queries * outcome + 4 * parameters * (1 + recipe.training.checkpoints),
    )


def seen(n: int, steps: int, batch: int) -> int:
    """Pictures in so many steps over n images: the last batch of an epoch is short."""
    each = -(-n // batch)
    epochs, rest = divmod(steps, each)
    return epochs * n + min(n, rest * batch)


def measured(recipe: BankRecipe, device: str = "cpu") -> Measured:
    """A few steps, forward passes and gradients of the recipe's network, timed on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = untrained(recipe, device)
        found = {name: seconds(work) for name, work in _works(model, device).items()}
    finally:
        torch.set_num_threads(threads)
    return Measured(**found, peak=peak(device))


def untrained(recipe: BankRecipe, device: str = "cpu") -> Denoiser:
    """What the recipe trains, as it begins; adapters of a pipeline for pictures of the recipe's size, else of its own."""
    side = recipe.data.resize
    network = trainable(recipe, None if side is None else (side, side), FeatureStore(default_root()), device)
    model = network.finished(network.fresh(0))
    torch.nn.Module.to(model.module, torch.device(device))
    return model


def seconds(work: Callable[[int], None], patience: float = PATIENCE, most: int = MOST) -> float:
    """Seconds a picture, from the largest number of pictures together that fits the patience; the first call only warms up."""
    work(1)
    size, took = 1, 0.0
    while True:
        start = time.perf_counter()
        work(size)
        took = time.perf_counter() - start
        if 3 * took > patience or size >= most:
            return took / size
        size = min(most, 2 * size)


def _works(model: Denoiser, device: str) -> dict[str, Callable[[int], None]]:
    examples = _random(model)
    layers = layers_of(model)
    optimizer = torch.optim.AdamW([p for p in model.module.parameters() if p.requires_grad], 1e-6, fused=True)
    x = torch.as_tensor(examples.inputs(), device=device)
    t = torch.as_tensor(np.arange(MOST) * model.schedule.T // MOST, device=device)
    given = condition(model, examples.labels, examples.prompts)

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def step(size: int) -> None:
        loss = model.predict(x[:size], t[:size], {name: each[:size] for name, each in given.items()}).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait()

    def forward(size: int) -> None:
        with torch.no_grad():
            model.predict(x[:size], t[:size], {name: each[:size] for name, each in given.items()})
        wait()

    def gradient(size: int) -> None:
        out, project = x.new_zeros(size, 4096), Sparse(4096)

        def visit(found: LayerGradient) -> None:
            for part, block in found.parameters(size):
                project.add(out, block, found.layer.places[part])

        stream(model, simple, drawn(model, examples, slice(size), simple, Draws((500,))), layers, visit)
        wait()

    def draw(size: int) -> None:
        Draws((500,), noises=size).of(examples, slice(1), model.schedule, x)

    return {"step": step, "forward": forward, "gradient": gradient, "draw": draw}


def _random(model: Denoiser) -> Examples:
    """Random pictures, or latents, with labels and prompts as far as the model takes those."""
    random, (c, h, w) = seeds.stream(0, "plan"), model.pictures
    images = random.integers(0, 256, size=(MOST, h, w, c), dtype=np.uint8)
    latents = None if model.latent is None else random.standard_normal((MOST, *model.shape), dtype=np.float32)
    labels = None if model.classes is None else np.arange(MOST) % model.classes
    if model.text is None:
        return Examples(images, labels=labels, latents=latents)
    told = condition(model, None, [""])
    text = Text(np.zeros(MOST, np.int64), {name: each.float().cpu().numpy() for name, each in told.items()})
    return Examples(images, labels=labels, latents=latents, prompts=("",) * MOST, text=text)


def plan(recipe: BankRecipe, examples: Mapping[str, int], device: str = "cpu", workers: int | None = None) -> dict[str, Any]:
    """The counts, the measurement, and the hours and bytes that follow; `examples` says how many images each side has."""
    workers = workers or (os.cpu_count() or 1 if device == "cpu" else 1)
    rate = measured(recipe, device)
    model = untrained(recipe)
    parameters = sum(p.numel() for p in model.parameters().values())
    found = counts(recipe, examples["data"], examples["held_out"], parameters, factor_numbers(model))
    hours = {
        "training": found.pictures * rate.step / 3600,
        "sampling": found.sampling * rate.forward / 3600,
        "measuring": found.measuring * (rate.forward + rate.draw) / 3600,
    }
    total = (hours["training"] + hours["measuring"]) / workers + hours["sampling"]
    return {
        "counts": vars(found),
        "seconds_a_picture": {"step": rate.step, "forward": rate.forward, "gradient": rate.gradient, "draw": rate.draw},
        "hours": hours | {"in_all": total, "workers": workers},
        "peak_of_a_process": rate.peak,
        "methods": {name: cost(make(name, {}), found, rate) for name in METHODS},
    }


@runtime_checkable
class Asked(Protocol):
    """What a method's cost is counted from."""

    @property
    def n(self) -> int: ...

    @property
    def queries(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    @property
    def factors(self) -> int: ...


def cost(method: Any, found: Asked, rate: Measured, T: int = 1000, memory: int = Denoiser.memory) -> dict[str, float]:
    """Passes through the model for a training image and a query, seconds for all of them, and bytes in the store."""
    each, n, q = Passes(0, 0), found.n, found.queries
    if isinstance(method, Gradients):
        each, again = method.passes(T), method.streams(q, found.parameters, memory) - 1
        each = each._replace(train=each.train + again * method.draws().count)
    seconds = (n * each.train + q * each.query) * rate.gradient + (n * each.train_forward + q * each.query_forward) * rate.forward
    size = method.bytes_kept(n, q, found.parameters, found.factors) if isinstance(method, Costed) else 0
    return {**each._asdict(), "seconds": seconds, "bytes": size}


def lines(name: str, recipe: BankRecipe, found: Mapping[str, Any]) -> list[str]:
    """The plan in words."""
    many, hours = found["counts"], found["hours"]
    each = {key: f"{1000 * value:.3g} ms" for key, value in found["seconds_a_picture"].items()}
    rows = [
        f"recipe      {name}: {many['parameters'] / 1e6:.3g} M parameters, {many['n']:,} images, {many['queries']:,} queries",
        f"trainings   {many['trainings']:,} ({recipe.seeds} of all data, {recipe.subsets} subsets × {recipe.seeds} seeds"
        + (f", {recipe.learning} × {recipe.learning_seeds} to learn from)" if recipe.learning else ")"),
        f"steps       {many['steps']:,} of batch {recipe.training.batch}: {many['pictures']:,} pictures",
        f"outcomes    {many['measuring']:,} forward passes; sampling {many['sampling']:,}",
        f"measured    a picture takes {each['step']} in a training step, {each['forward']} forward, {each['gradient']} for its "
        "gradient",
        f"time        {hours_in_words(hours['in_all'])} with {hours['workers']} at once (training "
        f"{hours_in_words(hours['training'])}, measuring {hours_in_words(hours['measuring'])}, "
        f"sampling {hours_in_words(hours['sampling'])} on one)",
        f"memory      {sized(found['peak_of_a_process'])} a process, as measured",
        f"disk        {sized(many['bytes_of_bank'])} bank, {sized(many['bytes_of_models'])} kept models",
        "",
        f"{'method':14}{'gradients an image':>20}{'a query':>9}{'time on one':>14}{'kept':>12}",
    ]
    rows += [
        f"{method:14}{each['train']:20d}{each['query']:9d}{hours_in_words(each['seconds'] / 3600):>14}{sized(each['bytes']):>12}"
        for method, each in found["methods"].items()
    ]
    return rows


def peak(device: str) -> int:
    """The most memory that this process has held, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
