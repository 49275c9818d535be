"""The cost of K-FAC's and EK-FAC's estimates and scores, and the noise of the estimates.

Run: .venv/bin/python benchmarks/curvature.py [--models digits 4.4M]. On one thread and one batch of (image,
draw) rows, in turns within one run: a plain forward and backward pass with weight gradients; our factors and
squares for several groups; curvlinops' factors and corrected eigenvalues; eigendecompositions separately;
scoring, for one damping and for twenty. Then, on the digits bank's model, the distance of eigenvalues from
groups of gradients to eigenvalues from many more gradients. Writes benchmarks/results/curvature.json."""

import argparse
import json
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curvlinops import EKFACLinearOperator
from torch import nn

from environment import environment
from features import MIDDLE
from headwater import seeds
from headwater.bank import open_bank
from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import Curvature, kfac
from headwater.curvature.parameters import factored
from headwater.curvature.products import Streamed, query_sides
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.examples import Examples
from headwater.linalg.damping import Damping
from headwater.models import loading, unet

GROUPS = (1, 2, 4, 8, 16, 32)
PLAIN = "forward and backward"
MODELS: dict[str, dict[str, Any]] = {
    "digits": {
        "configuration": unet.configuration("digits"),
        "images": 64,
        "draws": 8,
        "queries": 50,
        "repeats": 5,
    },
    "4.4M": {
        "configuration": unet.configuration("cifar", **MIDDLE),
        "images": 8,
        "draws": 4,
        "queries": 50,
        "repeats": 3,
    },
    "35.7M": {
        "configuration": unet.configuration("cifar"),
        "images": 4,
        "draws": 4,
        "queries": 10,
        "repeats": 2,
    },
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--models", nargs="*", default=list(MODELS))
    arguments.add_argument("--variance-images", type=int, default=200, help="0: leave the noise out")
    arguments.add_argument(
        "--print-only", action="store_true", help="write no file, as on a machine that is busy"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    path = Path(__file__).parent / "results" / "curvature.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    machine = environment() | {"threads": 1}
    for name in options.models:
        results[name] = {"environment": machine, **MODELS[name], **costs(**MODELS[name])}
        print(name, json.dumps(results[name]["ratios"], indent=1))
    if options.variance_images:
        results["noise"] = {"environment": machine, **noise(options.variance_images)}
    if not options.print_only:
        path.write_text(json.dumps(results, indent=1))


def costs(
    configuration: dict[str, Any], images: int, draws: int, queries: int, repeats: int
) -> dict[str, Any]:
    """Seconds of each step, the least of `repeats` turns, and the ratios to a plain forward and backward
    pass."""
    model = unet.new(configuration, seed=0)
    c, h, w = model.shape
    pixels = seeds.generator(0, "benchmark pictures").integers(0, 256, (images, h, w, c), dtype=np.uint8)
    examples, fisher = Examples(pixels), Fisher(draws=Draws(draws, "antithetic"))
    rows = images * draws
    start = time.perf_counter()
    basis = kfac(model, factors(model, examples, fisher, rows=rows))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = {"first fit, eigendecompositions and all": time.perf_counter() - start}
    works: dict[str, Callable[[], object]] = {
        PLAIN: lambda: plain(model, examples, fisher),
        "factors, expand": lambda: factors(model, examples, fisher, rows=rows),
        "factors, reduce": lambda: factors(model, examples, fisher, rows=rows, variant="reduce"),
        **{
            f"squares, group {group}": lambda group=group: squares(
                model, examples, fisher, basis, group=group, rows=rows
            )
            for group in (1, 8, 16)
        },
        **{
            f"scores of {queries} queries, dampings: {len(grid)}": scoring(
                model, examples, fisher.draws, basis, queries, grid
            )
            for grid in ([0.1], list(np.geomspace(1e-6, 10, 20)))
        },
        **theirs(model, examples, fisher),
    }
    turns: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, call in works.items():
            turns[name].append(timed(call))
    seconds |= {name: min(times) for name, times in turns.items()}
    ratios = {name: round(value / seconds[PLAIN], 3) for name, value in seconds.items()}
    return {"parameters": basis.p, "seconds": seconds, "ratios": ratios, "bytes_at_most_in_a_fit": memory}


def scoring(
    model: Denoiser, examples: Examples, draws: Draws, basis: Curvature, queries: int, grid: list[float]
) -> Callable[[], object]:
    """Products of the training gradients with this many held queries."""
    rows = torch.as_tensor(seeds.normal((queries, basis.p), 0, "benchmark queries"), dtype=torch.float32)
    held = query_sides(basis, rows.split(1), [Damping(value) for value in grid])
    streamed = Streamed(model, examples, basis, draws, False, held)
    return lambda: list(streamed.products(slice(None)))


def plain(model: Denoiser, examples: Examples, fisher: Fisher) -> None:
    """The work of a training step on these rows, including the draws of noise."""
    draw = fisher.drawn(model, examples, slice(None)).draw
    output = model.predict(draw.x_t.flatten(0, 1), draw.t.flatten())
    fisher.measurement(output.view_as(draw.x_t), draw, model.schedule).sum().backward()
    model.module.zero_grad()


class Flat(nn.Module):
    """The network as curvlinops expects it: one input tensor with x_t and t, one output row per picture."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.inner, self.shape = model.module, model.shape

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        return self.inner(both[:, :-1].view(-1, *self.shape), both[:, -1].long()).sample.flatten(1)


def theirs(model: Denoiser, examples: Examples, fisher: Fisher) -> dict[str, Callable[[], object]]:
    """The same steps by curvlinops, one after the other, on the same rows in one batch."""
    draw = fisher.drawn(model, examples, slice(None)).draw
    data = [(torch.cat([draw.x_t.flatten(1), draw.t.to(draw.x_t)], 1), draw.noise.flatten(1))]
    wrapped = Flat(model)
    names = {f"inner.{name}" for name in factored(model).pattern.split("|")}
    chosen = [parameter for name, parameter in wrapped.named_parameters() if name in names]
    held: list[EKFACLinearOperator] = []

    def begun() -> None:
        held[:] = [
            EKFACLinearOperator(
                wrapped, nn.MSELoss(), chosen, data, check_deterministic=False, num_per_example_loss_terms=1,
                num_data=len(data[0][0]),
            )
        ]  # fmt: skip
        held[0].compute_kronecker_factors()

    return {
        "curvlinops: factors": begun,
        "curvlinops: eigendecompositions": lambda: held[0]._compute_eigenvectors(),
        "curvlinops: corrected eigenvalues": lambda: held[0].compute_eigenvalue_correction(),
    }


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def noise(images: int) -> dict[str, Any]:
    """‖Λ_group − Λ‖/‖Λ‖ with Λ from other η and 8 times the draws, also for damped inverses, on the digits
    bank."""
    bank = open_bank("digits")
    model, examples = loading.load(bank.folder / "model"), bank.train.take(np.arange(images))
    basis = kfac(model, factors(model, examples, Fisher(draws=Draws(10, "antithetic"))))
    many = Fisher(draws=Draws(80, "antithetic", seed=2), seed=2)
    truth = ekfac(basis, squares(model, examples, many, basis, group=1))
    results: dict[str, Any] = {"gradients": images * 10}
    for group in GROUPS:
        fisher = Fisher(draws=Draws(10, "antithetic", seed=1), seed=1)
        operator = ekfac(basis, squares(model, examples, fisher, basis, group=group))
        errors = {"values": relative(operator.values, truth.values)}
        for damping in (0.1, 0.001):
            errors[f"inverse at {damping}"] = relative(
                operator.inverse(Damping(damping)), truth.inverse(Damping(damping))
            )
        results[f"group {group}"] = errors
    return results


def relative(estimate: torch.Tensor, exact: torch.Tensor) -> float:
    return float((estimate - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
