"""How often the most-credited group is the query's own group, next to the rates expected by chance."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from headwater import seeds
from headwater.credit.shares import Credit, dealt

DEALS = 2000  # for all pictures together: the standard error of `random` is at most 1.1 percentage points
WIDTH = 1.959964  # standard deviations on each side of 95 % of a normal distribution


class Right(NamedTuple):
    """`right` of `pictures` have the largest share in their own group; Wilson's 95 % interval of the `rate`.

    Rates without attribution: `even` names the group of a random training image, `largest` always names the
    group with the most images, `random` deals the names out at random among these scores.
    """

    pictures: int
    right: int
    rate: float
    low: float
    high: float
    even: float
    largest: float
    random: float


def right(
    credit: Credit, groups: Sequence[str | None], queries: Sequence[int] | Int64[np.ndarray, " c"]
) -> Right | None:
    """The rates over the queries with shares whose group has training images; None where there are none.

    `groups`: the group of each query. Of equal shares the first by name counts, as in a table. Cost: 2,000·n
    random numbers, or n for each query if that is more.
    """
    place: dict[str | None, int] = {group: g for g, group in enumerate(credit.groups)}
    rows = [row for row in np.asarray(queries).tolist() if groups[row] in place and credit.share[row, 0] >= 0]
    if not rows:
        return None
    truth = np.array([place[groups[row]] for row in rows], np.int64)
    m, hits = len(rows), int((credit.share[rows].argmax(axis=1) == truth).sum())
    low, high = wilson(hits, m)
    chance = [
        _by_chance(credit, row, g, math.ceil(DEALS / m)) for row, g in zip(rows, truth.tolist(), strict=True)
    ]
    even, largest = credit.even[truth].mean(), (truth == credit.images.argmax()).mean()
    return Right(m, hits, hits / m, low, high, float(even), float(largest), float(np.mean(chance)))


def wilson(hits: int, m: int) -> tuple[float, float]:
    """All rates p with |hits − mp| ≤ z·√(mp(1−p)): the 95 % interval of `hits` in `m` (Wilson 1927)."""
    z = WIDTH**2
    middle, half = hits + z / 2, WIDTH * math.sqrt(hits * (m - hits) / m + z / 4)
    return max(0.0, (middle - half) / (m + z)), min(1.0, (middle + half) / (m + z))


def _by_chance(credit: Credit, row: int, group: int, deals: int) -> float:
    """How often `group` leads with the names dealt out at random, by a stream named after the scores."""
    gains: Float64[np.ndarray, " n"] = np.sort(np.maximum(credit.values[row], 0)).astype(np.float64)
    stream = seeds.generator(
        0, "credit", "right", hashlib.blake2b(gains.tobytes(), digest_size=12).hexdigest()
    )
    step = max(1, credit.block // len(credit.groups))
    parts = (
        dealt(gains[None], credit.images, stream, min(step, deals - i), block=credit.block)[:, :, 0]
        for i in range(0, deals, step)
    )
    return sum(int((sums.argmax(axis=1) == group).sum()) for sums in parts) / deals
