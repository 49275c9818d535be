"""The cost of per-example gradients, in units of an ordinary forward and backward pass over the same batch.

Run: .venv/bin/python benchmarks/features.py [--device cpu]. Writes benchmarks/results/features.json
(features-cuda.json on a GPU). Every engine runs in a process of its own, on one thread, alternating with the
training step that is its unit; memory is the growth of the process's peak over the loaded model, again in
processes of their own."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from environment import environment
from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.examples import Examples
from headwater.gradients import hooks, vmap
from headwater.gradients.inputs import drawn
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Sparse, TwoSided
from headwater.models import unet

K = 10
MIDDLE = {
    "block_out_channels": (64, 128, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
MODELS: dict[str, dict[str, Any]] = {  # examples at once, K draws each
    "4.4M": {
        "changes": MIDDLE,
        "examples": 4,
        "batches": 3,
        "repeats": 3,
        "k": 4096,
        "engines": ["vmap", "exact", "sparse", "two-sided"],
    },
    "35.7M": {
        "changes": {},
        "examples": 2,
        "batches": 2,
        "repeats": 2,
        "k": 32768,
        "engines": ["sparse", "two-sided"],
    },
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--models", nargs="+", default=list(MODELS))
    arguments.add_argument("--one", nargs=3, metavar=("MODEL", "ENGINE", "WHAT"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, options.device)))
        return
    name = "features.json" if options.device == "cpu" else f"features-{options.device}.json"
    path = Path(__file__).parent / "results" / name
    results = json.loads(path.read_text()) if path.exists() else {"timesteps": K, "device": options.device}
    for model in options.models:
        results[model] = {"environment": environment() | {"threads": 1}}
        training = apart(model, "training", "memory", options.device)
        results[model]["engines"] = [
            against(training, model, engine, options.device) for engine in MODELS[model]["engines"]
        ]
        path.write_text(json.dumps(results, indent=1))


def against(training: dict[str, Any], model: str, engine: str, device: str) -> dict[str, Any]:
    """An engine's time and memory as multiples of those of training."""
    row = {"engine": engine, "k": None if engine in ("vmap", "exact") else MODELS[model]["k"]}
    row |= apart(model, engine, "time", device)
    row["memory_ratio"] = round(apart(model, engine, "memory", device)["bytes"] / training["bytes"], 3)
    print(model, row, flush=True)
    return row


def apart(*arguments: str) -> dict[str, Any]:
    """`one` of these arguments, the device last, in a process of its own."""
    *one, device = arguments
    words = [sys.executable, __file__, "--device", device, "--one", *one]
    return json.loads(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def one(name: str, engine: str, quantity: str, device: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    size = MODELS[name]
    model = unet.new(unet.configuration("cifar", **size["changes"]), 0)
    torch.nn.Module.to(model.module, torch.device(device))
    count = size["examples"] * size["batches"]
    images = seeds.generator(0, "benchmark").integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)
    train = steps(model, Examples(images), size["examples"])
    if quantity == "memory":
        before = peak(device)
        (
            train
            if engine == "training"
            else rows(model, Examples(images), engine, size["k"], size["examples"])
        )()
        return {"bytes": peak(device) - before}
    ours = rows(model, Examples(images), engine, size["k"], size["examples"])
    pairs = [(seconds(train, device), seconds(ours, device)) for _ in range(size["repeats"] + 1)][
        1:
    ]  # the first warms up
    draws = count * K
    return {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "examples": size["examples"],
        "training_ms_per_draw": round(1000 * statistics.median(a for a, _ in pairs) / draws, 3),
        "ms_per_draw": round(1000 * statistics.median(b for _, b in pairs) / draws, 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
        "ratios": [round(b / a, 3) for a, b in pairs],
    }


def steps(model: Denoiser, examples: Examples, batch: int) -> Callable[[], None]:
    """Ordinary forward and backward passes over the draws of all examples, `batch` at a time."""
    batches = [slice(start, start + batch) for start in range(0, len(examples), batch)]

    def run() -> None:
        for part in batches:
            inputs = drawn(model, examples, part, simple, Draws(K))
            model.module.zero_grad()
            output = model.module(inputs.draw.x_t.flatten(0, 1), inputs.draw.t.reshape(-1)).sample
            simple(output.view_as(inputs.draw.x_t), inputs.draw, model.schedule).mean().backward()

    return run


def rows(model: Denoiser, examples: Examples, engine: str, k: int, batch: int) -> Callable[[], None]:
    """The engine's rows for all examples, from pictures to numbers."""

    def run() -> None:
        if engine in ("vmap", "exact"):
            engines = {"vmap": vmap.gradients, "exact": hooks.gradients}
            blocks = engines[engine](model, examples, simple, Draws(K), batch=batch)
        else:
            projector = Sparse(k) if engine == "sparse" else TwoSided(k)
            blocks = projected(model, examples, GradientSpec("simple", Draws(K)), projector, rows=K * batch)
        for _ in blocks:
            pass

    return run


def seconds(work: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(device: str) -> int:
    """The most memory held so far, in bytes."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
