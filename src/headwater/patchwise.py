"""Which patches of which training images a noisy picture may have come from: the posterior of the optimal local score.

A denoiser that sees no more than a patch, and knows nothing but the training images, weighs every patch of theirs by
softmax(−‖x_t[a] − √ᾱ_t y[b]‖²/(2σ_t²)). (Kamb & Ganguli 2024, arXiv:2412.20292.)
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, UInt8

from headwater.linalg.patches import LANES, ROOM, Weighed, Windows, cells, side_by_side, weighed, windows

NEGLIGIBLE = 1e-15  # of a patch's whole weight: what no float32 sum shows
WAVE = 8  # blocks of LANES images between two looks at what is negligible


@dataclass(frozen=True)
class Patches:
    """Square patches of `size` pixels at every place, padded by (size − 1)//2; `coarse`: as their 2×2 cells, ½ Σ of each."""

    size: int
    coarse: bool = False

    def windows(self, height: int, width: int) -> tuple[Windows, Windows]:
        """As windows down and across the maps."""
        return windows(height, self.size, coarse=self.coarse), windows(width, self.size, coarse=self.coarse)

    def maps(self, x: Float[np.ndarray, "*b h w"]) -> Float[np.ndarray, "*b _ _"]:
        """What windows lie on."""
        return cells(x) if self.coarse else x


@dataclass(frozen=True, eq=False)
class Hands:
    """Threads, and the memory that each works in."""

    pool: ThreadPoolExecutor
    memory: SimpleQueue[UInt8[np.ndarray, " bytes"]] = field(default_factory=SimpleQueue)

    @contextmanager
    def room(self) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        """ROOM bytes for as long as the block lasts."""
        mine = self.memory.get()
        try:
            yield mine
        finally:
            self.memory.put(mine)


@contextmanager
def hands(threads: int) -> Iterator[Hands]:
    """So many threads for as long as the block lasts."""
    with ThreadPoolExecutor(threads) as pool:
        found = Hands(pool)
        for _ in range(threads):
            found.memory.put(np.empty(ROOM, np.uint8))
        yield found


class Noisy(NamedTuple):
    """x_t = √ᾱ x + σε, with √ᾱ and σ² = 1 − ᾱ."""

    x_t: Float[np.ndarray, "c h w"]
    signal: float
    variance: float


class Explained(NamedTuple):
    """What a noisy picture's patches come from. `scores`: over its patches a, the weights of an image's nearest patches, summed;
    `evidence`: ln Σ exp(−D/(2σ²)) over all patches, for every a."""

    scores: Float64[np.ndarray, " n"]
    evidence: Float64[np.ndarray, " a"]


@dataclass(frozen=True)
class Question:
    """Which patches are compared; how many of an image count for a patch of the query; whether mirror images count too.

    Weights below `negligible` of a patch's whole may be left out: with M training patches a score is then too large by at most the
    factor 1/(1 − negligible·M), or too small by at most negligible × `top` × the query's patches. `memory`: bytes that weights may
    take until the evidence is known; with more images all distances are made twice.
    """

    patches: Patches
    top: int
    flips: bool = False
    negligible: float = NEGLIGIBLE
    memory: int = 2**30

    def answer(self, noisy: Noisy, images: UInt8[np.ndarray, "n h w c"], workers: Hands) -> Explained:
        """The posterior over the patches of all images, in float32 or float64 as x_t is."""
        work = _Work(self, noisy, images)
        down, across = work.windows
        n, a = len(images), down.number * across.number
        evidence, found = np.full(a, -np.inf), []
        whole = n * a * noisy.x_t.itemsize <= self.memory
        for wave in _waves(n):
            for one in workers.pool.map(lambda low, e=evidence: work.block(low, e, workers), wave):
                evidence = np.logaddexp(evidence, work.log(one))
                found += [one] * whole
        if whole:
            return Explained(np.concatenate([work.shares(one, evidence) for one in found])[:n], evidence)
        everything = [low for wave in _waves(n) for low in wave]
        shares = [
            work.shares(one, evidence) for one in workers.pool.map(lambda low: work.block(low, evidence, workers), everything)
        ]
        return Explained(np.concatenate(shares)[:n], evidence)


def _waves(n: int) -> Iterator[list[int]]:
    """The first images of all blocks: first one, which tells others what is negligible, then WAVE at a time."""
    lows = list(range(0, n, LANES))
    yield lows[:1]
    yield from (lows[i : i + WAVE] for i in range(1, len(lows), WAVE))


class _Work(NamedTuple):
    """A question about one noisy picture."""

    question: Question
    noisy: Noisy
    images: UInt8[np.ndarray, "n h w c"]

    @property
    def windows(self) -> tuple[Windows, Windows]:
        return self.question.patches.windows(*self.images.shape[1:3])

    def block(self, low: int, evidence: Float64[np.ndarray, " a"], workers: Hands) -> Weighed:
        """The weights of the images from `low`; those that are negligible beside the evidence so far may be missing."""
        question, noisy = self.question, self.noisy
        dtype = noisy.x_t.dtype
        pixels = self.images[low : low + LANES].transpose(0, 3, 1, 2).astype(dtype) / dtype.type(127.5) - 1
        y = question.patches.maps(dtype.type(noisy.signal) * pixels)
        variants = np.stack([side_by_side(y)] + ([side_by_side(y[..., ::-1])] if question.flips else []))
        reach = np.inf if question.negligible <= 0 else -np.log(question.negligible) * 2 * noisy.variance
        limits = reach - np.where(np.isfinite(evidence), evidence, -np.inf) * 2 * noisy.variance
        x = question.patches.maps(noisy.x_t)
        with workers.room() as memory:
            return weighed(x, variants, *self.windows, 1 / (2 * noisy.variance), question.top, limits, reach, memory)

    def log(self, found: Weighed) -> Float64[np.ndarray, " a"]:
        """ln Σ exp(−D/(2σ²)) of a block."""
        with np.errstate(divide="ignore"):
            return np.log(found.total.astype(np.float64)) - found.least / (2 * self.noisy.variance)

    def shares(self, found: Weighed, evidence: Float64[np.ndarray, " a"]) -> Float64[np.ndarray, " b"]:
        """Σ_a of the block's weights over the whole."""
        return np.exp(-found.least.astype(np.float64) / (2 * self.noisy.variance) - evidence) @ found.top
