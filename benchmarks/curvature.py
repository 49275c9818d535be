"""What K-FAC's and EK-FAC's estimates cost, and what their noise is worth.

Run: .venv/bin/python benchmarks/curvature.py [--configuration cifar --images 8 --draws 4]. Times, on one batch of (image, draw)
rows, side by side in one run: a plain forward and backward pass with weight gradients; our factors and squares for several groups;
curvlinops' factors and corrected eigenvalues; eigendecompositions apart. Then, on the digits bank's model, how far eigenvalues from
groups of gradients lie from those of many more, for each group. Writes benchmarks/results/curvature.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curvlinops import EKFACLinearOperator
from torch import nn

from headwater import seeds
from headwater.bank import open_bank
from headwater.core import Examples
from headwater.curvature.ekfac import ekfac, squares
from headwater.curvature.factored import factored
from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.kfac import kfac
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.environment import environment
from headwater.models import unet

GROUPS = (1, 2, 4, 8, 16, 32)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--configuration", default="cifar")
    arguments.add_argument("--images", type=int, default=8)
    arguments.add_argument("--draws", type=int, default=4)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--variance-images", type=int, default=200)
    arguments.add_argument("--only", choices=("costs", "noise"))
    arguments.add_argument("--print-only", action="store_true", help="write no file, as on a machine that is busy")
    given = arguments.parse_args()
    found: dict[str, Any] = {"environment": environment(), **vars(given)}
    if given.only != "noise":
        found["seconds"] = costs(given.configuration, given.images, given.draws, given.repeats)
    if given.only != "costs":
        found["noise"] = noise(given.variance_images)
    print(json.dumps(found, indent=1))
    if not given.print_only:
        (Path(__file__).parent / "results" / "curvature.json").write_text(json.dumps(found, indent=1))


def costs(configuration: str, images: int, draws: int, repeats: int) -> dict[str, float]:
    """Seconds of each, the least of `repeats`."""
    model = unet.new(unet.configuration(configuration), seed=0)
    c, h, w = model.shape
    pixels = seeds.stream(0, "benchmark pictures").integers(0, 256, (images, h, w, c), dtype=np.uint8)
    examples, fisher = Examples(pixels), Fisher(draws=Draws(draws, "antithetic"))
    rows = images * draws
    sums = factors(model, examples, fisher, rows=rows)
    start = time.perf_counter()
    basis = kfac(model, sums)
    seconds = {"eigendecompositions": time.perf_counter() - start}
    what: dict[str, Callable[[], object]] = {
        "forward and backward": lambda: plain(model, examples, fisher),
        "factors, expand": lambda: factors(model, examples, fisher, rows=rows),
        "factors, reduce": lambda: factors(model, examples, fisher, rows=rows, variant="reduce"),
    }
    for group in GROUPS:
        what[f"squares, group {group}"] = lambda group=group: squares(model, examples, fisher, basis, group=group, rows=rows)
    for name, call in what.items():
        seconds[name] = min(timed(call) for _ in range(repeats))
    return seconds | {f"curvlinops: {name}": each for name, each in theirs(model, examples, fisher, repeats).items()}


def plain(model: Denoiser, examples: Examples, fisher: Fisher) -> None:
    """One training step's work on the same rows, drawing of noise included."""
    draw = fisher.drawn(model, examples, slice(None)).draw
    output = model.predict(draw.x_t.flatten(0, 1), draw.t.flatten())
    fisher.measurement(output.view_as(draw.x_t), draw, model.schedule).sum().backward()
    model.module.zero_grad()


class Flat(nn.Module):
    """The network of one tensor that holds x_t and t, with one row of output for each picture, as curvlinops wants it."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.inner, self.shape = model.module, model.shape

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        return self.inner(both[:, :-1].view(-1, *self.shape), both[:, -1].long()).sample.flatten(1)


def theirs(model: Denoiser, examples: Examples, fisher: Fisher, repeats: int) -> dict[str, float]:
    """The same three steps by curvlinops, on the same rows in one batch."""
    draw = fisher.drawn(model, examples, slice(None)).draw
    data = [(torch.cat([draw.x_t.flatten(1), draw.t.to(draw.x_t)], 1), draw.noise.flatten(1))]
    wrapped = Flat(model)
    wanted = {f"inner.{name}" for name in factored(model).pattern.split("|")}
    chosen = [parameter for name, parameter in wrapped.named_parameters() if name in wanted]
    found: dict[str, list[float]] = {"factors": [], "eigendecompositions": [], "corrected eigenvalues": []}
    for _ in range(repeats):
        operator = EKFACLinearOperator(
            wrapped, nn.MSELoss(), chosen, data, check_deterministic=False, num_per_example_loss_terms=1, num_data=len(data[0][0])
        )
        found["factors"].append(timed(operator.compute_kronecker_factors))
        found["eigendecompositions"].append(timed(operator._compute_eigenvectors))
        found["corrected eigenvalues"].append(timed(operator.compute_eigenvalue_correction))
    return {name: min(each) for name, each in found.items()}


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def noise(images: int) -> dict[str, Any]:
    """‖Λ_group − Λ‖/‖Λ‖ with Λ from other η and 8 times the draws, and the same of damped inverses, on the digits bank."""
    bank = open_bank("digits")
    model, examples = unet.load(bank.folder / "model"), bank.train.take(np.arange(images))
    basis = kfac(model, factors(model, examples, Fisher(draws=Draws(10, "antithetic"))))
    many = Fisher(draws=Draws(80, "antithetic", seed=2), seed=2)
    truth = ekfac(basis, squares(model, examples, many, basis, group=1))
    found: dict[str, Any] = {"gradients": images * 10}
    for group in GROUPS:
        fisher = Fisher(draws=Draws(10, "antithetic", seed=1), seed=1)
        operator = ekfac(basis, squares(model, examples, fisher, basis, group=group))
        errors = {"values": relative(operator.values, truth.values)}
        for damping in (0.1, 0.001):
            errors[f"inverse at {damping}"] = relative(operator.inverse(damping), truth.inverse(damping))
        found[f"group {group}"] = errors
    return found


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
