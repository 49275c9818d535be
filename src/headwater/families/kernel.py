"""The after kernel that TRAK and its relatives share: features, their Gram operator, scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.gradients import GradientFeatures
from headwater.linalg.damping import Damping, check_dampings, damping_of


class KernelIndex(NamedTuple):
    """A model and the Gram operator of its features of the training images."""

    model: Denoiser
    gram: Gram


@dataclass(frozen=True, kw_only=True)
class Kernel(GradientFeatures):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) · w_λ(i),   φ(x) = R ∇_θ m(x) averaged over draws, w = 1 unless a
    method says otherwise.

    λ = `damping` × mean ‖φ(i)‖², or `absolute_damping`; without either, `damping` is `usual`. R is scaled so
    that E[RᵀR] = I: λ is of one size for every k. The papers' random numbers have variance 1, their ΦᵀΦ is k
    times as large, and their λ is k × `absolute_damping`.
    """

    signed: ClassVar[bool] = True
    usual: ClassVar[float] = 0.1  # default `damping`: near the best on the digits bank's validation queries

    damping: float | None = None
    absolute_damping: float | None = None

    def __post_init__(self) -> None:
        self.check_gradient()
        _ = self.own_damping  # raises on two dampings, or one out of range

    @property
    def own_damping(self) -> Damping:
        """The damping in the fields."""
        return damping_of(self.damping, self.absolute_damping, Damping(self.usual))

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> KernelIndex:
        return KernelIndex(require_model(model), self.gram(model, train, store))

    def gram(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Gram:
        """The operator of the training images' features."""
        return Gram(self.train(model, train, store))

    def weights(self, gram: Gram, damping: float) -> Float[np.ndarray, " n"]:
        """w_λ(i): the factor of each training image's scores, for an absolute λ."""
        return np.ones(len(gram.phi))

    def score(
        self, index: KernelIndex, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        return (block[0] for block in self.scores_at(index, queries, [self.own_damping], store))

    def scores_at(
        self, index: KernelIndex, queries: Examples, dampings: Sequence[Damping], store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "λ q b"]]:
        """Scores at each damping, all from one eigendecomposition."""
        check_dampings(dampings)
        model, gram = index
        absolute = [damping.scaled(gram.mean_square) for damping in dampings]
        weights = np.stack([self.weights(gram, λ) for λ in absolute])[:, None]
        start = 0
        for block in gram.scores(self.query(model, queries, store), absolute):
            stop = start + block.shape[-1]
            yield block * weights[..., start:stop]
            start = stop

    def self_scores(self, index: KernelIndex) -> Float[np.ndarray, " n"]:
        absolute = self.own_damping.scaled(index.gram.mean_square)
        return index.gram.self_scores(absolute) * self.weights(index.gram, absolute)

    def resolved(self, index: KernelIndex) -> dict[str, object]:
        unit = index.gram.mean_square
        absolute = self.own_damping.scaled(unit)
        return {"k": index.gram.phi.shape[1], "damping": absolute / unit, "absolute_damping": absolute}


def over(norms: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1/norm; 0 for a zero gradient, which has no direction to be scored by."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
