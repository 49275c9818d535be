"""Which patches of which training images a noisy picture may have come from: the posterior of the optimal local score.

A denoiser that sees no more than a patch, and knows nothing but the training images, weighs every patch of theirs by
softmax(−‖x_t[a] − √ᾱ_t y[b]‖²/(2σ_t²)). (Kamb & Ganguli 2024, arXiv:2412.20292.)
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from headwater import seeds
from headwater.errors import OptionError
from headwater.patches.compiled.displaced import LANES, Windows, cells, side_by_side, windows
from headwater.patches.compiled.weights import ROOM, Weighed, bytes_of_lists, traced, weighed
from headwater.patches.tiles import TILES, Foremost, edges, mean_tiled
from headwater.patches.views import Views

NEGLIGIBLE = 1e-15  # of a patch's whole weight: what no float32 sum shows
LISTED = 16  # images that are listed for each part of the query
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

    def by_pixel(self, values: Float64[np.ndarray, "*b ny nx"]) -> Float64[np.ndarray, "*b h w"]:
        """What patches have, as their middles': one pixel, or of cells the four around it."""
        if not self.coarse:
            return values
        *b, ny, nx = values.shape
        out = np.zeros((*b, ny + 1, nx + 1))
        for rows in (slice(None, -1), slice(1, None)):
            for columns in (slice(None, -1), slice(1, None)):
                out[..., rows, columns] += values / 4
        return out


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


def noised(
    x: Float32[np.ndarray, "c h w"], content: str | None, t: int, alpha_bar: float, noises: int, seed: int
) -> Iterator[Noisy]:
    """x_t for so many noises, which go by the picture's content, or are the same for all if it is None; without any √ᾱ_t x."""
    signal, variance = float(np.sqrt(alpha_bar)), 1 - alpha_bar
    for j in range(max(1, noises)):
        name = ("shared noise", t, j) if content is None else ("noise", content, t, j)
        epsilon = seeds.normal(x.shape, seed, *name) if noises else np.zeros_like(x)
        yield Noisy((signal * x + np.sqrt(variance) * epsilon).astype(np.float32), signal, variance)


class Explained(NamedTuple):
    """What a noisy picture's patches come from. `scores`: over its patches a, the weights of an image's nearest patches, summed;
    `evidence`: ln Σ exp(−D/(2σ²)) over all patches, for every a; `leaders`: the LISTED images that explain most of each of TILES ×
    TILES tiles of the picture, and how much of it."""

    scores: Float64[np.ndarray, " n"]
    evidence: Float64[np.ndarray, " a"]
    leaders: Foremost


class Shares(NamedTuple):
    """Of a noisy picture's patches a, among b images: their `evidence`, and how much of it each image's nearest patches are."""

    evidence: Float64[np.ndarray, " a"]
    shares: Float32[np.ndarray, "a b"]


class Traces(NamedTuple):
    """Between a noisy picture and b training images: how much each image explains of each of the picture's patches, and how much
    each of its own patches explains (either sums to the score); and for every patch of the picture the nearest of the image: its
    weight, how far down and across it lies from there, and whether in the mirrored image."""

    here: Float64[np.ndarray, "b ny nx"]
    there: Float64[np.ndarray, "b ny nx"]
    weight: Float64[np.ndarray, "b ny nx"]
    down: Int64[np.ndarray, "b ny nx"]
    across: Int64[np.ndarray, "b ny nx"]
    mirrored: Bool[np.ndarray, "b ny nx"]


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

    def answer(self, noisy: Noisy, images: Views, workers: Hands) -> Explained:
        """The posterior over the patches of all images, in float32 or float64 as x_t is."""
        work, n = _Work(self, noisy, images), len(images)
        evidence, blocks = work.posterior(workers)
        tally = Tally.of(self.patches, images.shape[1:], n)
        for low, part in zip(range(0, n, LANES), blocks, strict=True):
            tally.add(np.arange(low, low + part.shape[1]), part)
        return Explained(tally.scores, evidence, tally.leaders)

    def shares(self, noisy: Noisy, images: Views, workers: Hands) -> Shares:
        """What `answer` adds up."""
        evidence, blocks = _Work(self, noisy, images).posterior(workers)
        return Shares(evidence, np.concatenate([part.astype(np.float32) for part in blocks], axis=1))

    def check_room(self, height: int, width: int) -> None:
        """Raise an OptionError where the lists of the nearest patches do not fit `memory`, for pictures of this size."""
        needed = bytes_of_lists(*self.patches.windows(height, width), 1 + self.flips, self.top)
        if needed > max(self.memory, ROOM):
            raise OptionError(
                f"topk is {self.top}; lists for {height}×{width} pixels would take "
                f"{needed / 2**30:.1f} GiB a thread; expected at most {max(self.memory, ROOM) / 2**30:.1f} GiB: "
                f"lower it, or raise --memory."
            )

    def trace(self, noisy: Noisy, images: Views, evidence: Float64[np.ndarray, " a"], workers: Hands) -> Traces:
        """Which patches explain which, of at most LANES images; `evidence` is that of all images."""
        return _Work(self, noisy, images).traces(evidence, workers)


@dataclass
class Tally:
    """What images explain of a picture's patches, added up: over all patches `scores`, by its parts `leaders`."""

    patches: Patches
    shape: tuple[int, int]
    scores: Float64[np.ndarray, " n"]
    leaders: Foremost

    @classmethod
    def of(cls, patches: Patches, shape: tuple[int, int], n: int) -> "Tally":
        """Of n images of this height and width, before the first."""
        tiles = math.prod(len(edges(side, TILES)) - 1 for side in shape)
        return cls(patches, shape, np.zeros(n), Foremost.none(tiles, min(LISTED, n)))

    def add(self, columns: Int64[np.ndarray, " b"], shares: Float64[np.ndarray, "a b"]) -> None:
        """The images at these places explain so much of each patch."""
        self.scores[columns] = shares.sum(0)
        down, across = self.patches.windows(*self.shape)
        pixels = self.patches.by_pixel(shares.T.reshape(-1, down.number, across.number))
        self.leaders = self.leaders.beside(columns, mean_tiled(pixels, TILES).reshape(shares.shape[1], -1).T)


