"""Random projections of gradients, p numbers to k: inner products are kept in expectation, E⟨Rg, Rh⟩ = ⟨g, h⟩.

No matrix is stored: entries come from named streams in fixed blocks of the p axis, so they depend on the seed alone,
not on batch, device or thread count. (Park et al. 2023, TRAK, arXiv:2303.14186, section 3.)
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater import seeds

BLOCK = 4096  # gradient coordinates whose random numbers come from one stream


@runtime_checkable
class Projector(Protocol):
    """Maps gradients `[b, p]` to features `[b, k]`; a value, stateless, named in the store by its fields."""

    def project(self, gradients: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]: ...


@dataclass(frozen=True)
class Dense:
    """R with independent entries of variance 1/k: standard normal, or ±1 (`rademacher`), over √k.

    Var⟨Rg, Rh⟩ = (‖g‖²‖h‖² + ⟨g, h⟩²)/k for normal entries. Cost b·p·k; the p·k entries are made anew each call.
    """

    k: int
    seed: int = 0
    entries: str = "gaussian"

    def project(self, gradients: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        out = gradients.new_zeros(len(gradients), self.k)
        for start in range(0, gradients.shape[1], BLOCK):
            block = gradients[:, start : start + BLOCK]
            out += block @ torch.as_tensor(self.rows(start, block.shape[1])).to(out)
        return out / self.k**0.5

    def rows(self, start: int, count: int) -> Float[np.ndarray, "count k"]:
        """Rows start … start+count of √k·Rᵀ; `start` is a multiple of BLOCK."""
        random = seeds.stream(self.seed, self.entries, self.k, start // BLOCK)
        if self.entries == "gaussian":
            return random.standard_normal((count, self.k), dtype=np.float32)
        bits = np.unpackbits(np.frombuffer(random.bytes(count * -(-self.k // 8)), np.uint8).reshape(count, -1), axis=1)
        return bits[:, : self.k].astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class Sparse:
    """Sparse sign sketch (SJLT): each coordinate is added to s = `nonzeros` of the k places with sign ±1/√s.

    E⟨Rg, Rh⟩ = ⟨g, h⟩; for s = 1, Var⟨Rg, Rh⟩ = (‖g‖²‖h‖² + ⟨g, h⟩² − 2 Σ_j g_j² h_j²)/k. The s places of a coordinate lie one
    in each of s equal parts of k (Kane & Nelson 2014, arXiv:1012.1577). Cost b·p·s.
    """

    k: int
    seed: int = 0
    nonzeros: int = 1

    def project(self, gradients: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        p = gradients.shape[1]
        place, sign = self.entries(p)
        out = gradients.new_zeros(len(gradients), self.k)
        for s in range(self.nonzeros):
            signed = gradients * torch.as_tensor(sign[s]).to(gradients)
            out.index_add_(1, torch.as_tensor(place[s], device=out.device), signed)
        return out / self.nonzeros**0.5

    def entries(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        """Places `[s, p]` in 0 … k−1 and signs `[s, p]`."""
        edges = np.arange(self.nonzeros + 1) * self.k // self.nonzeros
        places, signs = [], []
        for start in range(0, p, BLOCK):
            random = seeds.stream(self.seed, "sparse", self.k, self.nonzeros, start // BLOCK)
            places.append(random.integers(edges[:-1, None], edges[1:, None], size=(self.nonzeros, BLOCK)))
            signs.append(random.integers(0, 2, size=(self.nonzeros, BLOCK), dtype=np.int8) * 2 - 1)
        return np.concatenate(places, 1)[:, :p], np.concatenate(signs, 1)[:, :p]


@dataclass(frozen=True)
class Identity:
    """No projection: the features are the gradients, k = p."""

    def project(self, gradients: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
        return gradients


def projector(name: str, k: int, seed: int) -> Projector:
    """The projector called `name` in the command line: gaussian, rademacher, sparse or none."""
    if name in ("gaussian", "rademacher"):
        return Dense(k, seed, name)
    return {"sparse": Sparse(k, seed), "none": Identity()}[name]


PROJECTORS = ("gaussian", "rademacher", "sparse", "none")
