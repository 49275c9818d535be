"""Is there a faster way to retrain many small models than one plain process for each core?

Run: .venv/bin/python benchmarks/training.py. Writes benchmarks/results/training.json. The digits bank's
network, batch 64. In turn: one process a core with a thread each (as `headwater bank build` does), one
process with all threads, S models at once in one process by torch.func with stacked parameters, and
torch.compile. And the reason: the time a step spends in convolutions, and their rate as a fraction of that of
a large matrix product."""

import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from environment import environment
from headwater.data import open_examples
from headwater.models.train import DIGITS, train
from headwater.models.unet import Network, configuration

STEPS, BATCH, REPEATS = 150, 64, 5
NETWORK = Network(configuration("digits"))


def main() -> None:
    if sys.argv[1:]:
        kind, *rest = sys.argv[1:]
        print(
            json.dumps(
                {"plain": plain, "stacked": stacked, "compiled": compiled, "why": why}[kind](*map(int, rest))
            )
        )
        return
    result: dict[str, Any] = {"steps": STEPS, "batch": BATCH, "environment": environment()}
    cores = os.cpu_count() or 1
    result["a process for each core"] = together([["plain", "1"]] * cores)
    result["one process, all threads"] = together([["plain", str(cores)]])
    base = statistics.median(run["ms"] for run in together([["stacked", "1"]] * cores)["each"])
    for size in (2, 4, 8):
        runs = together([["stacked", str(size)]] * cores)["each"]
        result[f"{size} stacked"] = {
            "each": runs,
            "ratio": round(base / statistics.median(run["ms"] for run in runs), 3),
        }
        print(size, result[f"{size} stacked"], flush=True)
    runs = together([["compiled"]] * cores)["each"]
    ratio = round(base / statistics.median(run["ms"] for run in runs), 3)
    result["torch.compile"] = {"each": runs, "ratio": ratio}
    result["why"] = together([["why"]])["each"][0]
    path = Path(__file__).parent / "results" / "training.json"
    path.write_text(json.dumps(result, indent=1))


def together(words: list[list[str]]) -> dict[str, Any]:
    """Processes side by side."""
    running = [
        subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
        for arguments in words
    ]
    results = [json.loads((one.communicate()[0] or "").splitlines()[-1]) for one in running]
    rate = sum(one["trainings_an_hour"] for one in results if "trainings_an_hour" in one)
    print(words[0], results, flush=True)
    return {"each": results} | ({"trainings_an_hour": round(rate, 1)} if rate else {})


def plain(threads: int) -> dict[str, float]:
    """Our own training loop."""
    torch.set_num_threads(threads)
    digits = open_examples("digits")
    train(NETWORK, digits, replace(DIGITS, steps=5), 0)
    start = time.perf_counter()
    train(NETWORK, digits, replace(DIGITS, steps=STEPS), 0)
    ms = 1000 * (time.perf_counter() - start) / STEPS
    return {"ms_a_step": round(ms, 2), "trainings_an_hour": round(3600_000 / ms / (DIGITS.steps or 1), 1)}


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(-1, 1, size * BATCH * 64).view(size, BATCH, 1, 8, 8), torch.arange(
        size * BATCH
    ).view(size, BATCH) % 1000


def stacked(size: int) -> dict[str, float]:
    """Forward and backward of `size` models at once, per model; 1: the plain module."""
    torch.set_num_threads(1)
    x, t = batch(size)
    if size == 1:
        module = NETWORK.fresh(0)

        def step() -> None:
            module.zero_grad()
            module(x[0], t[0]).sample.square().mean().backward()
    else:
        norm = torch.group_norm  # its batching rule needs contiguous inputs
        torch.nn.functional.group_norm = lambda a, groups, w=None, b=None, eps=1e-5: norm(
            a.contiguous(), groups, w, b, eps, False
        )
        modules = [NETWORK.fresh(seed) for seed in range(size)]
        parameters = {
            name: value.detach().requires_grad_() for name, value in stack_module_state(modules)[0].items()
        }

        def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return functional_call(modules[0], weights, (x, t)).sample.square().mean()

        def step() -> None:
            with sdpa_kernel(SDPBackend.MATH):
                total = vmap(loss)(parameters, x, t).sum()
            torch.autograd.grad(total, list(parameters.values()))

    return {"ms": round(timed(step) / size, 2)}


def compiled() -> dict[str, float]:
    torch.set_num_threads(1)
    module = torch.compile(copy.deepcopy(NETWORK.fresh(0)))
    x, t = batch(1)

    def step() -> None:
        module.zero_grad()
        module(x[0], t[0]).sample.square().mean().backward()

    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    return {"ms": round(timed(step), 2), "first_s": round(first, 1)}


def why() -> dict[str, float]:
    """The share of a step that is convolutions, and their rate beside that of a large matrix product on the
    same thread."""
    torch.set_num_threads(1)
    module = NETWORK.fresh(0)
    x, t = batch(1)

    def step() -> None:
        module.zero_grad()
        module(x[0], t[0]).sample.square().mean().backward()

    step_ms = timed(step)  # before the profiler, which slows what comes after it
    with FlopCounterMode(display=False) as counter:
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(20):
            step()
    spent = {event.key: event.self_cpu_time_total / 20_000 for event in profile.key_averages()}
    convolutions = sum(ms for name, ms in spent.items() if "convolution" in name)
    a = torch.ones(2048, 2048)
    gemm = 2 * 2048**3 / 1e6 / timed(lambda: a @ a)
    flops = counter.get_total_flops() / 1e9
    return {
        "ms": round(step_ms, 2),
        "ms_in_convolutions": round(convolutions, 2),
        "GFLOP": round(flops, 3),
        "convolutions_GFLOPS": round(1000 * flops / convolutions, 1),
        "gemm_GFLOPS": round(gemm, 1),
        "most_if_all_else_were_free": round(step_ms / convolutions, 2),
        "most_at_the_rate_of_gemm": round(step_ms * gemm / flops / 1000, 2),
    }


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds, the median of some runs."""
    work()
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(5):
            work()
        times.append(1000 * (time.perf_counter() - start) / 5)
    return statistics.median(times)


if __name__ == "__main__":
    main()
