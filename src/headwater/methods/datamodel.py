"""Datamodels: Ilyas et al. 2022, arXiv:2202.00622, by ridge regression (D-TRAK paper, appendix A.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64

from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, check_at_least
from headwater.examples import Examples
from headwater.families.learned import BLOCK, LearningSubsets, RetrainedMethod, in_blocks


@dataclass(frozen=True, kw_only=True)
class Datamodel(RetrainedMethod):
    """τ(q, i) = −w_i,   (w, b) = argmin Σ_A (m(q; θ_A) − b − Σ_{i∈A} w_i)² + α‖w‖² over models retrained on
    subsets A.

    For each query α is chosen from `alphas` by the mean R² on held-out subsets over `folds`. Solved in the
    space of the m subsets: with the centred mask X, w = Xᵀ(XXᵀ + αI)⁻¹y, n·m² + m³ for all queries and α. The
    paper's sign is opposite."""

    title: ClassVar[str] = "Datamodel"

    alphas: tuple[float, ...] = (0.1, 1.0, 10.0)
    folds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alphas or not all(0 < alpha < np.inf for alpha in self.alphas):
            raise OptionError(f"alphas is {list(self.alphas)}; expected one or more finite numbers above 0.")
        check_at_least(2, self, "folds")

    def score(
        self, index: LearningSubsets, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        y = self.outcomes(index, queries)
        if len(y) < 2 * self.folds:
            found = f"folds is {self.folds} with {len(y)} subsets to learn from"
            raise OptionError(f"{found}; expected at least two subsets a fold.")
        block = store.rows_together(BLOCK)
        gram = shared_images(index, block)
        best = np.argmax(self.accuracy(gram, y), axis=0)
        duals = solved(centred(gram), y - y.mean(axis=0), self.alphas)
        dual = np.take_along_axis(duals, best[None, None], 0)[0]
        for columns in in_blocks(index.mask.shape[1], block):
            mask = index.mask[:, columns].astype(np.float64)
            yield -(dual.T @ (mask - mask.mean(axis=0)))

    def accuracy(
        self, gram: Float64[np.ndarray, "m m"], y: Float64[np.ndarray, "m q"]
    ) -> Float64[np.ndarray, "a q"]:
        """R² on held-out subsets for each α and query, averaged over folds of consecutive subsets."""
        total = np.zeros((len(self.alphas), y.shape[1]))
        for held in np.array_split(np.arange(len(y)), self.folds):
            rest = np.setdiff1d(np.arange(len(y)), held)
            inside, across = gram[np.ix_(rest, rest)], gram[np.ix_(held, rest)]
            across = across - across.mean(1, keepdims=True) - (inside.mean(0) - inside.mean())
            dual = solved(centred(inside), y[rest] - y[rest].mean(axis=0), self.alphas)
            error = np.square(y[rest].mean(axis=0) + across @ dual - y[held]).sum(axis=1)
            spread = np.square(y[held] - y[held].mean(axis=0)).sum(axis=0)
            total += 1 - error / np.where(spread > 0, spread, 1.0)
        return total / self.folds


def shared_images(index: LearningSubsets, block: int) -> Float64[np.ndarray, "m m"]:
    """XXᵀ of the mask X: the number of images that each pair of subsets shares."""
    m, n = index.mask.shape
    gram = np.zeros((m, m))
    for columns in in_blocks(n, block):
        mask = index.mask[:, columns].astype(np.float64)
        gram += mask @ mask.T
    return gram


def centred(gram: Float64[np.ndarray, "m m"]) -> Float64[np.ndarray, "m m"]:
    """XXᵀ after the columns of X are centred, from XXᵀ before."""
    return gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean()


def solved(
    gram: Float64[np.ndarray, "m m"], y: Float64[np.ndarray, "m q"], alphas: tuple[float, ...]
) -> Float64[np.ndarray, "a m q"]:
    """(XXᵀ + αI)⁻¹y for each α, from one eigendecomposition."""
    values, vectors = np.linalg.eigh(gram)
    inside = vectors.T @ y
    return np.stack([vectors @ (inside / (np.maximum(values, 0)[:, None] + alpha)) for alpha in alphas])
