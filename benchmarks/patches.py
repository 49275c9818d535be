"""Seconds and memory of the weights of all patches, beside the convolutional form in which NDA was published.

Run: .venv/bin/python benchmarks/patches.py [--data cifar10]. Writes benchmarks/results/patches.json. One
noisy query against N images, one timestep, one thread, no flips, the 100 heaviest patches of each image.
`against`: in turn with the convolutional form (float32; all distances of 64 patches by one convolution, a
softmax over all images, the largest of each) where it fits; `error` is the relative one of scores above 1e-6
of the largest, against float64. `growth`: over N, in processes of their own; bytes are the growth of the peak
over the images. 32² are pictures of --data, larger ones parts of the photographs that come with scikit-learn.
Ours compares up to 32 images at once, the last ones in 8, 16 or 32 lanes: in `ours_32_at_a_time` no lane is
empty."""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from sklearn.datasets import load_sample_images
from torch.nn import functional

from environment import environment
from headwater import seeds
from headwater.data import open_examples
from headwater.diffusion.schedule import linear
from headwater.patches.compiled.displaced import LANES
from headwater.patches.geometry import Patches
from headwater.patches.noise import Noisy
from headwater.patches.posterior import Comparison, PatchPosterior
from headwater.patches.threads import Threads
from headwater.patches.views import Views

TOP, BATCH, MASK = 100, 64, 10.0  # as in the published commands
SIDES = {32: 100, 64: 25, 128: 5}  # pictures compared by the convolutional form
SETTINGS = [(7, 100), (7, 500), (15, 100), (15, 500)]  # patch size, timestep
GROWTH = [1_000, 5_000, 20_000, 50_000]
NEGLIGIBLE = [0.0, 1e-15, 1e-9]
EXACT = 64  # pixels up to which float64 does not take too long


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", default="cifar10")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--one", nargs=3, type=int, metavar=("N", "PATCH", "T"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(growth(options.data, *options.one)))
        return
    results: dict[str, Any] = {
        "data": options.data,
        "environment": environment() | {"threads": 1},
        "against": [],
        "growth": [],
    }
    path = Path(__file__).parent / "results" / "patches.json"
    for side, n in SIDES.items():
        if side == max(SIDES):  # takes longest
            grown(options.data, results, path)
        for patch, t in SETTINGS:
            results["against"].append(
                against(pictures(options.data, side, n + 1), patch, t, options.repeats if side == 32 else 1)
            )
            print(results["against"][-1], flush=True)
            path.write_text(json.dumps(results, indent=1))


def grown(data: str, results: dict[str, Any], path: Path) -> None:
    """Seconds and bytes over N, each in a process of its own."""
    for patch, t in ((7, 100), (15, 300)):
        for n in GROWTH:
            words = [sys.executable, __file__, "--data", data, "--one", str(n), str(patch), str(t)]
            lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
            results["growth"].append(json.loads(lines[-1]))
            print(results["growth"][-1], flush=True)
            path.write_text(json.dumps(results, indent=1))


def pictures(data: str, side: int, n: int) -> UInt8[np.ndarray, "n h w 3"]:
    """n pictures with this side."""
    if side == 32:
        return open_examples(data).images[:n]
    photographs, dice = load_sample_images().images, seeds.generator(0, "parts", side)
    parts = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        y, x = (int(dice.integers(0, length - side + 1)) for length in photograph.shape[:2])
        parts.append(photograph[y : y + side, x : x + side])
    return np.array(parts)


def asked(query: UInt8[np.ndarray, "h w c"], t: int) -> Noisy:
    alpha_bar = float(linear().alpha_bar[t])
    x = query.transpose(2, 0, 1) / 127.5 - 1
    noise = seeds.normal(x.shape, 0, "benchmark", t)
    return Noisy(
        (alpha_bar**0.5 * x + (1 - alpha_bar) ** 0.5 * noise).astype(np.float32),
        alpha_bar**0.5,
        1 - alpha_bar,
    )


