"""What does LDS cost at the papers' size: 1,000 queries, 64 subsets, 50,000 training images, intervals of 1,000 resamples?

Run: .venv/bin/python benchmarks/lds.py. Writes benchmarks/results/lds.json. Every part in a process of its own for its peak memory:

- `lds`: one method, from its scores to both intervals and the standard error;
- `resamples`: the bootstrap over subsets alone; `ranked_anew`: the slow obvious one that it must equal, from 1 resample in 100;
- `run`: what `headwater lds` does once the files are read, with the random row, and the ceiling and the oracle of three seeds.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from environment import environment
from headwater import seeds
from headwater.bank import Bank
from headwater.core import Examples
from headwater.evaluate.lds import LDS, RESAMPLES, lds
from headwater.linalg.rank import resamples, spearman, spearman_resampled
from headwater.truth import ground_truth

Q, M, N, S = 1000, 64, 50_000, 3


def main() -> None:
    parts = {"lds": one_method, "resamples": bootstrap, "run": run}
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--one", choices=parts, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(parts[given.one]()))
        return
    result: dict[str, Any] = {"queries": Q, "subsets": M, "train": N, "resamples": RESAMPLES, "environment": environment()}
    for part in parts:
        words = [sys.executable, __file__, "--one", part]
        result[part] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(part, result[part], flush=True)
    path = Path(__file__).parent / "results" / "lds.json"
    path.write_text(json.dumps(result, indent=1))


def scores() -> np.ndarray:
    return np.concatenate([seeds.normal((100, N), 0, "scores", i) for i in range(Q // 100)])


def subsets() -> np.ndarray:
    kept = np.arange(N) < N // 2
    return np.array([seeds.stream(0, "subset", m).permutation(kept) for m in range(M)])


def outcomes(*shape: int) -> np.ndarray:
    return seeds.normal(shape, 0, "outcomes")


def one_method() -> dict[str, float]:
    tau, kept, measured = scores(), subsets(), outcomes(M, Q)
    before = peak()

    def figures() -> None:
        found: LDS = lds(tau, kept, measured)
        found.mean(), found.mean_over_queries(), found.standard_error()

    return {"seconds": round(seconds(figures), 2), "peak_GiB": round(peak(), 2), "peak_GiB_before": round(before, 2)}


def bootstrap() -> dict[str, float]:
    a, b, picks = outcomes(Q, M).astype(np.float64), seeds.normal((Q, M), 0, "other").astype(np.float64), resamples(M, RESAMPLES)
    fast = min(seconds(lambda: spearman_resampled(a, b, picks)) for _ in range(3))
    few = picks[::100]
    slow = seconds(lambda: [spearman(a[:, pick], b[:, pick]) for pick in few]) * len(picks) / len(few)
    return {"seconds": round(fast, 2), "ranked_anew": round(slow, 1)}


def run() -> dict[str, float]:
    images = seeds.stream(0, "images").integers(0, 256, (N + Q, 8, 8, 1), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "outcomes.npy", outcomes(M, S, Q))
        info = {"recipe": {"subsets": M}}
        bank = Bank(Path(folder), info, Examples(images[:N]), Examples(images[N:]), subsets())
        tau = scores()
        took = seconds(lambda: ground_truth(bank, tau))
    return {"seconds": round(took, 2), "peak_GiB": round(peak(), 2)}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
