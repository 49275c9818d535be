"""The cost of an attribution before it runs: exact counts, and seconds timed on this machine on a few of its
own images."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from headwater.attribution.experiment import Experiment
from headwater.cost.bank import Cost, Rates, cost, peak
from headwater.cost.sampled import empty_stores, sampled_seconds
from headwater.curvature.parameters import factor_numbers
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import embedded_prompts, encoded, posteriors
from headwater.diffusion.measure import simple
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.families.gradients import GradientFeatures, Gradients
from headwater.families.protocol import Method
from headwater.gradients.forward import values
from headwater.gradients.hooks import as_it_is
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import WORKSPACE, bytes_of_a_draw, draws_that_fit
from headwater.gradients.projected import projected
from headwater.linalg.project import Sparse
from headwater.words import hours_in_words, sized

PATIENCE = 20.0  # seconds for each timing, if one picture takes no longer
FEW = 8  # pictures timed at most, after the first


@dataclass(frozen=True)
class AttributionCounts:
    """Exact counts of an attribution: images and queries, distinct pictures and prompts to encode, parameters
    that have a gradient, numbers in their factors, and bytes of weights, of latents and of embedded
    prompts."""

    n: int
    queries: int
    pictures: int
    prompts: int
    parameters: int
    factors: int
    bytes_of_weights: int
    bytes_of_latents: int
    bytes_of_prompts: int


@dataclass(frozen=True)
class Encoding:
    """Seconds to encode one picture and to embed one prompt."""

    latents: float = 0.0
    prompt: float = 0.0


@dataclass(frozen=True)
class AttributionPlan:
    """The counts, the timed rates, and the seconds and bytes that follow. `cost` is for one of the `models`;
    `rows` go through it at once and hold `activations` bytes."""

    counts: AttributionCounts
    models: int
    dtype: str
    encoding: Encoding
    rates: Rates
    cost: Cost
    rows: int
    activations: int

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of encoding, and of the features of all models."""
        counts, encoding = self.counts, self.encoding
        return {
            "encoding": encoding.latents * counts.pictures + encoding.prompt * counts.prompts,
            "features": self.models * (self.cost.seconds or 0.0),
        }

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes on disk of latents, of embedded prompts, and of the features of all models."""
        counts = self.counts
        return {
            "latents": counts.bytes_of_latents,
            "prompts": counts.bytes_of_prompts,
            "features": self.models * self.cost.bytes,
        }

    def as_json(self) -> dict[str, Any]:
        """The plan as `headwater plan --method … --json` prints it."""
        names = ("train", "query", "train_forward", "query_forward")
        return {
            "counts": asdict(self.counts),
            "models": self.models,
            "dtype": self.dtype,
            "seconds_a_picture": asdict(self.encoding)
            | {"gradient": self.rates.gradient, "forward": self.rates.forward},
            "seconds": self.seconds,
            "gradients": {name: getattr(self.cost, name) for name in names},
            "memory": {"activations": self.activations, "rows": self.rows, "peak": self.rates.peak},
            "bytes": self.bytes,
        }


def attribution_counts(run: Experiment) -> AttributionCounts:
    """The counts of the run's images and its first model."""
    model, sides = run.models[0], (run.train, run.queries)
    pictures = len({content for side in sides for content in side.hashes}) if model.latent is not None else 0
    prompts = {prompt for side in sides for prompt in side.prompts or ()} if model.text is not None else set()
    return AttributionCounts(
        n=len(run.train),
        queries=len(run.queries),
        pictures=pictures,
        prompts=len(prompts),
        parameters=sum(p.numel() for p in model.parameters().values()),
        factors=factor_numbers(model),
        bytes_of_weights=sum(p.numel() * p.element_size() for p in model.module.parameters()),
        bytes_of_latents=8 * prod(model.shape) * pictures,  # mode and deviation
        bytes_of_prompts=len(prompts) * _bytes_of_prompt(model),
    )


def _bytes_of_prompt(model: Denoiser) -> int:
    """Bytes of one embedded prompt, in float32; 0 for a model that takes none."""
    if model.text is None:
        return 0
    with torch.no_grad():
        return sum(4 * table[0].numel() for table in model.text.embed([""]).values())


def plan_attribution(run: Experiment, memory: int = Denoiser.memory) -> AttributionPlan:
    """The plan of a run within `memory` bytes. Raises an OptionError for gradients without a model."""
    method = run.built()
    if not run.models and isinstance(method, Gradients):
        raise OptionError(
            f"{run.method} without a model has no gradients to plan for.", hint="Name a model with --model."
        )
    if not run.models:
        return _without_model(run, method, memory)
    model, counts = run.models[0].within(memory), attribution_counts(run)
    with TemporaryDirectory() as folder:
        rates, encoding = _rates(run, model, method, folder)
    rows, activations = _pass(run, model)
    counted = cost(method, counts, rates, model.schedule.T, memory)
    if counted.seconds is None:
        counted = replace(counted, seconds=sampled_seconds(method, model, run.train, run.queries, memory))
    return AttributionPlan(
        counts=counts,
        models=len(run.models),
        dtype=str(model.dtype)[6:],
        encoding=encoding,
        rates=rates,
        cost=counted,
        rows=rows,
        activations=activations,
    )