@dataclass(frozen=True)
class Step:
    """One timestep at one resolution: all that its scores depend on but the pictures."""

    t: int
    size: int
    coarse: bool
    topk: int
    noises: int
    shared_noise: bool
    flips: bool
    seed: int

    def question(self, memory: int) -> Question:
        """What is asked of a noisy query."""
        return Question(Patches(self.size, self.coarse), self.topk, self.flips, memory=memory)

    def noised(self, x: Float32[np.ndarray, "c h w"], content: str, alpha_bar: float) -> Iterator[Noisy]:
        """The noisy forms of a query with this content."""
        return noised(x, None if self.shared_noise else content, self.t, alpha_bar, self.noises, self.seed)


def _waves(n: int) -> Iterator[list[int]]:
    """The first images of all blocks: first one, which tells others what is negligible, then WAVE at a time."""
    lows = list(range(0, n, LANES))
    yield lows[:1]
    yield from (lows[i : i + WAVE] for i in range(1, len(lows), WAVE))


class _Work(NamedTuple):
    """A question about one noisy picture."""

    question: Question
    noisy: Noisy
    images: Views

    @property
    def windows(self) -> tuple[Windows, Windows]:
        return self.question.patches.windows(*self.images.shape[1:])

    @property
    def scale(self) -> float:
        return 1 / (2 * self.noisy.variance)

    def variants(self, low: int) -> Float[np.ndarray, "v c _ _"]:
        """The scaled images from `low`, side by side, and their mirror images if these count."""
        patches, dtype = self.question.patches, self.noisy.x_t.dtype
        rows, signal, both = slice(low, low + LANES), dtype.type(self.noisy.signal), (False, True)[: 1 + self.question.flips]
        return np.stack([side_by_side(patches.maps(signal * self.images.part(rows, dtype, mirrored=each))) for each in both])

    def block(self, low: int, evidence: Float64[np.ndarray, " a"], workers: Hands) -> Weighed:
        """The weights of the images from `low`; those that are negligible beside the evidence so far may be missing."""
        negligible = self.question.negligible
        reach = -np.log(negligible) / self.scale if negligible > 0 else np.inf
        limits = reach - np.where(np.isfinite(evidence), evidence, -np.inf) / self.scale
        x = self.question.patches.maps(self.noisy.x_t)
        with workers.room() as memory:
            return weighed(x, self.variants(low), *self.windows, self.scale, self.question.top, limits, reach, memory)

    def posterior(self, workers: Hands) -> tuple[Float64[np.ndarray, " a"], Iterator[Float64[np.ndarray, "a _"]]]:
        """The evidence of all images, and for one block after the other their shares of it."""
        down, across = self.windows
        n, a = len(self.images), down.number * across.number
        evidence, found = np.full(a, -np.inf), []
        whole = n * a * self.noisy.x_t.itemsize <= self.question.memory
        for wave in _waves(n):
            for one in workers.pool.map(lambda low, e=evidence: self.block(low, e, workers), wave):
                evidence = np.logaddexp(evidence, self.log(one))
                found += [one._replace(last=one.last[:0], share=one.share[:0])] * whole
        if not whole:
            found = workers.pool.map(lambda low: self.block(low, evidence, workers), range(0, n, LANES))
        return evidence, (self.shares(one, evidence)[:, : n - low] for low, one in zip(range(0, n, LANES), found, strict=True))

    def traces(self, evidence: Float64[np.ndarray, " a"], workers: Hands) -> Traces:
        """`Question.trace`."""
        (down, across), b = self.windows, len(self.images)
        shape = (down.number, across.number)
        found = self.block(0, evidence, workers)
        factor = np.exp(-found.least.astype(np.float64) * self.scale - evidence)
        x, top = self.question.patches.maps(self.noisy.x_t), self.question.top
        traced_ = traced(x, self.variants(0), *self.windows, self.scale, top, found, factor)
        there = traced_.there[..., :b].astype(np.float64).reshape(-1, *shape, b)
        variant, place = np.divmod(traced_.place[:, :b].astype(np.int64), down.number * across.number)
        to = np.array(np.unravel_index(place, shape)) - np.indices(shape).reshape(2, -1, 1)

        def pictures(values: np.ndarray) -> np.ndarray:
            return np.moveaxis(values.reshape(*shape, b), -1, 0)

        weight = np.exp(-traced_.nearest[:, :b].astype(np.float64) * self.scale - evidence[:, None])
        return Traces(
            pictures(found.top[:, :b] * factor[:, None]),
            np.moveaxis(there[0] + sum(each[:, ::-1] for each in there[1:]), -1, 0),
            *(pictures(each) for each in (weight, to[0], to[1], variant == 1)),
        )

    def log(self, found: Weighed) -> Float64[np.ndarray, " a"]:
        """ln Σ exp(−D/(2σ²)) of a block."""
        with np.errstate(divide="ignore"):
            return np.log(found.total.astype(np.float64)) - found.least.astype(np.float64) * self.scale

    def shares(self, found: Weighed, evidence: Float64[np.ndarray, " a"]) -> Float64[np.ndarray, "a _"]:
        """The block's weights over the whole."""
        return np.exp(-found.least.astype(np.float64) * self.scale - evidence)[:, None] * found.top
