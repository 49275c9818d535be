"""The cost of a bank before any of it runs: trainings, steps, hours on this machine, memory, disk; and each
method's cost on it.

Counts are exact; seconds come from a measurement of a few steps of the recipe's own network on this machine,
on random pictures. (Evaluations are counted as in Zheng et al. 2023, D-TRAK, arXiv:2311.00500, appendix A.4.)
"""

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from headwater.families.gradients import Gradients
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

PATIENCE = 3.0  # seconds for each timing
MOST = 64  # pictures timed together


@dataclass(frozen=True)
class Rates:
    """Seconds a picture on one thread (or the device), by kind of work, and the peak bytes of the process."""

    step: float
    forward: float
    gradient: float
    draw: float
    peak: int


@dataclass(frozen=True)
class BankCounts:
    """Exact counts of a recipe's work. `pictures`: training pictures over all steps of all models; `factors`:
    the numbers in K-FAC's factors."""

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


def bank_counts(recipe: BankRecipe, n: int, held_out: int, parameters: int, factors: int = 0) -> BankCounts:
    """The counts for n training images, of which a subset keeps `part`, and a network with this many
    parameters and factors."""
    jobs, half = jobs_of(recipe), round(recipe.part * n)
    full = sum(subset < 0 for subset, _ in jobs)
    steps = {True: recipe.training.total(n), False: recipe.subset_training.total(half)}
    queries, draws = held_out + recipe.generated, recipe.outcome_draws
    every = draws.timesteps if isinstance(draws.timesteps, int) else len(draws.timesteps)
    outcome = 4 * len(dict.fromkeys(("simple", *recipe.measurements))) + 2 * BINS
    return BankCounts(
        trainings=len(jobs),
        steps=full * steps[True] + (len(jobs) - full) * steps[False],
        pictures=full * pictures_seen(n, steps[True], recipe.training.batch)
        + (len(jobs) - full) * pictures_seen(half, steps[False], recipe.training.batch),
        sampling=recipe.generated * recipe.sample_steps * (1 if recipe.guidance == 1 else 2),
        measuring=len(jobs) * queries * every * draws.noises,
        parameters=parameters,
        factors=factors,
        n=n,
        queries=queries,
        bytes_of_models=4 * parameters * len(jobs),
        bytes_of_bank=len(jobs) * queries * outcome + 4 * parameters * (1 + recipe.training.checkpoints),
    )


