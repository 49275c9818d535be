"""What is kept of a query at one step, as a row of float32 numbers: its scores, and what its maps are made of."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from headwater.patches.posterior import LISTED, Explained
from headwater.patches.tiles import TILES, Foremost, edges


def packed(each: Sequence[Explained]) -> Float32[np.ndarray, " _"]:
    """The row of a query's noises: the mean of their scores, then for each its evidence and its leaders."""
    parts: list[np.ndarray] = [np.mean([found.scores for found in each], axis=0)]
    for found in each:
        parts += [*halves(found.evidence), found.leaders.value.ravel(), found.leaders.column.ravel()]
    return np.concatenate(parts).astype(np.float32)


def halves(evidence: Float64[np.ndarray, " a"]) -> Float32[np.ndarray, "2 a"]:
    """Evidence as two numbers, the second what the first leaves: it is thousands of nats where there is hardly any noise."""
    high = evidence.astype(np.float32)
    return np.array([high, evidence - high], np.float32)


def joined(halves: Float[np.ndarray, "2 a"]) -> Float64[np.ndarray, " a"]:
    """What was in two halves."""
    return halves.sum(0, dtype=np.float64)


class Kept(NamedTuple):
    """A row of n training images: of a query's scores the mean, of each of its noises evidence and leaders."""

    scores: Float64[np.ndarray, " n"]
    evidence: list[Float64[np.ndarray, " a"]]
    leaders: list[Foremost]


def unpacked(row: Float32[np.ndarray, " _"], n: int, noises: int, shape: tuple[int, int]) -> Kept:
    """What `packed` put together, of pictures of this height and width."""
    tiles, listed = math.prod(len(edges(side, TILES)) - 1 for side in shape), min(LISTED, n)
    kept = Kept(row[:n].astype(np.float64), [], [])
    for part in row[n:].astype(np.float64).reshape(noises, -1):
        evidence, leaders = np.split(part, [len(part) - 2 * tiles * listed])
        value, column = leaders.reshape(2, tiles, listed)
        kept.evidence.append(joined(evidence.reshape(2, -1)))
        kept.leaders.append(Foremost(value, column.astype(np.int64)))
    return kept
