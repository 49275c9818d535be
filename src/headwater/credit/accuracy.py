"""How often the group with the largest share is the picture's own, where pictures have groups. Beside it, what no finding gives."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from headwater import seeds
from headwater.credit.shares import BLOCK, Credit, dealt

DEALS = 2000  # of all pictures together: the standard error of `random` is at most 1.1 percentage points
WIDTH = 1.959964  # standard deviations on each side of 95 % of a normal distribution


class Right(NamedTuple):
    """Of `pictures`, `right` have the largest share in their own group: `rate`, with Wilson's 95 % interval from `low` to `high`.

    What needs no scores: `even` is right as often as the group of a training image drawn at random, `largest` as always naming the
    group with the most images, `random` as these scores with the names dealt out at random.
    """

    pictures: int
    right: int
    rate: float
    low: float
    high: float
    even: float
    largest: float
    random: float


def right(credit: Credit, own: Sequence[str | None], queries: Sequence[int] | Int64[np.ndarray, " c"]) -> Right | None:
    """Counted over the queries that have shares and whose group is among the training images'; None where there are none.

    Equal shares: the first by name is taken, as in a table. Cost: 2,000·n random numbers, or n for each query if that is more.
    """
    place = {group: g for g, group in enumerate(credit.groups)}
    known = [(row, place[own[row]]) for row in np.asarray(queries).tolist() if own[row] in place and credit.share[row, 0] >= 0]
    if not known:
        return None
    rows, mine = np.array(known, np.int64).T
    m, hits = len(rows), int((credit.share[rows].argmax(axis=1) == mine).sum())
    low, high = wilson(hits, m)
    chance = [_by_chance(credit, row, g, math.ceil(DEALS / m)) for row, g in known]
    even, largest = credit.even[mine].mean(), (mine == credit.images.argmax()).mean()
    return Right(m, hits, hits / m, low, high, float(even), float(largest), float(np.mean(chance)))


def wilson(hits: int, m: int) -> tuple[float, float]:
    """The 95 % interval of a rate of `hits` in `m` (Wilson 1927): all rates p with |hits − mp| ≤ z·√(mp(1 − p))."""
    z = WIDTH**2
    middle, half = hits + z / 2, WIDTH * math.sqrt(hits * (m - hits) / m + z / 4)
    return max(0.0, (middle - half) / (m + z)), min(1.0, (middle + half) / (m + z))


def _by_chance(credit: Credit, row: int, own: int, deals: int) -> float:
    """How often `own` has the largest share with the names dealt out at random: by a stream of the scores' own name."""
    gains: Float64[np.ndarray, " n"] = np.sort(np.maximum(credit.values[row], 0)).astype(np.float64)
    stream = seeds.stream(0, "credit", "right", hashlib.blake2b(gains.tobytes(), digest_size=12).hexdigest())
    step = max(1, BLOCK // len(credit.groups))
    parts = (dealt(gains[None], credit.images, stream, min(step, deals - i))[:, :, 0] for i in range(0, deals, step))
    return sum(int((sums.argmax(axis=1) == own).sum()) for sums in parts) / deals
