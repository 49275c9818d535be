"""Scores τ[q, i]: the estimated rise of query q's loss without training image i. Positive: proponent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from headwater.credit.shares import Credit, by_group
from headwater.errors import NonFiniteError, OptionError


class Ranked(NamedTuple):
    """For each query, `k` training rows and their scores, the strongest first."""

    rows: Int64[np.ndarray, "q k"]
    values: Float32[np.ndarray, "q k"]


@dataclass(frozen=True, eq=False)
class Scores:
    """All scores of a run, `[query, train]` in input order, with the ids of both.

    `self_scores` are τ[i, i] of the training images, NaN for a method without them; `provenance` records the
    run: method, fields, fingerprints, seconds.
    """

    values: Float32[np.ndarray, "q n"]
    query_ids: tuple[str, ...]
    train_ids: tuple[str, ...]
    self_scores: Float32[np.ndarray, " n"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bad = np.argwhere(~np.isfinite(self.values))
        if len(bad):
            query, row = bad[0]
            raise NonFiniteError(
                f"The score of query {self.query_ids[query]} and training image {self.train_ids[row]} is not "
                "finite."
            )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, for NumPy and whatever takes its arrays."""
        return np.array(self.values, dtype=dtype, copy=copy)

    def top(self, k: int = 10) -> Ranked:
        """The k strongest proponents of each query."""
        return top([self.values], k)

    def bottom(self, k: int = 10) -> Ranked:
        """The k strongest opponents of each query, the most negative first."""
        rows, values = top([-self.values], k)
        return Ranked(rows, -values)

    def credit(self, groups: Sequence[str | int] | np.ndarray) -> Credit:
        """The scores summed by group: share(q, g) = Σ_{i∈g} max(τ[q, i], 0) / Σ_i max(τ[q, i], 0).

        `groups` names each training image's group, in order: `train.groups`, `train.labels`, artists …
        """
        return by_group(self.values, groups)


def top(blocks: Iterable[Float[np.ndarray, "q _"]], k: int) -> Ranked:
    """The k largest scores of each query over consecutive blocks of training rows; ties keep input order."""
    return ends(blocks, k)[0]


def ends(blocks: Iterable[Float[np.ndarray, "q _"]], k: int) -> tuple[Ranked, Ranked]:
    """The k largest and k smallest scores of each query in one pass; memory for a block and 2qk numbers."""
    if k < 1:
        raise OptionError(f"k is {k}; expected 1 or more.")
    best: Ranked | None = None
    worst: Ranked | None = None
    start = 0
    for block in blocks:
        values = np.asarray(block, np.float32)
        best, worst = _merged(best, values, start, k), _merged(worst, -values, start, k)
        start += values.shape[1]
    if best is None or worst is None:
        raise OptionError("There are no score blocks to rank.")
    return best, Ranked(worst.rows, -worst.values)


def _merged(best: Ranked | None, values: Float32[np.ndarray, "q b"], start: int, k: int) -> Ranked:
    """`best` merged with a further block, whose first training row is `start`."""
    if best is None:
        nothing = np.zeros((len(values), 0), np.float32)
        best = Ranked(nothing.astype(np.int64), nothing)
    rows, scores = [], []
    for row, best_rows, best_values in zip(values, *best, strict=True):
        if len(best_values) == k:  # a later equal score does not displace an earlier one
            places = np.flatnonzero(row > best_values[-1])
        else:
            places = np.flatnonzero(row >= np.partition(row, -k)[-k]) if len(row) > k else np.arange(len(row))
        all_rows = np.concatenate([best_rows, places + start])
        all_values = np.concatenate([best_values, row[places]])
        order = np.argsort(-all_values, kind="stable")[:k]
        rows.append(all_rows[order])
        scores.append(all_values[order])
    return Ranked(np.stack(rows), np.stack(scores))


def dense(blocks: Iterable[Float[np.ndarray, "*λ q _"]]) -> Float32[np.ndarray, "*λ q n"]:
    """All blocks side by side."""
    return np.concatenate([np.asarray(block, np.float32) for block in blocks], axis=-1)
