"""Empirical influence: Feldman & Zhang 2020, arXiv:2008.03703 (D-TRAK paper, appendix A.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.disk.store import FeatureStore
from headwater.errors import DataError
from headwater.examples import Examples
from headwater.families.learned import BLOCK, LearningSubsets, RetrainedMethod, in_blocks


@dataclass(frozen=True, kw_only=True)
class EmpiricalIF(RetrainedMethod):
    """τ(q, i) = E[m(q; θ_A) | i ∉ A] − E[m(q; θ_A) | i ∈ A] over the models retrained on subsets A.

    Unbiased but noisy: the effects of all images that change together with i are noise in its score. The
    paper's sign is opposite."""

    title: ClassVar[str] = "Empirical influence"

    def score(
        self, index: LearningSubsets, queries: Examples, store: FeatureStore
    ) -> Iterator[Float[np.ndarray, "q b"]]:
        y = self.outcomes(index, queries)
        m, total = len(y), y.sum(axis=0)[:, None]
        for columns in in_blocks(index.mask.shape[1], store.rows_together(BLOCK)):
            mask = index.mask[:, columns].astype(np.float64)
            count, inside = mask.sum(axis=0), y.T @ mask
            if not ((count > 0) & (count < m)).all():
                image = columns.start + int(np.argmin((count > 0) & (count < m)))
                raise DataError(
                    f"Training image {image} is in all or in none of the {m} subsets to learn from: its "
                    "effect cannot be seen. Train more subsets.",
                    hint="Use `headwater bank build BANK --learning N`.",
                )
            yield (total - inside) / (m - count) - inside / count
