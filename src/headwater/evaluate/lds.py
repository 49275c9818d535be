"""The linear datamodeling score (LDS): do scores predict what retraining on a subset does?

Park et al. 2023, arXiv:2303.14186; D-TRAK paper, definition 2.

A score is the rise in loss when a training image is removed, so −Σ_{i∈A} τ[q, i] predicts the loss of a model
trained on subset A. LDS(q) is Spearman's correlation of that with the losses of models really trained on the
bank's subsets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from headwater.bank import Bank
from headwater.errors import DataError, NonFiniteError
from headwater.linalg.rank import Interval, interval, resamples, spearman, spearman_resampled

RESAMPLES = 1000
BLOCK = 2**20  # scores that are float64 at a time

Chosen = Bool[np.ndarray, " q"] | None  # True for the chosen queries; None = all


@dataclass(frozen=True, eq=False)
class LDS:
    """LDS of each query, and under `RESAMPLES` resamplings of the subsets, the same for all methods.

    `resampled` computes the resampled LDS, `[r, q]`; it is called when an interval is first needed, for
    sweeps need few.
    """

    per_query: Float64[np.ndarray, " q"]
    resampled: Callable[[], Float64[np.ndarray, "r q"]]

    @cached_property
    def bootstrap(self) -> Float64[np.ndarray, "r q"]:
        return self.resampled()

    def of(self, queries: Chosen = None) -> Float64[np.ndarray, " chosen"]:
        """LDS of the chosen queries."""
        return self.per_query if queries is None else self.per_query[queries]

    def means(self, queries: Chosen = None) -> Float64[np.ndarray, " r"]:
        """The mean over the chosen queries under every resampling of the subsets."""
        return (self.bootstrap if queries is None else self.bootstrap[:, queries]).mean(axis=1)

    def mean(self, queries: Chosen = None) -> Interval:
        """Mean over the chosen queries with a 95 % interval over subsets, as in D-TRAK."""
        return interval(self.of(queries).mean(), self.means(queries))

    def mean_over_queries(self, queries: Chosen = None) -> Interval:
        """Mean over the chosen queries with a 95 % interval over queries of the same kind."""
        values = self.of(queries)
        return interval(values.mean(), values[resamples(len(values), RESAMPLES, "queries")].mean(axis=1))

    def standard_error(self, queries: Chosen = None) -> float:
        """Standard deviation over queries / √q, q ≥ 2: the ± of the K-FAC paper, arXiv:2410.13850."""
        values = self.of(queries)
        return float(values.std(ddof=1) / np.sqrt(len(values)))


class LDSComparison(NamedTuple):
    """Mean LDS of one method minus another's, and the shares of queries where it is above and below."""

    over_subsets: Interval
    over_queries: Interval
    above: float
    below: float


class Retrainings(NamedTuple):
    """Subsets of a bank, and the outcomes of the models that were retrained on them."""

    subsets: Bool[np.ndarray, "m n"]
    outcomes: Float64[np.ndarray, "m s q"]


def lds(
    scores: Float[np.ndarray, "q n"], subsets: Bool[np.ndarray, "m n"], outcomes: Float[np.ndarray, "m q"]
) -> LDS:
    """LDS of every query against outcomes measured on the subsets."""
    return correlated(predicted(scores, subsets), outcomes)


