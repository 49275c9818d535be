"""Does the card compute what the processor does? Every part of the package that uses a model, on both, within
stated bounds.

TF32 is off throughout. The error of two arrays is ‖a − b‖/‖b‖, b what the processor made.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Report, Stage, peak_gib
from stepping import How, Trainer
from torch import nn

import networks
from headwater.bank import SHIPPED
from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import measurement, simple
from headwater.diffusion.sample import sample
from headwater.disk.npz import read_examples
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients import hooks, vmap
from headwater.gradients.features import features
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import PROJECTORS, projector
from headwater.methods import make
from headwater.models import loading
from headwater.models.train import Recipe, train
from headwater.retraining.outcomes import outcomes
from headwater.scores import dense

K = 256
DRAWS = Draws(4)
RECIPE = Recipe(steps=8, batch=8, learning_rate=1e-3, dropout=0.0, flips=False, ema=0.9, checkpoints=1)
DIGITS = SHIPPED / "digits"
BOUNDS = {
    "gradients": 1e-4,
    "scores": 1e-3,
    "ek-fac": 5e-3,
    "training": 1e-3,
    "sampling": 1e-3,
    "outcomes": 1e-4,
}


def run(stage: Stage) -> Report:
    report = Report(stage, "check")
    with exact():
        for name, measure in items(stage):
            report.item(name, measure)
    return report


def items(stage: Stage) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name and measurement of each item."""
    yield "hooks against torch.func on the card", partial(engines, stage)
    for name in ("simple", "square", "avg", "l2", "elbo"):
        yield f"gradients of {name}", partial(gradients, stage, name)
    for name in PROJECTORS:
        yield f"features, {name}", partial(projected, stage, name)
    yield "features, normalised", partial(projected, stage, "sparse", normalize=True)
    yield "a wide sparse projection", partial(projection, stage)
    yield "Gram scores of d-trak", partial(gram, stage)
    for name in ("k-fac", "ek-fac"):
        yield f"{name} scores", partial(influence, stage, name)
    yield "nda scores", partial(nda, stage)
    yield "training steps of the package", partial(training, stage)
    yield "training steps of the kit", partial(kit, stage, How(slots=2, bf16=False, tf32=False))
    yield "training steps of the kit, eager", partial(kit, stage, How(bf16=False, tf32=False, graph=False))
    yield "sampling, DDIM-50", partial(sampling, stage)
    yield "outcomes", partial(measured, stage)


@contextmanager
def exact() -> Iterator[None]:
    """float32 products of float32 numbers."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def compared(stage: Stage, a: Any, b: Any, bound: float) -> dict[str, Any]:
    """The error of a beside b, and whether it is within the bound."""
    a, b = (np.asarray(torch.as_tensor(value).detach().cpu(), np.float64).ravel() for value in (a, b))
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    good = bool(np.isfinite(error) and error <= bound)
    return {
        "good": good,
        "relative_error": float(f"{error:.3g}"),
        "bound": bound,
        "peak_gib": peak_gib(stage),
    }


def both(stage: Stage) -> tuple[Denoiser, Denoiser]:
    """The same network on the card and on the processor."""
    return networks.denoiser("tiny", stage.device), networks.denoiser("tiny")


def trained(stage: Stage) -> tuple[Denoiser, Denoiser]:
    """The digits bank's model on both: what random weights make of their own output is chaos, and their
    curvature is singular."""
    return loading.load(DIGITS / "model", stage.device), loading.load(DIGITS / "model")


def engines(stage: Stage) -> dict[str, Any]:
    model, examples = networks.denoiser("tiny", stage.device), networks.pictures(4)
    a, b = (torch.cat(list(engine.gradients(model, examples, simple, DRAWS))) for engine in (hooks, vmap))
    return compared(stage, a, b, BOUNDS["gradients"])


def gradients(stage: Stage, name: str) -> dict[str, Any]:
    examples = networks.pictures(4)
    a, b = (
        torch.cat(list(hooks.gradients(model, examples, measurement(name), DRAWS))).cpu()
        for model in both(stage)
    )
    return compared(stage, a, b, BOUNDS["gradients"])


def projected(stage: Stage, name: str, normalize: bool = False) -> dict[str, Any]:
    a, b = (rows(model, networks.pictures(8), name, normalize) for model in both(stage))
    return compared(stage, a, b, BOUNDS["gradients"])


def rows(
    model: Denoiser, examples: Examples, name: str, normalize: bool = False, measure: str = "simple"
) -> np.ndarray:
    """Features through a store of their own."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        return features(
            model, examples, GradientSpec(measure, DRAWS, normalize=normalize), projector(name, K, 0), store
        )


