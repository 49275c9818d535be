"""How long do the weights of all patches take, beside the convolutional form that NDA was published with, and what memory?

Run: .venv/bin/python benchmarks/patches.py [--data cifar10]. Writes benchmarks/results/patches.json.
One noisy query against N images, one timestep, one thread, no flips, the 100 heaviest patches of each image. `against`: in turn
with the convolutional form (float32; all distances of 64 patches by one convolution, a softmax over all images, the largest of
each) where it fits; `error` is that of scores above 1e-6 of the largest, beside float64. `growth`: over N, in processes of their
own; bytes are the growth of the peak over the images. 32² are pictures of --data, larger ones parts of the photographs that come
with scikit-learn.
Ours compares up to 32 images at once, those that remain in 8, 16 or 32 lanes: `ours_32_at_a_time` has none of them empty.
"""

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
from headwater.patches.posterior import Hands, Noisy, Patches, Question, hands
from headwater.patches.views import Views

TOP, BATCH, MASK = 100, 64, 10.0  # those of the published commands
SIDES = {32: 100, 64: 25, 128: 5}  # pictures that the convolutional form is given
SETTINGS = [(7, 100), (7, 500), (15, 100), (15, 500)]  # patch size, timestep
GROWTH = [1_000, 5_000, 20_000, 50_000]
NEGLIGIBLE = [0.0, 1e-15, 1e-9]
EXACT = 64  # pixels up to which float64 does not take too long


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", default="cifar10")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--one", nargs=3, type=int, metavar=("N", "PATCH", "T"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(growth(given.data, *given.one)))
        return
    found: dict[str, Any] = {"data": given.data, "environment": environment() | {"threads": 1}, "against": [], "growth": []}
    path = Path(__file__).parent / "results" / "patches.json"
    for side, n in SIDES.items():
        if side == max(SIDES):  # takes longest
            grown(given.data, found, path)
        for patch, t in SETTINGS:
            found["against"].append(against(pictures(given.data, side, n + 1), patch, t, given.repeats if side == 32 else 1))
            print(found["against"][-1], flush=True)
            path.write_text(json.dumps(found, indent=1))


def grown(data: str, found: dict[str, Any], path: Path) -> None:
    """Seconds and bytes over N, each in a process of its own."""
    for patch, t in ((7, 100), (15, 300)):
        for n in GROWTH:
            words = [sys.executable, __file__, "--data", data, "--one", str(n), str(patch), str(t)]
            lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
            found["growth"].append(json.loads(lines[-1]))
            print(found["growth"][-1], flush=True)
            path.write_text(json.dumps(found, indent=1))


def pictures(data: str, side: int, n: int) -> UInt8[np.ndarray, "n h w 3"]:
    """So many pictures of this side."""
    if side == 32:
        return open_examples(data).images[:n]
    photographs, dice = load_sample_images().images, seeds.stream(0, "parts", side)
    found = []
    for i in range(n):
        whole = photographs[i % len(photographs)]
        y, x = (int(dice.integers(0, length - side + 1)) for length in whole.shape[:2])
        found.append(whole[y : y + side, x : x + side])
    return np.array(found)


def asked(query: UInt8[np.ndarray, "h w c"], t: int) -> Noisy:
    alpha_bar = float(linear().alpha_bar[t])
    x = query.transpose(2, 0, 1) / 127.5 - 1
    noise = seeds.normal(x.shape, 0, "benchmark", t)
    return Noisy((alpha_bar**0.5 * x + (1 - alpha_bar) ** 0.5 * noise).astype(np.float32), alpha_bar**0.5, 1 - alpha_bar)


def against(images: UInt8[np.ndarray, "n h w c"], patch: int, t: int, repeats: int) -> dict[str, Any]:
    """Seconds of either form, in turn, and how far apart their scores are. The last picture is the query."""
    train, noisy = images[:-1], asked(images[-1], t)
    questions = {negligible: Question(Patches(patch), TOP, negligible=negligible) for negligible in NEGLIGIBLE}
    each: dict[Any, list[float]] = {name: [] for name in ["convolutional", *questions]}
    scores: dict[Any, np.ndarray] = {}
    with hands(1) as workers:
        for turn in range(repeats + 1):  # the first warms up
            for name in each if turn or repeats > 1 else questions:
                start = time.perf_counter()
                scores[name] = (
                    convolutional(noisy, train, patch)
                    if name == "convolutional"
                    else questions[name].answer(noisy, Views(train), workers).scores
                )
                each[name] += [time.perf_counter() - start] * bool(turn)
        full = time_of(questions[1e-15], noisy, images, workers)
        error = errors(noisy, train, questions[0.0], scores, workers) if images.shape[1] <= EXACT else {}
    middle = {name: statistics.median(seconds) for name, seconds in each.items()}
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
                "times_faster": round(statistics.median(a / b for a, b in zip(each["convolutional"], each[name], strict=True)), 1),
                "error": error.get(name),
            }
            for name in questions
        ],
    }


def time_of(question: Question, noisy: Noisy, images: UInt8[np.ndarray, "n h w c"], workers: Hands) -> float:
    """Seconds per image where no lane is empty."""
    whole = np.concatenate([images] * -(-LANES // len(images)))
    whole = whole[: len(whole) // LANES * LANES]
    start = time.perf_counter()
    question.answer(noisy, Views(whole), workers)
    return (time.perf_counter() - start) / len(whole)


def errors(
    noisy: Noisy, train: UInt8[np.ndarray, "n h w c"], question: Question, scores: dict[Any, np.ndarray], workers: Hands
) -> dict[Any, float]:
    """How far scores above 1e-6 of the largest are from those in float64."""
    exact = question.answer(noisy._replace(x_t=noisy.x_t.astype(np.float64)), Views(train), workers).scores
    shown = exact > 1e-6 * exact.max()
    return {name: float(f"{np.abs(found[shown] / exact[shown] - 1).max():.1e}") for name, found in scores.items()}


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
    train, noisy, question = images[:n].copy(), asked(images[-1], t), Question(Patches(patch), TOP)
    with hands(1) as workers:
        question.answer(noisy, Views(train[:64]), workers)  # compiled
        before, start = peak(), time.perf_counter()
        question.answer(noisy, Views(train), workers)
        seconds = time.perf_counter() - start
        held = peak()
        question = replace(question, memory=0)
        start = time.perf_counter()
        question.answer(noisy, Views(train), workers)
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
