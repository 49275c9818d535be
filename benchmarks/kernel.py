"""The cost of the kernel, of a sweep of dampings and of the scores.

Run: .venv/bin/python benchmarks/kernel.py. Writes benchmarks/results/kernel.json. Random features of n images
and q queries, k wide; every part in a process of its own for its peak memory. `gemm_fraction`: the scores'
arithmetic rate over the rate of one large float64 product of the same library on the same threads, measured
beside it."""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from environment import environment
from headwater import seeds
from headwater.curvature.gram import Gram
from headwater.scores import ends

N, K, Q = 5000, 32768, 1000
DAMPINGS = np.geomspace(1e-4, 1e2, 27).tolist()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--one", choices=["fit", "sweep", "scores", "ends"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps({"fit": fit, "sweep": sweep, "scores": scores, "ends": top}[options.one]()))
        return
    result: dict[str, Any] = {"n": N, "k": K, "q": Q, "environment": environment()}
    for part in ("fit", "sweep", "scores", "ends"):
        words = [sys.executable, __file__, "--one", part]
        result[part] = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        print(part, result[part], flush=True)
    path = Path(__file__).parent / "results" / "kernel.json"
    path.write_text(json.dumps(result, indent=1))


def features(n: int, k: int, name: str) -> np.ndarray:
    return np.concatenate([seeds.normal((min(1000, n - i), k), 0, name, i) for i in range(0, n, 1000)])


def fit() -> dict[str, Any]:
    """From features to the eigenbasis and the scores of a few queries at 27 dampings."""
    phi, queries = features(N, K, "train"), features(16, K, "query")
    gram = Gram(phi)
    took = seconds(lambda: [None for _ in gram.scores(queries, [d * gram.mean_square for d in DAMPINGS])])
    return {"seconds": round(took, 2), "peak_GiB": round(peak(), 2)}


def sweep() -> dict[str, Any]:
    """27 dampings against one, with the eigenbasis, for 200 queries; in turn, the median of three ratios (one
    at full size)."""
    return {f"n={n}, k={k}": swept(n, k, repeats) for n, k, repeats in ((2000, 4096, 3), (N, K, 1))}


def swept(n: int, k: int, repeats: int) -> dict[str, float]:
    phi, queries = features(n, k, "train"), features(200, k, "query")

    def of(dampings: list[float]) -> float:
        return seconds(lambda: [None for _ in Gram(phi).scores(queries, dampings)])

    pairs = [(of([float(k)]), of([d * k for d in DAMPINGS])) for _ in range(repeats)]
    return {
        "one": round(min(a for a, _ in pairs), 3),
        "ratio_27_to_1": round(float(np.median([b / a for a, b in pairs])), 3),
    }


def scores() -> dict[str, Any]:
    """Scores of all queries from a finished fit: two products of q × r × n."""
    n = 4000
    phi, queries = features(n, 4096, "train"), features(Q, 4096, "query")
    gram = Gram(phi)
    damping = gram.mean_square
    blocks = lambda: [None for _ in gram.scores(queries, damping)]  # noqa: E731
    blocks()  # the eigenbasis
    flops = 2 * Q * n * 4096 + 2 * Q * n * n + 2 * Q * n * n  # Φ_qΦᵀ, its coordinates, back
    ours = min(seconds(blocks) for _ in range(3))
    a, b = np.ones((4096, 4096)), np.ones((4096, 4096))
    rate = 2 * 4096**3 / min(seconds(lambda: a @ b) for _ in range(3))
    return {
        "seconds": round(ours, 3),
        "gemm_GFLOPS": round(rate / 1e9, 1),
        "gemm_fraction": round(flops / ours / rate, 3),
    }


def top() -> dict[str, Any]:
    """Top and bottom 50 of 1,000 queries over a million training rows, in blocks; the time to make the blocks
    is subtracted."""
    block = np.empty((1000, 20_000), np.float32)
    spent = 0.0

    def blocks():
        nonlocal spent
        for i in range(50):
            start = time.perf_counter()
            block[:] = seeds.generator(0, "block", i).random(block.shape, dtype=np.float32)
            spent += time.perf_counter() - start
            yield block

    took = seconds(lambda: ends(blocks(), 50))
    return {"seconds": round(took - spent, 2), "peak_GiB": round(peak(), 2)}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
