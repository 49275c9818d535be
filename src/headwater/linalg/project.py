"""Random projections of gradients, p numbers to k: inner products are kept in expectation, E⟨Rg, Rh⟩ = ⟨g,
h⟩.

No matrix is stored: entries come from named streams in fixed blocks of the p axis, so they depend on the seed
alone, not on batch, device or thread count. (Park et al. 2023, TRAK, arXiv:2303.14186, section 3.)"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, log2
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from headwater import seeds
from headwater.linalg.transfer import sent

BLOCK = 4096  # gradient coordinates whose random numbers come from one stream
SIGNS = 2**16  # coordinates whose signs, one bit each, come from one stream


@runtime_checkable
class Projector(Protocol):
    """A random linear map of flat gradients, applied piece by piece; a value, stateless, named in the store
    by its fields."""

    def width(self, p: int) -> int:
        """The number of features of p coordinates."""
        ...

    def add(self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int) -> None:
        """out += R[:, start : start + w] piece, for the coordinates of a gradient from `start` on."""
        ...


def project(projector: Projector, gradients: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
    """R g for each row g."""
    out = gradients.new_zeros(len(gradients), projector.width(gradients.shape[1]))
    projector.add(out, gradients, 0)
    return out


@dataclass(frozen=True)
class Dense:
    """R with independent entries of variance 1/k: standard normal, or ±1 (`rademacher`), over √k.

    Var⟨Rg, Rh⟩ = (‖g‖²‖h‖² + ⟨g, h⟩²)/k for normal entries. Cost b·p·k; the p·k entries are drawn again in
    each call."""

    k: int
    seed: int = 0
    entries: str = "gaussian"

    def width(self, p: int) -> int:
        return self.k

    def add(self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int) -> None:
        stop = start + piece.shape[1]
        for block in range(start // BLOCK, ceil(stop / BLOCK)):
            low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            rows = self.rows(block, high - block * BLOCK)[low - block * BLOCK :]
            entries = sent(rows, piece.device, piece.dtype)
            out += piece[:, low - start : high - start] @ entries / self.k**0.5

    def rows(self, block: int, count: int) -> Float[np.ndarray, "count k"]:
        """The first `count` rows of √k·Rᵀ in a block."""
        random = seeds.generator(self.seed, self.entries, self.k, block)
        if self.entries == "gaussian":
            return random.standard_normal((count, self.k), dtype=np.float32)
        bits = np.unpackbits(
            np.frombuffer(random.bytes(count * -(-self.k // 8)), np.uint8).reshape(count, -1), axis=1
        )
        return bits[:, : self.k].astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class Sparse:
    """Sparse sign sketch (SJLT): each coordinate is added to s = `nonzeros` of the k places with sign ±1/√s.

    The places are not stored, nor looked up: p is cut into stretches of length k, each is rotated by its own
    random offset o, and all are added up: coordinate j of a stretch goes to (j + o) mod k. Signs are
    independent, and two coordinates meet with probability 1/k (never within a stretch), which is all that the
    variance depends on: for s = 1, averaged over offsets, Var⟨Rg, Rh⟩ = Σ_{i,j of different stretches} (g_i²
    h_j² + g_i h_i g_j h_j)/k ≤ (‖g‖²‖h‖² + ⟨g, h⟩²)/k. Where p ≤ k it is an isometry. For s > 1 k is cut into
    s parts, each with a fold of its own (Kane & Nelson 2014, arXiv:1012.1577). Cost b·p·s additions of
    contiguous numbers."""

    k: int
    seed: int = 0
    nonzeros: int = 1

    def width(self, p: int) -> int:
        return self.k

    def add(self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int) -> None:
        edges = [self.k * s // self.nonzeros for s in range(self.nonzeros + 1)]
        for s, (low, high) in enumerate(pairwise(edges)):
            if piece.device.type != "cpu":
                self._fold_at_once(out[:, low:high], piece, start, s)
                continue
            signs = torch.as_tensor(self.signs(s, start, start + piece.shape[1]), device=piece.device)
            self._fold(out[:, low:high], piece * signs / self.nonzeros**0.5, start, s)

    def _fold(self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int, s: int) -> None:
        k, stop = out.shape[1], start + piece.shape[1]
        offsets = self.offsets(s, k, ceil(stop / k))
        for stretch in range(start // k, ceil(stop / k)):
            low, high = max(start, stretch * k), min(stop, (stretch + 1) * k)
            part = piece[:, low - start : high - start]
            to = (low + int(offsets[stretch])) % k
            before = min(high - low, k - to)  # the end of `out`; the rest begins again at its front
            out[:, to : to + before] += part[:, :before]
            out[:, : high - low - before] += part[:, before:]

    def _fold_at_once(
        self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int, s: int
    ) -> None:
        """`_fold` with a few large kernels, for a card, on which a small kernel costs as much as a large one.

        Each place of `out` gathers its coordinate of every stretch, and these are added up."""
        k, width = out.shape[1], piece.shape[1]
        low, high = start // k, ceil((start + width) / k)

        def fold() -> tuple[Tensor, ...]:
            numbers = self.signs(s, start, start + width), self.offsets(s, k, high)[low:]
            return tuple(sent(values, piece.device) for values in numbers)

        signs, offsets = _ON_CARD.get((self, piece.device), (s, start, width), fold)
        first = start - low * k
        places = (torch.arange(k, device=piece.device) - offsets[:, None]) % k
        padded = piece.new_zeros(len(piece), places.numel())
        torch.mul(piece, signs, out=padded[:, first : first + width])
        turned = padded.view(len(piece), *places.shape).gather(2, places.expand(len(piece), -1, -1))
        out += turned.sum(1) / self.nonzeros**0.5

    def offsets(self, s: int, k: int, count: int) -> Int64[np.ndarray, " count"]:
        """The offset by which each stretch of k coordinates is rotated."""
        return _offsets(self.seed, self.k, self.nonzeros, s, k, 2 ** ceil(log2(count)))[:count]

    def signs(self, s: int, start: int, stop: int) -> Int8[np.ndarray, " w"]:
        """±1 for the coordinates start … stop."""
        blocks = [
            _signs(self.seed, self.k, self.nonzeros, s, block)
            for block in range(start // SIGNS, ceil(stop / SIGNS))
        ]
        return np.concatenate(blocks)[start % SIGNS :][: stop - start]


class CardCache:
    """Tensors of one sketch that are costly to bring to a card, up to `most` bytes.

    What finds no room is made again each time: pieces come in circles, and if the oldest made room for it,
    none would be used twice. Another sketch empties the cache."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self.sketch: Hashable = None
        self.tensors: dict[Hashable, tuple[Tensor, ...]] = {}

    def get(
        self, sketch: Hashable, piece: Hashable, make: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """The sketch's tensors for a piece."""
        if sketch != self.sketch:
            self.sketch, self.tensors, self.bytes = sketch, {}, 0
        if piece in self.tensors:
            return self.tensors[piece]
        tensors = make()
        size = sum(tensor.nbytes for tensor in tensors)
        if self.bytes + size <= self.most:
            self.tensors[piece], self.bytes = tensors, self.bytes + size
        return tensors


_ON_CARD = CardCache(2**30)


@lru_cache(maxsize=64)
def _offsets(seed: int, k: int, nonzeros: int, s: int, part: int, count: int) -> Int64[np.ndarray, " count"]:
    return seeds.generator(seed, "sparse offsets", k, nonzeros, s).integers(0, part, size=count)


@lru_cache(maxsize=2048)
def _signs(seed: int, k: int, nonzeros: int, s: int, block: int) -> Int8[np.ndarray, " w"]:
    """The signs of one block of SIGNS coordinates, cached because every batch needs them."""
    bits = seeds.generator(seed, "sparse signs", k, nonzeros, s, block).bytes(SIGNS // 8)
    return np.unpackbits(np.frombuffer(bits, np.uint8)).view(np.int8) * np.int8(2) - np.int8(1)


@dataclass(frozen=True)
class TwoSided:
    """For a layer whose gradient is a matrix G: L G Rᵀ with L, R random and independent, from its two sides
    before their product.

    L `[side, outputs]` and R `[side, inputs]` have orthonormal rows in a uniformly random direction, times
    √(length/side); a side no longer than `side` is not shortened. So E⟨LGRᵀ, LHRᵀ⟩ = ⟨G, H⟩. All layers
    together, with gradients that are no matrix unchanged, are then folded to k as in Sparse. `side` is
    √(OVERSAMPLED·k/layers): a wider first step costs little, and the first step has the larger variance, up
    to (2/side)(1 − side/length) for each side of a G of rank one. (Two sides: Choe et al. 2024, LoGra,
    arXiv:2405.13954.)"""

    k: int
    seed: int = 0

    OVERSAMPLED: ClassVar[int] = 4

    def side(self, layers: int) -> int:
        """The longest side of a layer's block, for this many layers."""
        return max(1, ceil((self.OVERSAMPLED * self.k / max(1, layers)) ** 0.5))

    @property
    def fold(self) -> Sparse:
        return Sparse(self.k, self.seed)

    def matrix(self, side: int, length: int, *name: str) -> Float[np.ndarray, "s length"]:
        """One side's random matrix `[min(side, length), length]`, of the stream called `name`."""
        if length <= side:
            return np.eye(length, dtype=np.float32)
        normal = seeds.generator(self.seed, "two-sided", *name).standard_normal((length, side))
        directions, triangle = np.linalg.qr(normal)
        rows = (directions * np.sign(np.diag(triangle))).T  # with this sign the directions are uniform
        return (rows * (length / side) ** 0.5).astype(np.float32)


@dataclass(frozen=True)
class Identity:
    """No projection: the features are the gradients, k = p."""

    def width(self, p: int) -> int:
        return p

    def add(self, out: Float[Tensor, "b k"], piece: Float[Tensor, "b w"], start: int) -> None:
        out[:, start : start + piece.shape[1]] += piece


AnyProjector = Dense | Sparse | TwoSided | Identity


def projector(name: str, k: int, seed: int) -> AnyProjector:
    """The projector called `name` in the command line."""
    if name in ("gaussian", "rademacher"):
        return Dense(k, seed, name)
    return {"sparse": Sparse(k, seed), "two-sided": TwoSided(k, seed), "none": Identity()}[name]


PROJECTORS = ("gaussian", "rademacher", "sparse", "two-sided", "none")
