"""The Gram operator of features: (ΦᵀΦ + λI)⁻¹ for every λ from one eigendecomposition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64

from headwater.errors import NonFiniteError, OptionError


@dataclass(frozen=True, eq=False)
class Gram:
    """ΦᵀΦ of features Φ `[n, k]`, held in float64 through the smaller of ΦᵀΦ (primal) and ΦΦᵀ (dual).

    By the push-through identity Φ_q(ΦᵀΦ + λI)⁻¹Φᵀ = Φ_qΦᵀ(ΦΦᵀ + λI)⁻¹, so both give the same scores.
    Cost n·k·min(n, k) + min(n, k)³, once; a further λ costs q·n·min(n, k).
    """

    phi: Float[np.ndarray, "n k"]

    largest: ClassVar[int] = 8192  # widest symmetric matrix to decompose

    def __post_init__(self) -> None:
        n, k = self.phi.shape
        if min(n, k) > self.largest:
            raise OptionError(
                f"The kernel would be {min(n, k)} wide ({n} images, k = {k}); the limit is {self.largest}. "
                "Choose a smaller k."
            )
        if not np.isfinite(self.phi).all():
            raise NonFiniteError(f"Feature row {int(np.argmin(np.isfinite(self.phi).all(1)))} is not finite.")

    @property
    def dual(self) -> bool:
        n, k = self.phi.shape
        return n <= k

    @cached_property
    def _wide(self) -> Float64[np.ndarray, "n k"]:
        return self.phi.astype(np.float64)

    @cached_property
    def eigen(self) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, "r r"]]:
        """Eigenvalues (ascending, not negative) and eigenvectors of the smaller of ΦᵀΦ and ΦΦᵀ."""
        small = self._wide @ self._wide.T if self.dual else self._wide.T @ self._wide
        values, vectors = np.linalg.eigh(small)
        return np.maximum(values, 0.0), vectors

    @property
    def mean_square(self) -> float:
        """trace(ΦᵀΦ)/n, the mean squared feature norm: the unit of the dimensionless damping."""
        return float(np.square(self._wide).sum() / len(self.phi))

    def inverse_spectrum(self, damping: float) -> Float64[np.ndarray, " r"]:
        """1/(eigenvalue + λ) with the absolute λ = `damping`."""
        if not damping >= 0:
            raise OptionError(f"The damping is {damping}; expected a number of 0 or more.")
        values, _ = self.eigen
        rounding = values[-1] * len(values) * np.finfo(np.float64).eps
        if values[0] <= rounding and damping <= rounding:
            raise OptionError(
                f"The kernel of these features is singular and the damping is {damping:g}: the inverse does "
                "not exist. Use a larger damping."
            )
        return 1.0 / (values + damping)

    def matvec(self, v: Float[np.ndarray, "q k"]) -> Float64[np.ndarray, "q k"]:
        """ΦᵀΦ v, a row at a time."""
        return (v @ self._wide.T) @ self._wide

    def solve(self, v: Float[np.ndarray, "q k"], damping: float) -> Float64[np.ndarray, "q k"]:
        """(ΦᵀΦ + λI)⁻¹ v, a row at a time, with the absolute λ = `damping`."""
        _, vectors = self.eigen
        inverse = self.inverse_spectrum(damping)
        if not self.dual:
            return ((v @ vectors) * inverse) @ vectors.T
        if damping <= 0:
            raise OptionError(
                "With more features than images ΦᵀΦ is singular: solve needs a positive damping."
            )
        coordinates = v @ self._wide.T @ vectors  # Woodbury: (v − Φᵀ(ΦΦᵀ + λI)⁻¹Φv)/λ
        return (v - (coordinates * inverse) @ vectors.T @ self._wide) / damping

    def scores(
        self, queries: Float[np.ndarray, "q k"], damping: float | Sequence[float], block: int = 65536
    ) -> Iterator[Float64[np.ndarray, "*λ q b"]]:
        """Φ_q(ΦᵀΦ + λI)⁻¹Φᵀ in blocks of training images; a sequence of absolute λ gives a leading axis."""
        _, vectors = self.eigen
        wide = queries.astype(np.float64)
        coordinates = wide @ self._wide.T @ vectors if self.dual else wide @ vectors
        if isinstance(damping, Sequence):
            weighted = np.stack([coordinates * self.inverse_spectrum(λ) for λ in damping])
        else:
            weighted = coordinates * self.inverse_spectrum(damping)
        for start in range(0, len(self.phi), block):
            rows = slice(start, start + block)
            right = vectors[rows] if self.dual else self._wide[rows] @ vectors
            yield weighted @ right.T

    def solved_norms(self, damping: float) -> Float64[np.ndarray, " n"]:
        """‖(ΦᵀΦ + λI)⁻¹φ(i)‖ of each training image, from the eigenbasis: Σ_j v_ij² s_j/(s_j + λ)² in the
        dual."""
        values, vectors = self.eigen
        inverse = self.inverse_spectrum(damping)
        if self.dual:
            return np.sqrt(np.square(vectors) @ (values * np.square(inverse)))
        return np.sqrt(np.square(self._wide @ vectors) @ np.square(inverse))

    def norms(self) -> Float64[np.ndarray, " n"]:
        """‖φ(i)‖ of each training image."""
        return np.linalg.norm(self._wide, axis=1)

    def self_scores(self, damping: float) -> Float64[np.ndarray, " n"]:
        """φ(i)ᵀ(ΦᵀΦ + λI)⁻¹φ(i), the leverage of each training image, without an n×n matrix of scores."""
        values, vectors = self.eigen
        inverse = self.inverse_spectrum(damping)
        if self.dual:
            return np.square(vectors) @ (values * inverse)
        return np.square(self._wide @ vectors) @ inverse