def pictures_seen(n: int, steps: int, batch: int) -> int:
    """Pictures in this many steps over n images: the last batch of an epoch is short."""
    epochs, rest = divmod(steps, -(-n // batch))
    return epochs * n + min(n, rest * batch)


def timed_rates(recipe: BankRecipe, device: str = "cpu", patience: float = PATIENCE) -> Rates:
    """A few steps, forward passes and gradients of the recipe's network, timed on one thread.

    `patience`: seconds for each timing.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = untrained(recipe, device)
        rates = {name: seconds(work, patience) for name, work in _works(model, device).items()}
    finally:
        torch.set_num_threads(threads)
    return Rates(**rates, peak=peak(device))


def untrained(recipe: BankRecipe, device: str = "cpu") -> Denoiser:
    """The recipe's model before training; a pipeline takes pictures of the recipe's size, or of its own if
    the recipe has none."""
    side = recipe.data.resize
    network = trainable(recipe, None if side is None else (side, side), FeatureStore(default_root()), device)
    model = network.finished(network.fresh(0))
    torch.nn.Module.to(model.module, torch.device(device))
    return model


def seconds(work: Callable[[int], None], patience: float = PATIENCE, most: int = MOST) -> float:
    """Seconds a picture, timed on the largest batch that fits the patience; the first call only warms up."""
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
    tables = condition(model, examples.labels, examples.prompts)

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    def predicted(size: int) -> torch.Tensor:
        return model.predict(x[:size], t[:size], {name: table[:size] for name, table in tables.items()})

    def step(size: int) -> None:
        loss = predicted(size).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait()

    def forward(size: int) -> None:
        with torch.no_grad():
            predicted(size)
        wait()

    def gradient(size: int) -> None:
        out, projector = x.new_zeros(size, 4096), Sparse(4096)

        def visit(layer_gradient: LayerGradient) -> None:
            for part, block in layer_gradient.parameters(size):
                projector.add(out, block, layer_gradient.layer.places[part])

        stream(model, simple, drawn(model, examples, slice(size), simple, Draws((500,))), layers, visit)
        wait()

    def draw(size: int) -> None:
        Draws((500,), noises=size).of(examples, slice(1), model.schedule, x)

    return {"step": step, "forward": forward, "gradient": gradient, "draw": draw}


def _random(model: Denoiser) -> Examples:
    """Random pictures, or latents, with the labels and prompts that the model takes."""
    random, (c, h, w) = seeds.generator(0, "plan"), model.pictures
    images = random.integers(0, 256, size=(MOST, h, w, c), dtype=np.uint8)
    latents = None if model.latent is None else random.standard_normal((MOST, *model.shape), dtype=np.float32)
    labels = None if model.classes is None else np.arange(MOST) % model.classes
    if model.text is None:
        return Examples(images, labels=labels, latents=latents)
    embedded = condition(model, None, [""])
    text = Text(
        np.zeros(MOST, np.int64), {name: table.float().cpu().numpy() for name, table in embedded.items()}
    )
    return Examples(images, labels=labels, latents=latents, prompts=("",) * MOST, text=text)


@dataclass(frozen=True)
class Hours:
    """Hours of one process for training, sampling and measuring; `in_all` with this many workers, of which
    sampling uses one."""

    training: float
    sampling: float
    measuring: float
    in_all: float
    workers: int


@dataclass(frozen=True)
class Cost:
    """One method: passes through the model for a training image and a query, seconds for all of them, bytes
    in the store. A method without gradients has no seconds until it is timed (None)."""

    train: int
    query: int
    train_forward: int
    query_forward: int
    seconds: float | None
    bytes: int


@dataclass(frozen=True)
class BankPlan:
    """The counts, the timed rates, and the hours and bytes that follow."""

    counts: BankCounts
    rates: Rates
    hours: Hours
    methods: Mapping[str, Cost]

    def as_json(self) -> dict[str, Any]:
        """The plan as `headwater plan --json` prints it."""
        rates = asdict(self.rates)
        peak = rates.pop("peak")
        return {
            "counts": asdict(self.counts),
            "seconds_a_picture": rates,
            "hours": asdict(self.hours),
            "peak_of_a_process": peak,
            "methods": {name: asdict(cost) for name, cost in self.methods.items()},
        }


def plan_bank(
    recipe: BankRecipe,
    n: int,
    held_out: int,
    device: str = "cpu",
    workers: int | None = None,
    patience: float = PATIENCE,
) -> BankPlan:
    """The plan of a bank of n training images and this many held-out ones."""
    workers = workers or (os.cpu_count() or 1 if device == "cpu" else 1)
    rates = timed_rates(recipe, device, patience)
    model = untrained(recipe)
    parameters = sum(p.numel() for p in model.parameters().values())
    counts = bank_counts(recipe, n, held_out, parameters, factor_numbers(model))
    methods = {name: cost(make(name, {}), counts, rates) for name in METHODS}
    return BankPlan(counts, rates, _hours(counts, rates, workers), methods)


def _hours(counts: BankCounts, rates: Rates, workers: int) -> Hours:
    """The hours of each stage; models train and are measured `workers` at a time."""
    training = counts.pictures * rates.step / 3600
    sampling = counts.sampling * rates.forward / 3600
    measuring = counts.measuring * (rates.forward + rates.draw) / 3600
    return Hours(training, sampling, measuring, (training + measuring) / workers + sampling, workers)


@runtime_checkable
class CostInputs(Protocol):
    """The counts that a method's cost depends on."""

    @property
    def n(self) -> int: ...

    @property
    def queries(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    @property
    def factors(self) -> int: ...


def cost(method: Any, counts: CostInputs, rates: Rates, T: int = 1000, memory: int = Denoiser.memory) -> Cost:
    """The cost of a method for these counts, on a model of T timesteps with `memory` bytes to work in."""
    n, q = counts.n, counts.queries
    size = method.bytes_kept(n, q, counts.parameters, counts.factors) if isinstance(method, Costed) else 0
    if not isinstance(method, Gradients):
        return Cost(0, 0, 0, 0, seconds=None, bytes=size)
    passes, repeats = method.passes(T), method.streams(q, counts.parameters, memory) - 1
    passes = passes._replace(train=passes.train + repeats * method.draws().count)
    gradients = n * passes.train + q * passes.query
    forward = n * passes.train_forward + q * passes.query_forward
    return Cost(*passes, seconds=gradients * rates.gradient + forward * rates.forward, bytes=size)


def as_text(name: str, recipe: BankRecipe, plan: BankPlan) -> str:
    """The plan in words, with a table of the methods."""
    counts, hours, rates = plan.counts, plan.hours, plan.rates
    step, forward, gradient = (
        f"{1000 * value:.3g} ms" for value in (rates.step, rates.forward, rates.gradient)
    )
    rows = [
        f"recipe      {name}: {counts.parameters / 1e6:.3g} M parameters, {counts.n:,} images, "
        f"{counts.queries:,} queries",
        f"trainings   {counts.trainings:,} ({recipe.seeds} of all data, {recipe.subsets} subsets × "
        f"{recipe.seeds} seeds"
        + (f", {recipe.learning} × {recipe.learning_seeds} to learn from)" if recipe.learning else ")"),
        f"steps       {counts.steps:,} of batch {recipe.training.batch}: {counts.pictures:,} pictures",
        f"outcomes    {counts.measuring:,} forward passes; sampling {counts.sampling:,}",
        f"measured    a picture takes {step} in a training step, {forward} forward, {gradient} for its "
        "gradient",
        f"time        {hours_in_words(hours.in_all)} with {hours.workers} at once (training "
        f"{hours_in_words(hours.training)}, measuring {hours_in_words(hours.measuring)}, "
        f"sampling {hours_in_words(hours.sampling)} on one)",
        f"memory      {sized(rates.peak)} a process, as measured",
        f"disk        {sized(counts.bytes_of_bank)} bank, {sized(counts.bytes_of_models)} kept models",
        "",
        f"{'method':14}{'gradients an image':>20}{'a query':>9}{'time on one':>14}{'kept':>12}",
    ]
    rows += [
        f"{method:14}{cost.train:20d}{cost.query:9d}"
        f"{'not timed' if cost.seconds is None else hours_in_words(cost.seconds / 3600):>14}"
        f"{sized(cost.bytes):>12}"
        for method, cost in plan.methods.items()
    ]
    return "\n".join(rows)


def peak(device: str) -> int:
    """The most memory that this process has held, in bytes."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
