"""What an attribution will cost before it runs: counts that are exact, and seconds from a few of its own images, timed here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from headwater.attribution.experiment import Experiment
from headwater.cost.bank import Measured, cost, peak
from headwater.curvature.parameters import factor_numbers
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.encoding import embedded_prompts, encoded, posteriors
from headwater.diffusion.measure import measurement
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.families.gradients import GradientFeatures, Gradients
from headwater.gradients.forward import values
from headwater.gradients.hooks import as_it_is
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import WORKSPACE, bytes_of_a_draw, draws_that_fit
from headwater.gradients.projected import projected
from headwater.linalg.project import Sparse
from headwater.words import hours_in_words, sized

PATIENCE = 20.0  # seconds for each thing measured, if one picture takes no longer
SIDES = (("train", "an image"), ("query", "a query"))
FEW = 8  # pictures that a measurement takes at most, beside the first


@dataclass(frozen=True)
class Counts:
    """What an attribution asks for, exactly: images and queries, the pictures and prompts among them that differ, numbers of the
    network that have a gradient, of its factors, and bytes of weights, of latents and of embedded prompts."""

    n: int
    queries: int
    pictures: int
    prompts: int
    parameters: int
    factors: int
    bytes_of_weights: int
    bytes_of_latents: int
    bytes_of_prompts: int


def counts(run: Experiment) -> Counts:
    """Those of the run's images and its (first) model."""
    model, both = run.models[0], (run.train, run.queries)
    pictures = len({content for each in both for content in each.hashes})
    prompts = len({word for each in both for word in each.prompts or ()}) if model.text is not None else 0
    told = 0
    if model.text is not None:
        with torch.no_grad():
            told = sum(4 * each[0].numel() for each in model.text.embed([""]).values())
    return Counts(
        n=len(run.train),
        queries=len(run.queries),
        pictures=pictures if model.latent is not None else 0,
        prompts=prompts,
        parameters=sum(p.numel() for p in model.parameters().values()),
        factors=factor_numbers(model),
        bytes_of_weights=sum(p.numel() * p.element_size() for p in model.module.parameters()),
        bytes_of_latents=0 if model.latent is None else 8 * prod(model.shape) * pictures,  # mode and deviation
        bytes_of_prompts=told * prompts,
    )


def foreseen(run: Experiment) -> dict[str, Any]:
    """The counts, the measurement, and the seconds and bytes that follow."""
    if not run.models:
        raise OptionError(f"{run.method} without a model has no gradients to foretell. Name one with --model.")
    model, method, found = run.models[0], run.built(), counts(run)
    with TemporaryDirectory() as folder:
        rate, encoding = _measured(run, model, method, folder)
    each = cost(method, found, rate, model.schedule.T, model.memory)
    rows, activations = _pass(run, model)
    many = len(run.models)
    return {
        "counts": vars(found),
        "models": many,
        "dtype": str(model.dtype)[6:],
        "seconds_a_picture": encoding | {"gradient": rate.gradient, "forward": rate.forward},
        "seconds": {
            "encoding": encoding["latents"] * found.pictures + encoding["prompt"] * found.prompts,
            "features": many * each["seconds"],
        },
        "gradients": {name: int(each[name]) for name in ("train", "query", "train_forward", "query_forward")},
        "memory": {"activations": activations, "rows": rows, "peak": rate.peak},
        "bytes": {"latents": found.bytes_of_latents, "prompts": found.bytes_of_prompts, "features": many * int(each["bytes"])},
    }


