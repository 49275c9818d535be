"""Methods without curvature: inner products of gradients at one or several checkpoints, raw or of unit
length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.diffusion.denoiser import Denoiser, evenly, require_model
from headwater.disk.store import FeatureStore
from headwater.errors import check_at_least
from headwater.examples import Examples
from headwater.families.gradients import GradientFeatures, Passes
from headwater.gradients.features import Features


class Checkpoint(NamedTuple):
    """A model at one point of its training, and the training images' features there."""

    model: Denoiser
    phi: Features


@dataclass(frozen=True, kw_only=True)
class InnerProduct(GradientFeatures):
    """τ(q, i) = mean over checkpoints c of ⟨φ_c(q), φ_c(i)⟩, or of their cosine;

    φ_c(x) = R ∇_θ m(x; θ_c)."""

    signed: ClassVar[bool] = True
    cosine: ClassVar[bool] = False

    def models(self, model: Denoiser) -> Sequence[Denoiser]:
        """The models whose gradients are compared: here the final one alone."""
        return [model]

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> list[Checkpoint]:
        stages = self.models(require_model(model))
        return [Checkpoint(stage, self._sized(self.train(stage, train, store))) for stage in stages]

    def score(
        self, index: list[Checkpoint], queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q n"]]:
        total: Float[np.ndarray, "q n"] | float = 0.0
        for checkpoint in index:
            total = total + self._sized(self.query(checkpoint.model, queries, store)) @ checkpoint.phi.T
        yield np.asarray(total) / len(index)

    def self_scores(self, index: list[Checkpoint]) -> Float[np.ndarray, " n"]:
        return np.mean([np.square(checkpoint.phi).sum(axis=1) for checkpoint in index], axis=0)

    def resolved(self, index: list[Checkpoint]) -> dict[str, object]:
        return {
            "k": index[0].phi.shape[1],
            "checkpoints": [checkpoint.model.fingerprint for checkpoint in index],
        }

    def _sized(self, phi: Features) -> Features:
        return unit(phi) if self.cosine else phi


@dataclass(frozen=True, kw_only=True)
class AlongTraining(InnerProduct):
    """Inner products at C `checkpoints` of the model, evenly spaced over its training, the last among them.

    All share one projection and one noise: the last checkpoint's features are also those of every method of
    the final model."""

    checkpoints: int = 4

    def __post_init__(self) -> None:
        self.check_gradient()
        check_at_least(1, self, "checkpoints")

    def models(self, model: Denoiser) -> Sequence[Denoiser]:
        """The model's checkpoints; the model itself if it has none."""
        return evenly(model.with_checkpoints(self.checkpoints).checkpoints or (model,), self.checkpoints)

    def bytes_kept(self, n: int, q: int, parameters: int, factors: int) -> int:
        """C times the bytes of one model."""
        return self.checkpoints * super().bytes_kept(n, q, parameters, factors)

    def passes(self, T: int) -> Passes:
        """C times the passes of one model."""
        return Passes(*(self.checkpoints * count for count in super().passes(T)))


def unit(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Rows of length 1; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
