"""The cost of adapters' features, in units of an ordinary training step of the same adapters on the same
rows.

Run: .venv/bin/python benchmarks/lora.py [--real] [--device cpu]. Writes benchmarks/results/lora.json
(lora-cuda.json on a GPU). A Stable Diffusion UNet of random weights, a fifth of the real one's width; with
--real Stable Diffusion 1.5's own configuration (860 M parameters) for pictures of 256 × 256, adapters of rank
128. A training step is forward, backward and AdamW, over as many (t, ε) rows at once as features take by
default. Both alternate in one process, on one thread; one-time work (checking the layers) is separated from
the cost of every further row. Memory is the growth of the process's peak over the loaded model, in processes
of their own, beside the bytes of the frozen weights and of their gradients."""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from environment import environment
from features import peak, seconds
from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.examples import Examples, Text
from headwater.gradients.hooks import as_it_is
from headwater.gradients.inputs import Drawn, drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import draws_that_fit
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Sparse, TwoSided
from headwater.models import lora
from headwater.models.train import LORA

K, SIDE, WORDS = 10, 32, 77
PROJECTORS = {"sparse": Sparse(4096), "two-sided": TwoSided(4096)}
SIZES: dict[str, dict[str, Any]] = {
    "fifth": {"widths": (64, 128, 256, 256), "prompt_width": 192, "rank": 32, "images": 3, "repeats": 3},
    "sd-1.5": {"widths": (320, 640, 1280, 1280), "prompt_width": 768, "rank": 128, "images": 2, "repeats": 1},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--real", action="store_true")
    arguments.add_argument("--one", nargs=3, metavar=("SIZE", "WHO", "WHAT"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        size, who, quantity = options.one
        print(json.dumps((memory if quantity == "memory" else times)(size, who, options.device)))
        return
    name = "sd-1.5" if options.real else "fifth"
    path = (
        Path(__file__).parent
        / "results"
        / ("lora.json" if options.device == "cpu" else f"lora-{options.device}.json")
    )
    results = (
        json.loads(path.read_text())
        if path.exists()
        else {"timesteps": K, "latents": SIDE, "device": options.device}
    )
    results[name] = {"environment": environment() | {"threads": 1}, "rank": SIZES[name]["rank"]}
    results[name]["training"] = apart(name, "training", "memory", options.device)
    for who in PROJECTORS:
        row = apart(name, who, "times", options.device) | apart(name, who, "memory", options.device)
        row["memory_ratio"] = round(row["bytes"] / results[name]["training"]["bytes"], 3)
        results[name][who] = row
        print(name, who, row, flush=True)
        path.write_text(json.dumps(results, indent=1))


def apart(*arguments: str) -> dict[str, Any]:
    """`one` of these arguments, the device last, in a process of its own."""
    *one, device = arguments
    words = [sys.executable, __file__, "--device", device, "--one", *one]
    return json.loads(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


@dataclass(frozen=True)
class Words:
    """A stand-in for the text encoder, which this benchmark never calls."""

    fingerprint: str = "none"

    def embed(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        raise NotImplementedError


def opened(name: str, device: str) -> tuple[Denoiser, Examples]:
    """The network with adapters that are not zero, and a few latents, each with its own prompt."""
    torch.set_num_threads(1)
    size = SIZES[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = UNet2DConditionModel(
            sample_size=SIDE,
            block_out_channels=size["widths"],
            cross_attention_dim=size["prompt_width"],
            attention_head_dim=8,
        )
        lora.add(module, size["rank"], seed=0)
        for layer, p in module.named_parameters():
            if "lora_B" in layer:
                torch.nn.init.normal_(p.data, std=0.02)
    torch.nn.Module.to(module, torch.device(device))
    random, n = seeds.generator(0, "benchmark"), size["images"]
    tables = {
        "encoder_hidden_states": random.standard_normal((n, WORDS, size["prompt_width"]), dtype=np.float32)
    }
    latents = random.standard_normal((n, 4, SIDE, SIDE), dtype=np.float32)
    images = random.integers(
        0, 256, size=(n, 8, 8, 3), dtype=np.uint8
    )  # in place of the pictures: they seed the noise
    model = Denoiser(module, linear(), (4, SIDE, SIDE), "benchmark", text=Words())
    return model, Examples(images, latents=latents, text=Text(np.arange(n), tables))


def rows_at_once(model: Denoiser, examples: Examples) -> int:
    """The number of (t, ε) rows that features take through the network together."""
    one = drawn(model, examples, slice(0, 1), simple, Draws(K)).one(0, 0)
    return min(K, draws_that_fit(model, simple, one, layers_of(model), as_it_is))


def training(model: Denoiser, examples: Examples, rows: int) -> Callable[[], None]:
    """A step for every `rows` rows of all examples, one image after the other."""
    optimizer = torch.optim.AdamW(
        [p for p in model.module.parameters() if p.requires_grad], LORA.learning_rate, fused=True
    )

    def run() -> None:
        for piece in _pieces(model, examples, rows):
            draw = piece.draw
            output = model.module(draw.x_t.flatten(0, 1), draw.t.reshape(-1), **piece.flat).sample
            optimizer.zero_grad()
            simple(output.view_as(draw.x_t), draw, model.schedule).mean().backward()
            optimizer.step()

    return run


def _pieces(model: Denoiser, examples: Examples, rows: int) -> Iterator[Drawn]:
    for i in range(len(examples)):
        yield from drawn(model, examples, slice(i, i + 1), simple, Draws(K)).parts(rows)


def features(model: Denoiser, examples: Examples, who: str, rows: int) -> Callable[[], None]:
    """From latents to numbers."""

    def run() -> None:
        for _ in projected(model, examples, GradientSpec("simple", Draws(K)), PROJECTORS[who], rows=rows):
            pass

    return run


def times(name: str, who: str, device: str) -> dict[str, Any]:
    """Seconds per row of training and of features after the first image, whose extra time is one-time
    work."""
    model, examples = opened(name, device)
    rows, first, n = rows_at_once(model, examples), examples.take(range(1)), len(examples)
    step, one, every = (
        training(model, examples, rows),
        features(model, first, who, rows),
        features(model, examples, who, rows),
    )
    warm, turns = seconds(one, device), []
    for _ in range(SIZES[name]["repeats"]):
        trained, once, full = (seconds(work, device) for work in (step, one, every))
        turns.append((trained / (n * K), (full - once) / ((n - 1) * K), once))
    trained, ours, once = (statistics.median(values) for values in zip(*turns, strict=True))
    return {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "of_adapters": sum(p.numel() for p in model.module.parameters() if p.requires_grad),
        "rows": rows,
        "training_s": round(trained, 4),
        "features_s": round(ours, 4),
        "ratio": round(statistics.median(b / a for a, b, _ in turns), 3),
        "ratios": [round(b / a, 3) for a, b, _ in turns],
        "once_s": round(once - K * ours, 2),
        "first_s": round(warm, 2),
    }


def memory(name: str, who: str, device: str) -> dict[str, Any]:
    """The growth of the peak over the loaded model, and the bytes of frozen weights and of their
    gradients."""
    model, examples = opened(name, device)
    rows = rows_at_once(model, examples)
    before = peak(device)
    (training(model, examples, rows) if who == "training" else features(model, examples, who, rows))()
    frozen = [p for p in model.module.parameters() if not p.requires_grad]
    return {
        "bytes": peak(device) - before,
        "bytes_of_frozen_weights": sum(4 * p.numel() for p in frozen),
        "bytes_of_their_gradients": sum(4 * p.numel() for p in frozen if p.grad is not None),
    }


if __name__ == "__main__":
    main()
