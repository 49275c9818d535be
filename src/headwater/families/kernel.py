"""The after kernel that TRAK and its relatives share: features, their Gram operator, scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.families.gradients import GradientFeatures


@dataclass(frozen=True, kw_only=True)
class Kernel(GradientFeatures):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) · w_λ(i),   φ(x) = R ∇_θ m(x) averaged over draws, w = 1 unless a method says otherwise.

    λ = `damping` × mean ‖φ(i)‖² (`usual` if neither is given), or `absolute_damping`, the papers' λ. Dampings given to `score` are
    of the kind that the method was given, of the first if neither.
    """

    signed: ClassVar[bool] = True
    usual: ClassVar[float] = 0.1  # dimensionless λ where none is given; of the digits bank's sweeps, near the best on validation

    damping: float | None = None
    absolute_damping: float | None = None

    def __post_init__(self) -> None:
        self.check_gradient()
        if self.damping is not None and self.absolute_damping is not None:
            raise OptionError(
                f"Both damping ({self.damping}) and absolute_damping ({self.absolute_damping}) are given; expected one: "
                "damping is a multiple of the mean squared feature norm, absolute_damping is the papers' λ."
            )
        for name in ("damping", "absolute_damping"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise OptionError(f"{name} is {value}; expected a finite number of 0 or more.")

    def fit(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Gram:
        return Gram(self.train(model, train, store))

    def weights(self, index: Gram, damping: float) -> Float[np.ndarray, " n"]:
        """w_λ(i): what each training image's scores are multiplied by, for an absolute λ."""
        return np.ones(len(index.phi))

    def score(
        self,
        model: Denoiser | None,
        index: Gram,
        queries: Examples,
        store: FeatureStore,
        damping: float | Sequence[float] | None = None,
    ) -> Iterator[Float[np.ndarray, "*λ q b"]]:
        unit = 1.0 if self.absolute_damping is not None else index.mean_square
        given = self._absolute(index) if damping is None else np.multiply(damping, unit).tolist()
        several = isinstance(given, list)
        each = np.stack([self.weights(index, λ) for λ in given])[:, None] if several else self.weights(index, given)
        start = 0
        for block in index.scores(self.query(model, queries, store), given):
            stop = start + block.shape[-1]
            yield block * each[..., start:stop]
            start = stop

    def self_scores(self, index: Gram) -> Float[np.ndarray, " n"]:
        absolute = self._absolute(index)
        return index.self_scores(absolute) * self.weights(index, absolute)

    def resolved(self, index: Gram) -> dict[str, object]:
        absolute = self._absolute(index)
        return {"k": index.phi.shape[1], "damping": absolute / index.mean_square, "absolute_damping": absolute}

    def _absolute(self, gram: Gram) -> float:
        """λ in the papers' units."""
        if self.absolute_damping is not None:
            return float(self.absolute_damping)
        return (self.usual if self.damping is None else self.damping) * gram.mean_square


def over(norms: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1/norm; 0 of a gradient that is zero, which has no direction to be scored by."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
