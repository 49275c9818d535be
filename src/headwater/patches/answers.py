"""Rows of queries at one step: the noisy forms of each compared with all training images, by all processes
that work."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from headwater.disk.store import FeatureStore
from headwater.patches.geometry import Patches
from headwater.patches.noise import Noisy, noised
from headwater.patches.posterior import CPU, Comparison, PatchPosterior
from headwater.patches.rows import pack_explained
from headwater.patches.threads import Threads
from headwater.patches.views import Views
from headwater.workers import in_order

TOGETHER = 8  # queries that are written to the store together

Rows = Float32[np.ndarray, "b _"]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Step:
    """One timestep at one resolution: all settings that its scores depend on."""

    t: int
    size: int
    coarse: bool
    topk: int
    noises: int
    shared_noise: bool
    flips: bool
    seed: int

    def comparison(self, memory: int) -> Comparison:
        """The comparison of a noisy query with training images."""
        return Comparison(Patches(self.size, self.coarse), self.topk, self.flips, memory=memory)

    def noised(self, x: Float32[np.ndarray, "c h w"], content: str, alpha_bar: float) -> Iterator[Noisy]:
        """The noisy forms of a query with this content."""
        return noised(x, None if self.shared_noise else content, self.t, alpha_bar, self.noises, self.seed)


class StepInputs(NamedTuple):
    """Queries and training images at one step."""

    step: Step
    alpha_bar: float
    train: Views
    queries: Views
    memory: int
    device: torch.device = CPU


def rows(inputs: StepInputs, store: FeatureStore) -> Iterator[Rows]:
    """`pack_explained` of every query, some at a time."""
    return blocks(_rows, inputs, store)


def blocks(
    rows: Callable[[StepInputs, slice], Rows], inputs: StepInputs, store: FeatureStore
) -> Iterator[Rows]:
    """Rows of all queries, TOGETHER or a block of the store at a time, from its crew if it has one."""
    size = store.rows_together(TOGETHER)
    parts = [slice(low, low + size) for low in range(0, len(inputs.queries), size)]
    if store.crew is None:
        yield from (rows(inputs, part) for part in parts)
    else:
        yield from in_order(store.crew.work(rows, inputs, parts), parts)


def answers(
    inputs: StepInputs, part: slice, answer: Callable[[PatchPosterior], Answer]
) -> Iterator[list[Answer]]:
    """The answers for each noisy form of every query of a part."""
    comparison = inputs.step.comparison(inputs.memory)
    with Threads(torch.get_num_threads()) as threads:
        for x, content in zip(inputs.queries.part(part), inputs.queries.hashes[part], strict=True):
            noises = inputs.step.noised(x, content, inputs.alpha_bar)
            yield [
                answer(PatchPosterior(comparison, noisy, inputs.train, threads, inputs.device))
                for noisy in noises
            ]


def _rows(inputs: StepInputs, part: slice) -> Rows:
    return np.array([pack_explained(noises) for noises in answers(inputs, part, PatchPosterior.explained)])