def predicted(
    scores: Float[np.ndarray, "q n"], subsets: Bool[np.ndarray, "m n"], *, block: int = BLOCK
) -> Float64[np.ndarray, "m q"]:
    """−Σ_{i∈A} τ[q, i] for every subset A, summed in float64, `block` scores at a time."""
    masks = subsets.astype(np.float64)
    step = max(1, block // scores.shape[1])
    blocks = (scores[i : i + step].T.astype(np.float64) for i in range(0, len(scores), step))
    return np.concatenate([-(masks @ block) for block in blocks], axis=1)


def correlated(predictions: Float[np.ndarray, "m q"], outcomes: Float[np.ndarray, "m q"]) -> LDS:
    """The LDS of any predictions of the outcomes."""
    a, b = predictions.T.astype(np.float64), outcomes.T.astype(np.float64)
    return LDS(
        spearman(a, b), lambda: spearman_resampled(a, b, resamples(len(outcomes), RESAMPLES, "subsets"))
    )


def mean_of(terms: Sequence[LDS]) -> LDS:
    """The mean of several LDS of the same queries."""
    per_query = np.mean([term.per_query for term in terms], axis=0)
    return LDS(per_query, lambda: np.mean([term.bootstrap for term in terms], axis=0))


def minus(a: LDS, b: LDS) -> LDS:
    """a − b, query by query and resample by resample."""
    return LDS(a.per_query - b.per_query, lambda: a.bootstrap - b.bootstrap)


def difference(a: LDS, b: LDS, queries: Chosen = None) -> Interval:
    """Mean LDS of a minus mean LDS of b, with its paired bootstrap interval over subsets."""
    return minus(a, b).mean(queries)


def compare_lds(a: LDS, b: LDS, queries: Chosen = None) -> LDSComparison:
    """a − b on the chosen queries. Both must have been measured on the same subsets and queries."""
    gap = minus(a, b)
    values = gap.of(queries)
    above, below = float((values > 0).mean()), float((values < 0).mean())
    return LDSComparison(gap.mean(queries), gap.mean_over_queries(queries), above, below)


def retrainings(bank: Bank, leave_out: Sequence[int] = (), measurement: str = "simple") -> Retrainings:
    """The bank's trained subsets except those left out, and the outcomes of every seed."""
    rows = [m for m in bank.rows() if m not in set(leave_out)]
    if len(rows) < 3:
        raise DataError(
            f"The bank has {len(rows)} trained subsets to compare with; expected at least 3.",
            hint="Go on with `headwater bank build`.",
        )
    outcomes = bank.outcomes(measurement)[np.ix_(rows, bank.seeds())].astype(np.float64)
    if outcomes.ndim != 3:
        raise DataError(f"'{measurement}' has several numbers a query; expected one, as 'simple' has.")
    if not np.isfinite(outcomes).all():
        raise NonFiniteError(
            f"The outcomes of '{measurement}' hold NaN or infinity for trained models. Measure them again."
        )
    return Retrainings(bank.subsets[rows], outcomes)


def against(
    bank: Bank, scores: Float[np.ndarray, "q n"], leave_out: Sequence[int] = (), measurement: str = "simple"
) -> LDS:
    """LDS of scores of the bank's queries; `leave_out`: the subsets that a method has learned from."""
    if scores.shape[1] != bank.subsets.shape[1]:
        raise DataError(
            f"The scores are for {scores.shape[1]} training images; the bank has {bank.subsets.shape[1]}."
        )
    subsets, outcomes = retrainings(bank, leave_out, measurement)
    return lds(scores, subsets, outcomes.mean(axis=1))


def ceiling(bank: Bank, measurement: str = "simple", leave_out: Sequence[int] = ()) -> LDS | None:
    """The mean Spearman correlation between two seeds, per query; None with a single seed."""
    seeds = _by_seed(bank, measurement, leave_out)
    return mean_of([correlated(a, b) for a, b in combinations(seeds, 2)]) if len(seeds) > 1 else None


def oracle(bank: Bank, measurement: str = "simple", leave_out: Sequence[int] = ()) -> LDS | None:
    """The LDS of a real retraining: each seed predicts the mean of the others. None with a single seed.

    The last row of the K-FAC paper's figure 2. With two seeds it is the ceiling.
    """
    seeds = _by_seed(bank, measurement, leave_out)
    if len(seeds) < 2:
        return None
    rests = [np.mean(seeds[:s] + seeds[s + 1 :], axis=0) for s in range(len(seeds))]
    return mean_of([correlated(seed, rest) for seed, rest in zip(seeds, rests, strict=True)])


def reachable(agreement: float, seeds: int) -> float:
    """√(Sρ/(1+(S−1)ρ)): the LDS of perfect scores against the mean of S seeds with agreement ρ."""
    rho = max(0.0, agreement)
    return float(np.sqrt(seeds * rho / (1 + (seeds - 1) * rho)))


def _by_seed(bank: Bank, measurement: str, leave_out: Sequence[int]) -> list[Float64[np.ndarray, "m q"]]:
    return list(retrainings(bank, leave_out, measurement).outcomes.swapaxes(0, 1))
