"""The row of float32 numbers that the store has of a query at one step: its scores, and what its maps are
computed from."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from headwater.patches.explained import LISTED, Explained
from headwater.patches.tiles import TILES, Foremost, edges


class QueryRow(NamedTuple):
    """A row over n training images: the mean scores of a query's noises, and the evidence and leaders of each
    noise."""

    scores: Float64[np.ndarray, " n"]
    evidence: list[Float64[np.ndarray, " a"]]
    leaders: list[Foremost]


def pack_explained(noises: Sequence[Explained]) -> Float32[np.ndarray, " _"]:
    """The row of a query's noises: the mean of their scores, then for each its evidence and its leaders."""
    parts: list[np.ndarray] = [np.mean([explained.scores for explained in noises], axis=0)]
    for _, evidence, leaders in noises:
        parts += [*split_evidence(evidence), leaders.value.ravel(), leaders.column.ravel()]
    return np.concatenate(parts).astype(np.float32)


def unpack_explained(row: Float32[np.ndarray, " _"], n: int, noises: int, shape: tuple[int, int]) -> QueryRow:
    """The inverse of `pack_explained`, for pictures of this height and width."""
    tiles, listed = math.prod(len(edges(side, TILES)) - 1 for side in shape), min(LISTED, n)
    unpacked = QueryRow(row[:n].astype(np.float64), [], [])
    for part in row[n:].astype(np.float64).reshape(noises, -1):
        evidence, leaders = np.split(part, [len(part) - 2 * tiles * listed])
        value, column = leaders.reshape(2, tiles, listed)
        unpacked.evidence.append(join_evidence(evidence.reshape(2, -1)))
        unpacked.leaders.append(Foremost(value, column.astype(np.int64)))
    return unpacked


def split_evidence(evidence: Float64[np.ndarray, " a"]) -> Float32[np.ndarray, "2 a"]:
    """Evidence as its float32 value and the remainder: it is thousands of nats where there is hardly any
    noise."""
    high = evidence.astype(np.float32)
    return np.array([high, evidence - high], np.float32)


def join_evidence(halves: Float[np.ndarray, "2 a"]) -> Float64[np.ndarray, " a"]:
    """The inverse of `split_evidence`."""
    return halves.sum(0, dtype=np.float64)
