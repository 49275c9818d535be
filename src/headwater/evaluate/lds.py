"""The linear datamodeling score (LDS): do scores predict what retraining on a subset does?

Park et al. 2023, arXiv:2303.14186; D-TRAK paper, definition 2.

A score is the rise in loss when a training image is removed, so −Σ_{i∈A} τ[q, i] predicts the loss of a model trained on subset A.
LDS(q) is Spearman's correlation of that with the losses of models really trained on the bank's subsets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64

from headwater.bank import Bank
from headwater.errors import DataError
from headwater.linalg.rank import Interval, interval, resamples, spearman

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class LDS:
    """LDS of each query, and under `RESAMPLES` resamplings of the subsets: the same ones for all methods, so differences pair.

    `resampled` makes the latter, `[r, q]`; it is called when an interval is first asked for, since sweeps ask for few.
    """

    per_query: Float64[np.ndarray, " q"]
    resampled: Callable[[], Float64[np.ndarray, "r q"]]

    @cached_property
    def bootstrap(self) -> Float64[np.ndarray, "r q"]:
        return self.resampled()

    def mean(self, queries: Bool[np.ndarray, " q"] | None = None) -> Interval:
        """Mean over (some) queries with a 95 % interval over subsets."""
        chosen = slice(None) if queries is None else queries
        return interval(float(self.per_query[chosen].mean()), self.bootstrap[:, chosen].mean(axis=1))


def lds(scores: Float[np.ndarray, "q n"], subsets: Bool[np.ndarray, "m n"], outcomes: Float[np.ndarray, "m q"]) -> LDS:
    """LDS of every query against outcomes measured on the subsets."""
    predicted = -(scores.astype(np.float64) @ subsets.T.astype(np.float64))
    measured = outcomes.T.astype(np.float64)
    picks = resamples(len(subsets), RESAMPLES, "subsets")
    return LDS(spearman(predicted, measured), lambda: np.stack([spearman(predicted[:, pick], measured[:, pick]) for pick in picks]))


def difference(a: LDS, b: LDS, queries: Bool[np.ndarray, " q"] | None = None) -> Interval:
    """Mean LDS of a minus that of b, with its paired bootstrap interval over subsets."""
    return LDS(a.per_query - b.per_query, lambda: a.bootstrap - b.bootstrap).mean(queries)


def against(bank: Bank, scores: Float[np.ndarray, "q n"], leave_out: Sequence[int] = (), measurement: str = "simple") -> LDS:
    """LDS of scores for the bank's own queries; subsets that a method learned from are left out."""
    if scores.shape[1] != bank.subsets.shape[1]:
        raise DataError(f"The scores are for {scores.shape[1]} training images; the bank has {bank.subsets.shape[1]}.")
    rows = [m for m in bank.rows() if m not in set(leave_out)]
    if len(rows) < 3:
        raise DataError(
            f"The bank has {len(rows)} trained subsets to compare with; expected at least 3. Go on with `headwater bank build`."
        )
    outcomes = bank.outcomes(measurement)[np.ix_(rows, bank.seeds())].astype(np.float64).mean(axis=1)
    return lds(scores, bank.subsets[rows], outcomes)


def ceiling(bank: Bank, measurement: str = "simple") -> LDS | None:
    """How well one seed predicts another: the mean Spearman correlation between seeds, per query; None with a single seed.

    No method can be expected to correlate with a mean of S seeds much better than √(Sρ/(1+(S−1)ρ)), where ρ is this.
    """
    outcomes = bank.finished(measurement)
    m, s, _ = outcomes.shape
    if s < 2:
        return None
    picks = np.concatenate([np.arange(m)[None], resamples(m, RESAMPLES, "subsets")])
    pairs = [(a, b) for a in range(s) for b in range(a)]
    each = [np.mean([spearman(outcomes[pick, a].T, outcomes[pick, b].T) for a, b in pairs], axis=0) for pick in picks]
    return LDS(each[0], lambda: np.stack(each[1:]))