def projection(stage: Stage) -> dict[str, Any]:
    """Gradients of several stretches of k, from the middle of one on."""
    random = torch.as_tensor(np.linspace(-1, 1, 6 * 100_003, dtype=np.float32).reshape(6, -1))
    results = []
    for device in (stage.device, "cpu"):
        out = torch.zeros(6, 4096, device=device)
        for start, stop in ((0, 3000), (3000, 90_000), (90_000, 100_003)):
            projector("sparse", 4096, 0).add(out, random[:, start:stop].to(device), start)
        results.append(out.cpu())
    return compared(stage, *results, BOUNDS["gradients"])


def gram(stage: Stage) -> dict[str, Any]:
    scores = []
    for model in both(stage):
        phi = rows(model, networks.pictures(40), "sparse", measure="square")
        of = Gram(phi)
        scores.append(dense(of.scores(phi[:8], 0.1 * of.mean_square)))
    return compared(stage, *scores, BOUNDS["scores"])


def influence(stage: Stage, name: str) -> dict[str, Any]:
    examples, scores = read_examples(DIGITS / "train.npz").take(range(24)), []
    method = make(name, {"timesteps": 4, "curvature_timesteps": 4, "damping": 0.1})
    for model in trained(stage):
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(Path(folder))
            index = method.fit(model, examples, store)
            scores.append(networks.scored(method, index, examples.take(range(4)), store))
    return compared(stage, *scores, BOUNDS["scores" if name == "k-fac" else "ek-fac"])


def nda(stage: Stage) -> dict[str, Any]:
    """The torch form of patch weights on the card beside the compiled one."""
    examples, scores = read_examples(DIGITS / "train.npz").take(range(300)), []
    method = make("nda", {"timesteps": 3, "flips": True})
    for model in trained(stage):
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(Path(folder))
            index = method.fit(model, examples, store)
            scores.append(networks.scored(method, index, examples.take(range(4)), store))
    return compared(stage, *scores, BOUNDS["scores"])


def flat(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in module.parameters()])


def training(stage: Stage) -> dict[str, Any]:
    examples, network = networks.pictures(32), networks.network("tiny")
    a, b = (
        flat(train(network, examples, RECIPE, 0, device=device).module) for device in (stage.device, "cpu")
    )
    start = flat(network.fresh(0))
    return compared(stage, a - start, b - start, 100 * BOUNDS["training"]) | {
        "of": "the way from the initial weights"
    }


def kit(stage: Stage, how: How) -> dict[str, Any]:
    """The kit's steps beside the package's on the same device: the last of the slots, on half of the
    images."""
    examples, network, keep = networks.pictures(32), networks.network("tiny"), np.arange(32) < 16
    trainer = Trainer(network, examples, RECIPE, how, stage.device, RECIPE.steps or 1)
    a = flat(trainer.train([keep] * how.slots, RECIPE.steps or 1)[-1])
    b = flat(train(network, examples, RECIPE, 0, keep=keep, device=stage.device).module)
    start = flat(network.fresh(0))
    return compared(stage, a - start, b - start, 100 * BOUNDS["training"]) | {
        "of": "the way from the initial weights"
    }


def sampling(stage: Stage) -> dict[str, Any]:
    a, b = (
        sample(model, range(4), 0, steps=10 if stage.tiny else 50).pictures.cpu() for model in trained(stage)
    )
    return compared(stage, a, b, BOUNDS["sampling"])


def measured(stage: Stage) -> dict[str, Any]:
    draws = Draws(20, "stratified", seed=5)
    a, b = (
        outcomes(replace(model, memory=2**28), networks.pictures(6), ("elbo",), draws)
        for model in both(stage)
    )
    return compared(stage, a["simple"], b["simple"], BOUNDS["outcomes"])