def against(images: UInt8[np.ndarray, "n h w c"], patch: int, t: int, repeats: int) -> dict[str, Any]:
    """Seconds of either form, in turn, and how far apart their scores are. The last picture is the query."""
    train, noisy = images[:-1], asked(images[-1], t)
    comparisons = {
        negligible: Comparison(Patches(patch), TOP, negligible=negligible) for negligible in NEGLIGIBLE
    }
    times: dict[Any, list[float]] = {name: [] for name in ["convolutional", *comparisons]}
    scores: dict[Any, np.ndarray] = {}
    with Threads(1) as threads:
        for turn in range(repeats + 1):  # the first warms up
            for name in times if turn or repeats > 1 else comparisons:
                start = time.perf_counter()
                scores[name] = (
                    convolutional(noisy, train, patch)
                    if name == "convolutional"
                    else PatchPosterior(comparisons[name], noisy, Views(train), threads).explained().scores
                )
                times[name] += [time.perf_counter() - start] * bool(turn)
        full = time_of(comparisons[1e-15], noisy, images, threads)
        error = errors(noisy, train, comparisons[0.0], scores, threads) if images.shape[1] <= EXACT else {}
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {
        "side": images.shape[1],
        "n": len(train),
        "patch": patch,
        "timestep": t,
        "convolutional": {
            "ms_per_image": round(1000 * middle["convolutional"] / len(train), 3),
            "error": error.get("convolutional"),
        },
        "ours_32_at_a_time": {
            "ms_per_image": round(1000 * full, 3),
            "times_faster": round(middle["convolutional"] / len(train) / full, 1),
        },
        "ours": [
            {
                "negligible": name,
                "ms_per_image": round(1000 * middle[name] / len(train), 3),
                "times_faster": round(
                    statistics.median(
                        a / b for a, b in zip(times["convolutional"], times[name], strict=True)
                    ),
                    1,
                ),
                "error": error.get(name),
            }
            for name in comparisons
        ],
    }


def time_of(
    comparison: Comparison, noisy: Noisy, images: UInt8[np.ndarray, "n h w c"], threads: Threads
) -> float:
    """Seconds per image where no lane is empty."""
    lanes = np.concatenate([images] * -(-LANES // len(images)))
    lanes = lanes[: len(lanes) // LANES * LANES]
    start = time.perf_counter()
    PatchPosterior(comparison, noisy, Views(lanes), threads).explained()
    return (time.perf_counter() - start) / len(lanes)


def errors(
    noisy: Noisy,
    train: UInt8[np.ndarray, "n h w c"],
    comparison: Comparison,
    scores: dict[Any, np.ndarray],
    threads: Threads,
) -> dict[Any, float]:
    """The largest relative error, against float64, of scores above 1e-6 of the largest."""
    exactly = noisy._replace(x_t=noisy.x_t.astype(np.float64))
    exact = PatchPosterior(comparison, exactly, Views(train), threads).explained().scores
    large = exact > 1e-6 * exact.max()
    return {
        name: float(f"{np.abs(values[large] / exact[large] - 1).max():.1e}")
        for name, values in scores.items()
    }


def convolutional(noisy: Noisy, images: UInt8[np.ndarray, "n h w c"], patch: int) -> Float[np.ndarray, " n"]:
    """Scores by convolutions: ‖x‖² + y² * 1 − 2 y * x, of all patches; padding is MASK on both sides."""
    pad = [(patch - 1) // 2] * 4
    y = torch.tensor(noisy.signal * (images.transpose(0, 3, 1, 2) / 127.5 - 1), dtype=torch.float32)
    y = functional.pad(y, pad, value=MASK)
    patches = functional.pad(torch.tensor(noisy.x_t), pad, value=MASK)
    patches = patches.unfold(1, patch, 1).unfold(2, patch, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    squares = functional.conv2d(y**2, torch.ones(1, *patches.shape[1:]))
    scores = torch.zeros(len(images), dtype=torch.float64)
    for kernels in patches.split(BATCH):
        norms = (kernels**2).sum((1, 2, 3))[None, :, None, None]
        distances = (norms + squares - 2 * functional.conv2d(y, kernels)).clamp(min=0)
        logits = (-distances / (2 * noisy.variance)).transpose(0, 1).flatten(1)
        weights = logits.softmax(1).view(len(kernels), len(images), -1)
        scores += weights.topk(min(TOP, weights.shape[2])).values.sum((0, 2))
    return scores.numpy()


def growth(data: str, n: int, patch: int, t: int) -> dict[str, Any]:
    """Seconds for the first n images, and bytes beyond them."""
    images = open_examples(data).images
    train, noisy, comparison = images[:n].copy(), asked(images[-1], t), Comparison(Patches(patch), TOP)
    with Threads(1) as threads:
        PatchPosterior(comparison, noisy, Views(train[:64]), threads).explained()  # compiled
        before, start = peak(), time.perf_counter()
        PatchPosterior(comparison, noisy, Views(train), threads).explained()
        seconds = time.perf_counter() - start
        held = peak()
        comparison = replace(comparison, memory=0)
        start = time.perf_counter()
        PatchPosterior(comparison, noisy, Views(train), threads).explained()
        again = time.perf_counter() - start
    return {
        "n": n,
        "patch": patch,
        "timestep": t,
        "seconds": round(seconds, 2),
        "ms_per_image": round(1000 * seconds / n, 3),
        "seconds_in_two_passes": round(again, 2),
        "MiB": round((held - before) / 2**20),
        "MiB_of_process": round(held / 2**20),
    }


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
