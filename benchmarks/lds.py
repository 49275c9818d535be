"""The cost of LDS at the papers' size: 1,000 queries, 64 subsets, 50,000 training images, intervals of 1,000
resamples.

Run: .venv/bin/python benchmarks/lds.py. Writes benchmarks/results/lds.json. Every part in a process of its
own for its peak memory:

- `lds`: one method, from its scores to both intervals and the standard error;
- `bootstrap`: the one over subsets alone; `ranked_anew`: the slow obvious form that it must equal, from 1
  resample in 100;
- `run`: the work of `headwater lds` after the files are read, with the random row, the ceiling and the oracle
  of three seeds;
- `coverage`: how often an interval holds the expected LDS, in each of WORLDS random Gaussian worlds.
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
from headwater.evaluate.ground_truth import ground_truth
from headwater.evaluate.lds import LDS, RESAMPLES, correlated, difference, lds
from headwater.examples import Examples
from headwater.linalg.rank import Interval, resamples, spearman, spearman_resampled

Q, M, N, S = 1000, 64, 50_000, 3
WORLDS = 200


def main() -> None:
    parts = {"lds": one_method, "bootstrap": bootstrap, "run": run, "coverage": coverage}
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--one", choices=parts, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(parts[options.one]()))
        return
    result: dict[str, Any] = {
        "queries": Q,
        "subsets": M,
        "train": N,
        "resamples": RESAMPLES,
        "environment": environment(),
    }
    for part in parts:
        words = [sys.executable, __file__, "--one", part]
        result[part] = json.loads(
            subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        print(part, result[part], flush=True)
    path = Path(__file__).parent / "results" / "lds.json"
    path.write_text(json.dumps(result, indent=1))


def scores() -> np.ndarray:
    return np.concatenate([seeds.normal((100, N), 0, "scores", i) for i in range(Q // 100)])


def subsets() -> np.ndarray:
    half = np.arange(N) < N // 2
    return np.array([seeds.generator(0, "subset", m).permutation(half) for m in range(M)])


def outcomes(*shape: int) -> np.ndarray:
    return seeds.normal(shape, 0, "outcomes")


def one_method() -> dict[str, float]:
    tau, masks, measured = scores(), subsets(), outcomes(M, Q)
    before = peak()

    def figures() -> None:
        result: LDS = lds(tau, masks, measured)
        result.mean(), result.mean_over_queries(), result.standard_error()

    return {
        "seconds": round(seconds(figures), 2),
        "peak_GiB": round(peak(), 2),
        "peak_GiB_before": round(before, 2),
    }


def bootstrap() -> dict[str, float]:
    a, b, picks = (
        outcomes(Q, M).astype(np.float64),
        seeds.normal((Q, M), 0, "other").astype(np.float64),
        resamples(M, RESAMPLES),
    )
    fast = min(seconds(lambda: spearman_resampled(a, b, picks)) for _ in range(3))
    few = picks[::100]
    slow = seconds(lambda: [spearman(a[:, pick], b[:, pick]) for pick in few]) * len(picks) / len(few)
    return {"seconds": round(fast, 2), "ranked_anew": round(slow, 1)}


def run() -> dict[str, float]:
    images = seeds.generator(0, "images").integers(0, 256, (N + Q, 8, 8, 1), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "outcomes.npy", outcomes(M, S, Q))
        info = {"recipe": {"subsets": M}}
        bank = Bank(Path(folder), info, Examples(images[:N]), Examples(images[N:]), subsets())
        tau = scores()
        took = seconds(lambda: ground_truth(bank, tau))
    return {"seconds": round(took, 2), "peak_GiB": round(peak(), 2)}


def coverage() -> list[dict[str, float]]:
    """100 queries, 64 subsets; 30 % of the variance of predictions and outcomes is common to all queries,
    like a lucky model."""
    rows = []
    for strength in (0.0, 0.3, 0.6, 0.85):
        pairs = [world(strength, i) for i in range(WORLDS)]
        intervals = {
            "subsets": [a.mean() for a, _ in pairs],
            "queries": [a.mean_over_queries() for a, _ in pairs],
        }
        intervals["difference"] = [difference(a, b) for a, b in pairs]
        mean, low, high = np.mean(intervals["subsets"], axis=0)
        shift = np.mean([a.means().mean() - a.per_query.mean() for a, _ in pairs])
        row = {
            "correlation": strength,
            "lds": round(mean, 3),
            "width": round(high - low, 4),
            "resamples_above_by": round(shift, 4),
        }
        rows.append(row | {f"covered_by_{name}": covered(sample) for name, sample in intervals.items()})
    return rows


def world(strength: float, i: int) -> tuple[LDS, LDS]:
    """LDS of predictions that correlate with outcomes by `strength`, and of a copy with as much noise added
    again."""

    def drawn(name: str) -> np.ndarray:
        common, single = (
            seeds.normal(shape, 0, name, kind, i) for shape, kind in (((M, 1), "common"), ((M, 100), "own"))
        )
        return np.sqrt(0.3) * common + np.sqrt(0.7) * single

    signal, noise, extra = (drawn(name) for name in ("signal", "noise", "more"))
    outcome = strength * signal + np.sqrt(1 - strength**2) * noise
    return correlated(signal, outcome), correlated(signal + extra, outcome)


def covered(intervals: list[Interval]) -> float:
    truth = np.mean([interval.mean for interval in intervals])
    return round(float(np.mean([interval.low <= truth <= interval.high for interval in intervals])), 3)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
