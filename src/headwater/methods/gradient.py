"""Gradient similarity without a kernel (Charpiat et al. 2019, arXiv:2004.14117; D-TRAK paper, appendix A.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.core import Examples
from headwater.diffusion.denoiser import Denoiser
from headwater.features import Features, GradientFeatures
from headwater.methods import Dampings
from headwater.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Gradient(GradientFeatures):
    """τ(q, i) = ⟨φ(q), φ(i)⟩,   φ(x) = R ∇_θ m(x): one step of gradient descent on image i, seen from q."""

    title: ClassVar[str] = "Gradient"
    signed: ClassVar[bool] = True

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Features:
        return self.train(model, train, store)

    def score(
        self, model: Denoiser | None, index: Features, queries: Examples, store: FeatureStore, damping: Dampings = None
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        yield self.query(model, queries, store) @ index.T

    def self_scores(self, index: Features) -> Float[np.ndarray, " n"]:
        return np.square(index).sum(axis=1)

    def resolved(self, index: Features) -> dict[str, object]:
        return {"k": index.shape[1]}


@dataclass(frozen=True, kw_only=True)
class GradientCos(GradientFeatures):
    """τ(q, i) = ⟨φ(q), φ(i)⟩/(‖φ(q)‖‖φ(i)‖): the same, blind to the size of a gradient. Self-influence is 1 throughout."""

    title: ClassVar[str] = "Gradient cosine"
    signed: ClassVar[bool] = True

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Features:
        return _unit(self.train(model, train, store))

    def score(
        self, model: Denoiser | None, index: Features, queries: Examples, store: FeatureStore, damping: Dampings = None
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        yield _unit(self.query(model, queries, store)) @ index.T

    def self_scores(self, index: Features) -> Float[np.ndarray, " n"]:
        return np.square(index).sum(axis=1)

    def resolved(self, index: Features) -> dict[str, object]:
        return {"k": index.shape[1]}


def _unit(phi: Features) -> Features:
    """Rows of length 1; a zero gradient stays zero."""
    norms = np.linalg.norm(phi, axis=1, keepdims=True)
    return np.divide(phi, norms, out=np.zeros_like(phi), where=norms > 0)