def _measured(run: Experiment, model: Denoiser, method: Any, folder: str) -> tuple[Measured, dict[str, float]]:
    """Seconds of a gradient and a forward pass, and of encoding a picture and a prompt: of the run's own."""
    some, places = run.train.take(range(min(len(run.train), FEW + 1))), count()

    def store() -> FeatureStore:
        return FeatureStore(Path(folder) / str(next(places)))  # an empty one each time: nothing is found there

    encoding = {"latents": 0.0, "prompt": 0.0}
    if model.latent is not None:
        encoding["latents"] = _seconds(lambda size: posteriors(model, some.take(range(size)), store()), len(some))
    if (text := model.text) is not None and some.prompts is not None:
        words = list(dict.fromkeys(some.prompts))
        encoding["prompt"] = _seconds(lambda size: embedded_prompts(text, words[:size], store()), len(words))
    gradient = forward = 0.0
    if isinstance(method, Gradients):
        shown, draws = encoded(model, some, store()), method.draws()
        gradient = _seconds(lambda size: _gradients(model, shown.take(range(size)), method), len(shown)) / draws.count
        few = Draws(min(10, model.schedule.T))
        forward = _seconds(lambda size: list(values(model, shown.take(range(size)), ["simple"], few)), len(shown)) / few.count
    return Measured(step=0.0, forward=forward, gradient=gradient, draw=0.0, peak=peak(str(model.device))), encoding


def _gradients(model: Denoiser, examples: Examples, method: Gradients) -> None:
    """The method's gradients, projected as it does it; of one that projects none, as sparse does."""
    project = method.projecting() if isinstance(method, GradientFeatures) else Sparse(4096)
    what = measurement("simple" if method.along_path else method.measurement)
    for _ in projected(model, examples, what, method.draws(), project, pattern=method.parameters, normalize=method.normalize):
        pass


def _seconds(work: Callable[[int], object], most: int) -> float:
    """Seconds of one picture more, after a first that warms up: what is done once is not multiplied. Where the clock's noise is
    larger than that, the mean of all."""
    work(1)
    once = _timed(work, 1)
    more = min(most - 1, FEW, max(1, int(PATIENCE / once)))
    if more < 1:
        return once
    whole = _timed(work, 1 + more)
    return (whole - once) / more if whole > once else whole / (1 + more)


def _timed(work: Callable[[int], object], size: int) -> float:
    start = time.perf_counter()
    work(size)
    return time.perf_counter() - start


def _pass(run: Experiment, model: Denoiser) -> tuple[int, int]:
    """How many rows go through the model at once, and the bytes they leave behind."""
    with TemporaryDirectory() as folder:
        shown = encoded(model, run.train.take([0]), FeatureStore(Path(folder)))
    one, layers = drawn(model, shown, slice(0, 1), measurement("simple"), Draws((0,))), layers_of(model)
    rows = draws_that_fit(model, measurement("simple"), one, layers, as_it_is)
    return rows, int(WORKSPACE * rows * bytes_of_a_draw(model, measurement("simple"), one, layers, as_it_is))


def lines(run: Experiment, found: dict[str, Any]) -> list[str]:
    """The plan in words."""
    many, took, kept, memory = found["counts"], found["seconds_a_picture"], found["bytes"], found["memory"]
    each, names = found["gradients"], ", ".join(str(name) for name in run.sources.get("models", ()))
    shown = {name: f"{1000 * value:.3g} ms" for name, value in took.items()}
    encoding, features = (hours_in_words(found["seconds"][name] / 3600) for name in ("encoding", "features"))
    forward = [f", {each[f'{side}_forward']:,} forward passes {what}" for side, what in SIDES if each[f"{side}_forward"]]
    return [
        f"model       {names}: {many['parameters'] / 1e6:.3g} M parameters with a gradient, {found['dtype']}"
        + (f"; {found['models']} of them" if found["models"] > 1 else ""),
        f"images      {many['n']:,}, and {many['queries']:,} queries; to encode {many['pictures']:,} pictures, "
        f"{many['prompts']:,} prompts",
        f"gradients   {run.method}: {each['train']:,} an image, {each['query']:,} a query" + "".join(forward),
        f"measured    {shown['gradient']} a gradient, {shown['latents']} to encode a picture, {shown['prompt']} a prompt",
        f"time        encoding {encoding}, features {features}",
        f"memory      {sized(many['bytes_of_weights'])} of weights, {sized(memory['activations'])} for {memory['rows']} rows at "
        f"once; {sized(memory['peak'])} the process, as measured",
        f"disk        {sized(kept['latents'])} latents, {sized(kept['prompts'])} prompts, {sized(kept['features'])} of the method",
    ]
