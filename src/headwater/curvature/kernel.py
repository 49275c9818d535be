"""The after kernel that TRAK and its relatives share: features, their Gram operator, scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.core import Examples
from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser
from headwater.errors import OptionError
from headwater.features import GradientFeatures
from headwater.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Kernel(GradientFeatures):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i),   φ(x) = R ∇_θ m(x) averaged over draws.

    λ = `damping` × mean ‖φ(i)‖² (`usual` if neither is given), or `absolute_damping`, the papers' λ.
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

    def score(
        self,
        model: Denoiser | None,
        index: Gram,
        queries: Examples,
        store: FeatureStore,
        damping: float | Sequence[float] | None = None,
    ) -> Iterator[Float[np.ndarray, "*λ q b"]]:
        given = self._absolute(index) if damping is None else np.multiply(damping, index.mean_square).tolist()
        yield from index.scores(self.query(model, queries, store), given)

    def self_scores(self, index: Gram) -> Float[np.ndarray, " n"]:
        return index.self_scores(self._absolute(index))

    def resolved(self, index: Gram) -> dict[str, object]:
        absolute = self._absolute(index)
        return {"k": index.phi.shape[1], "damping": absolute / index.mean_square, "absolute_damping": absolute}

    def _absolute(self, gram: Gram) -> float:
        """λ in the papers' units."""
        if self.absolute_damping is not None:
            return float(self.absolute_damping)
        return (self.usual if self.damping is None else self.damping) * gram.mean_square