def _without_model(run: Experiment, method: Method, memory: int) -> AttributionPlan:
    """The plan of a method that compares images and needs no model."""
    counts = AttributionCounts(len(run.train), len(run.queries), 0, 0, 0, 0, 0, 0, 0)
    took = sampled_seconds(method, None, run.train, run.queries, memory)
    rates = Rates(step=0.0, forward=0.0, gradient=0.0, draw=0.0, peak=peak("cpu"))
    counted = replace(cost(method, counts, rates), seconds=took)
    return AttributionPlan(counts, 1, "", Encoding(), rates, counted, 0, 0)


def _rates(run: Experiment, model: Denoiser, method: Any, folder: str) -> tuple[Rates, Encoding]:
    """Seconds of a gradient and a forward pass, and of encoding a picture and a prompt, timed on the run's
    own images."""
    sample, stores = run.train.take(range(min(len(run.train), FEW + 1))), empty_stores(Path(folder))
    latents = prompt = gradient = forward = 0.0
    if model.latent is not None:
        latents = _seconds(lambda n: posteriors(model, sample.take(range(n)), next(stores)), len(sample))
    if (text := model.text) is not None and sample.prompts is not None:
        prompts = list(dict.fromkeys(sample.prompts))
        prompt = _seconds(lambda n: embedded_prompts(text, prompts[:n], next(stores)), len(prompts))
    if isinstance(method, Gradients):
        images, few = encoded(model, sample, next(stores)), Draws(min(10, model.schedule.T))
        gradient = _seconds(lambda n: _gradients(model, images.take(range(n)), method), len(images))
        forward = _seconds(lambda n: list(values(model, images.take(range(n)), ["simple"], few)), len(images))
        gradient, forward = gradient / method.draws().count, forward / few.count
    rates = Rates(step=0.0, forward=forward, gradient=gradient, draw=0.0, peak=peak(str(model.device)))
    return rates, Encoding(latents, prompt)


def _gradients(model: Denoiser, examples: Examples, method: Gradients) -> None:
    """Compute the method's gradients, with its own projection; sparse where it has none."""
    projector = method.projecting() if isinstance(method, GradientFeatures) else Sparse(4096)
    for _ in projected(model, examples, method.spec(), projector):
        pass


def _seconds(work: Callable[[int], object], most: int) -> float:
    """Seconds of each further picture after a first that warms up, so that one-time work is not multiplied.
    Where the clock's noise exceeds that, the mean over all pictures."""
    work(1)
    once = _timed(work, 1)
    further = min(most - 1, FEW, max(1, int(PATIENCE / once)))
    if further < 1:
        return once
    total = _timed(work, 1 + further)
    return (total - once) / further if total > once else total / (1 + further)


def _timed(work: Callable[[int], object], size: int) -> float:
    start = time.perf_counter()
    work(size)
    return time.perf_counter() - start


def _pass(run: Experiment, model: Denoiser) -> tuple[int, int]:
    """The rows that go through the model at once, and the bytes they hold."""
    with TemporaryDirectory() as folder:
        image = encoded(model, run.train.take([0]), FeatureStore(Path(folder)))
    inputs, layers = drawn(model, image, slice(0, 1), simple, Draws((0,))), layers_of(model)
    rows = draws_that_fit(model, simple, inputs, layers, as_it_is)
    return rows, int(WORKSPACE * rows * bytes_of_a_draw(model, simple, inputs, layers, as_it_is))


def _text_without_model(run: Experiment, plan: AttributionPlan) -> str:
    counts, took = plan.counts, hours_in_words((plan.cost.seconds or 0.0) / 3600)
    lines = [
        f"images      {counts.n:,}, and {counts.queries:,} queries; no model",
        f"time        {took} for {run.method}, from a few of them",
        f"memory      {sized(plan.rates.peak)} the process, as measured",
    ]
    return "\n".join(lines)


def as_text(run: Experiment, plan: AttributionPlan) -> str:
    """The plan in words."""
    counts, cost, seconds, sizes = plan.counts, plan.cost, plan.seconds, plan.bytes
    if not run.models:
        return _text_without_model(run, plan)
    names = ", ".join(str(name) for name in run.sources.get("models", ()))
    timings = (plan.rates.gradient, plan.encoding.latents, plan.encoding.prompt)
    gradient, latents, prompt = (f"{1000 * value:.3g} ms" for value in timings)
    forward = [(cost.train_forward, "an image"), (cost.query_forward, "a query")]
    lines = [
        f"model       {names}: {counts.parameters / 1e6:.3g} M parameters with a gradient, {plan.dtype}"
        + (f"; {plan.models} of them" if plan.models > 1 else ""),
        f"images      {counts.n:,}, and {counts.queries:,} queries; to encode {counts.pictures:,} pictures, "
        f"{counts.prompts:,} prompts",
        f"gradients   {run.method}: {cost.train:,} an image, {cost.query:,} a query"
        + "".join(f", {passes:,} forward passes {image}" for passes, image in forward if passes),
        f"measured    {gradient} a gradient, {latents} to encode a picture, {prompt} a prompt",
        f"time        encoding {hours_in_words(seconds['encoding'] / 3600)}, features "
        f"{hours_in_words(seconds['features'] / 3600)}",
        f"memory      {sized(counts.bytes_of_weights)} of weights, {sized(plan.activations)} for "
        f"{plan.rows} rows at once; {sized(plan.rates.peak)} the process, as measured",
        f"disk        {sized(sizes['latents'])} latents, {sized(sizes['prompts'])} prompts, "
        f"{sized(sizes['features'])} of the method",
    ]
    return "\n".join(lines)
