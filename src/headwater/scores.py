"""Scores τ[q, i]: the estimated rise of query q's loss when training image i is removed. Positive = proponent; numpy only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from headwater.errors import NonFiniteError, OptionError


class Ranked(NamedTuple):
    """For each query, `k` training rows and their scores, the strongest first."""

    rows: Int64[np.ndarray, "q k"]
    values: Float32[np.ndarray, "q k"]


@dataclass(frozen=True, eq=False)
class Scores:
    """All scores of a run, `[query, train]` in input order, with the names of both sides.

    `self_scores` are τ[i, i] of the training images; `provenance` is what ran: method, fields, fingerprints, seconds.
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
                f"The score of query {self.query_ids[query]} and training image {self.train_ids[row]} is not finite."
            )

    def top(self, k: int = 10) -> Ranked:
        """The k strongest proponents of each query."""
        return top([self.values], k)

    def bottom(self, k: int = 10) -> Ranked:
        """The k strongest opponents of each query, the most negative first."""
        rows, values = top([-self.values], k)
        return Ranked(rows, -values)


def top(blocks: Iterable[Float[np.ndarray, "q b"]], k: int) -> Ranked:
    """The k largest scores of each query over blocks of consecutive training rows; equal scores keep input order."""
    if k < 1:
        raise OptionError(f"k is {k}; expected 1 or more.")
    best: Ranked | None = None
    start = 0
    for block in blocks:
        rows = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        values = np.asarray(block, np.float32)
        if best is not None:
            rows, values = np.concatenate([best.rows, rows], 1), np.concatenate([best.values, values], 1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        best = Ranked(np.take_along_axis(rows, order, 1), np.take_along_axis(values, order, 1))
        start += block.shape[1]
    if best is None:
        raise OptionError("There are no score blocks to rank.")
    return best


def dense(blocks: Iterable[Float[np.ndarray, "*λ q b"]]) -> Float32[np.ndarray, "*λ q n"]:
    """All blocks side by side."""
    return np.concatenate([np.asarray(block, np.float32) for block in blocks], axis=-1)
