"""The posterior of the optimal local score: the patches of training images that a noisy picture's patches may
have come from.

A denoiser that sees no more than a patch, and knows nothing but the training images, weighs every patch of
theirs by softmax(−‖x_t[a] − √ᾱ_t y[b]‖²/(2σ_t²)). (Kamb & Ganguli 2024, arXiv:2412.20292.)"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64

from headwater.errors import OptionError
from headwater.patches.compiled.displaced import LANES, Windows, side_by_side
from headwater.patches.compiled.weights import ROOM, PatchSoftmax, Weighed, bytes_of_lists, traced, weighed
from headwater.patches.explained import Explained, Tally
from headwater.patches.geometry import Patches
from headwater.patches.noise import Noisy
from headwater.patches.on_device import images_at_once, weighed_on
from headwater.patches.threads import Threads
from headwater.patches.views import Views

CPU = torch.device("cpu")
NEGLIGIBLE = 1e-15  # of a patch's evidence: too little to show in a float32 sum
# blocks of LANES images between two updates of the evidence that decides which weights are negligible
WAVE = 8


@dataclass(frozen=True)
class Comparison:
    """The patches that are compared; how many of an image count for a patch of the query; whether mirror
    images count too.

    Weights below `negligible` of a patch's evidence may be left out: with M training patches a score is then
    too large by at most the factor 1/(1 − negligible·M), or too small by at most negligible × `top` × the
    query's patches. `memory`: bytes that weights may take until the evidence is known; with more images all
    distances are computed twice."""

    patches: Patches
    top: int
    flips: bool = False
    negligible: float = NEGLIGIBLE
    memory: int = 2**30

    def check_room(self, height: int, width: int) -> None:
        """Raise an OptionError where the lists of the nearest patches do not fit `memory`, for pictures of
        this size."""
        needed = bytes_of_lists(*self.patches.windows(height, width), 1 + self.flips, self.top)
        if needed > max(self.memory, ROOM):
            raise OptionError(
                f"topk is {self.top}; lists for {height}×{width} pixels would take {needed / 2**30:.1f} GiB "
                f"a thread; expected at most {max(self.memory, ROOM) / 2**30:.1f} GiB: lower it, or allow "
                "more memory.",
                hint="Use --memory.",
            )


class Shares(NamedTuple):
    """The `evidence` of a noisy picture's patches a among b images, and the share of it in each image's
    nearest patches."""

    evidence: Float64[np.ndarray, " a"]
    shares: Float32[np.ndarray, "a b"]


class Traces(NamedTuple):
    """Between a noisy picture and b training images: how much each image explains of each of the picture's
    patches, and how much each of the image's patches explains (both maps sum to the score); and for every
    patch of the picture the nearest of the image: its weight, how far down and across it lies from the same
    place, and whether in the mirrored image."""

    query_map: Float64[np.ndarray, "b ny nx"]
    image_map: Float64[np.ndarray, "b ny nx"]
    weight: Float64[np.ndarray, "b ny nx"]
    down: Int64[np.ndarray, "b ny nx"]
    across: Int64[np.ndarray, "b ny nx"]
    mirrored: Bool[np.ndarray, "b ny nx"]


class PatchPosterior(NamedTuple):
    """Weights of the patches of `images` for every patch of a noisy picture, in float32 or float64 as x_t
    is. They are computed on `device`; what maps need besides, by the processor."""

    comparison: Comparison
    noisy: Noisy
    images: Views
    threads: Threads
    device: torch.device = CPU

    def explained(self) -> Explained:
        """Scores, evidence and leaders over all images."""
        evidence, blocks = self._evidence_and_shares()
        n = len(self.images)
        tally = Tally.of(self.comparison.patches, self.images.shape[1:], n)
        for low, shares in zip(range(0, n, self._height), blocks, strict=True):
            tally.add(np.arange(low, low + shares.shape[1]), shares)
        return Explained(tally.scores, evidence, tally.leaders)

    def shares(self) -> Shares:
        """The shares that `explained` adds up."""
        evidence, blocks = self._evidence_and_shares()
        return Shares(evidence, np.concatenate([shares.astype(np.float32) for shares in blocks], axis=1))

    def traces(self, evidence: Float64[np.ndarray, " a"]) -> Traces:
        """The patches of at most LANES images that explain the picture's; `evidence` may be of more
        images."""
        (down, across), b = self._windows, len(self.images)
        shape = (down.number, across.number)
        weights = self._weighed(0, evidence)
        factor = np.exp(-weights.least.astype(np.float64) * self._scale - evidence)
        matches = traced(self._softmax(0), weights, factor)
        image_map = matches.image_sums[..., :b].astype(np.float64).reshape(-1, *shape, b)
        variant, place = np.divmod(matches.place[:, :b].astype(np.int64), down.number * across.number)
        offset = np.array(np.unravel_index(place, shape)) - np.indices(shape).reshape(2, -1, 1)

        def pictures(values: np.ndarray) -> np.ndarray:
            return np.moveaxis(values.reshape(*shape, b), -1, 0)

        weight = np.exp(-matches.nearest[:, :b].astype(np.float64) * self._scale - evidence[:, None])
        return Traces(
            pictures(weights.top[:, :b] * factor[:, None]),
            np.moveaxis(image_map[0] + sum(mirrored[:, ::-1] for mirrored in image_map[1:]), -1, 0),
            *(pictures(values) for values in (weight, offset[0], offset[1], variant == 1)),
        )

    @property
    def _windows(self) -> tuple[Windows, Windows]:
        return self.comparison.patches.windows(*self.images.shape[1:])

    @property
    def _scale(self) -> float:
        return 1 / (2 * self.noisy.variance)

    def _maps(self, rows: slice) -> tuple[Float[np.ndarray, "c h w"], list[Float[np.ndarray, "b c h w"]]]:
        """The picture's maps, and those of the scaled images at `rows`, and of their mirror images if these
        count."""
        patches, dtype = self.comparison.patches, self.noisy.x_t.dtype
        signal = dtype.type(self.noisy.signal)
        return patches.maps(self.noisy.x_t), [
            patches.maps(signal * self.images.part(rows, dtype, mirrored=mirrored))
            for mirrored in (False, True)[: 1 + self.comparison.flips]
        ]

    def _softmax(self, low: int) -> PatchSoftmax:
        """The maps of the picture and of the images from `low`, these side by side."""
        x, variants = self._maps(slice(low, low + LANES))
        y = np.stack([side_by_side(maps) for maps in variants])
        return PatchSoftmax(x, y, *self._windows, self._scale, self.comparison.top)

    def _weighed(self, low: int, evidence: Float64[np.ndarray, " a"]) -> Weighed:
        """The weights of the images from `low`; weights that are negligible beside the evidence so far may be
        missing."""
        negligible = self.comparison.negligible
        reach = -np.log(negligible) / self._scale if negligible > 0 else np.inf
        limits = reach - np.where(np.isfinite(evidence), evidence, -np.inf) / self._scale
        with self.threads.memory() as memory:
            return weighed(self._softmax(low), limits, reach, memory)

    def _evidence_and_shares(self) -> tuple[Float64[np.ndarray, " a"], Iterator[Float64[np.ndarray, "a _"]]]:
        """The evidence of all images, and the shares of one block of them after the other."""
        down, across = self._windows
        n, a = len(self.images), down.number * across.number
        evidence, blocks = np.full(a, -np.inf), []
        fits = n * a * self.noisy.x_t.itemsize <= self.comparison.memory
        for wave in _waves(n, self._height):
            for block in self._blocks(wave, evidence):
                evidence = np.logaddexp(evidence, self._log(block))
                blocks += [block._replace(last=block.last[:0], share=block.share[:0])] * fits
        lows = range(0, n, self._height)
        if not fits:
            blocks = self._blocks(lows, evidence)
        return evidence, (
            self._share(block, evidence)[:, : n - low] for low, block in zip(lows, blocks, strict=True)
        )

    @property
    def _height(self) -> int:
        """The number of images in a block."""
        if self.device == CPU:
            return LANES
        itemsize = self.noisy.x_t.itemsize
        return images_at_once(*self._windows, 1 + self.comparison.flips, itemsize)

    def _blocks(self, lows: Sequence[int], evidence: Float64[np.ndarray, " a"]) -> Iterator[Weighed]:
        """The weights of the images from each of `lows`: by all threads, or on the device."""
        if self.device == CPU:
            return self.threads.pool.map(lambda low: self._weighed(low, evidence), lows)
        return map(self._on_device, lows)

    def _on_device(self, low: int) -> Weighed:
        """The weights of the images from `low`, all of them."""
        x, variants = self._maps(slice(low, low + self._height))
        return weighed_on(self.device, x, np.stack(variants), self._windows, self._scale, self.comparison.top)

    def _log(self, block: Weighed) -> Float64[np.ndarray, " a"]:
        """ln Σ exp(−D/(2σ²)) of a block."""
        with np.errstate(divide="ignore"):
            return np.log(block.total.astype(np.float64)) - block.least.astype(np.float64) * self._scale

    def _share(self, block: Weighed, evidence: Float64[np.ndarray, " a"]) -> Float64[np.ndarray, "a _"]:
        """A block's weights over the evidence."""
        return np.exp(-block.least.astype(np.float64) * self._scale - evidence)[:, None] * block.top


def _waves(n: int, height: int) -> Iterator[list[int]]:
    """The first images of all blocks: first one block, whose evidence shows what is negligible, then WAVE at
    a time."""
    lows = list(range(0, n, height))
    yield lows[:1]
    yield from (lows[i : i + WAVE] for i in range(1, len(lows), WAVE))
