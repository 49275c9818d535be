"""What patches weigh among parts of the training images, so that more images can come without all being compared again.

Of a part P of the images, ln Z_P[a] = ln Σ_{b ∈ P} exp(−D(a, b)/2σ²), and w_P[a, i], what image i explains of patch a among the
part alone. Normalisers merge: Z = Σ_P Z_P, w[a, i] = w_P[a, i] · Z_P[a]/Z[a].
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headwater.disk.store import FeatureStore
from headwater.patches import rows as patch_rows
from headwater.patches.answers import TOGETHER, Asked, Rows, answers, blocks
from headwater.patches.compiled.displaced import LANES
from headwater.patches.posterior import Explained, Patches, Question, Shares, Tally
from headwater.patches.views import Views

PART = 8 * LANES  # images of a part at most
NUMBERS = 2**20  # of a row at most, where even LANES images do not have more
WAITING = 8 * TOGETHER  # queries whose parts are merged together


def grown(what: Asked, places: Int64[np.ndarray, " n"], settings: Mapping[str, object], store: FeatureStore) -> Iterator[Rows]:
    """`patch_queries.rows`, by parts of the training images in the order of `places`, the rows of each kept."""
    patches, shape = Patches(what.step.size, what.step.coarse), what.train.shape[1:]
    number = math.prod(side.number for side in patches.windows(*shape))
    columns = [places[part] for part in parts(len(places), number)]
    trains = [what.train.take(each) for each in columns]
    for low in range(0, len(what.queries), WAITING):
        queries = what.queries.take(range(low, min(low + WAITING, len(what.queries))))

        def shares(j: int, queries: Views = queries) -> Iterator[list[Shares]]:
            def compute(positions: list[int]) -> Iterator[Rows]:
                asked = what._replace(train=trains[j], queries=queries.take(positions))
                yield from blocks(_shares, asked, store)

            own = {**settings, "train": trains[j].fingerprint, "what": "shares among a part"}
            found = replace(store, dtype="float32").rows(own, queries.hashes, compute)
            return (unpacked(row, len(trains[j]), max(1, what.step.noises)) for row in found)

        yield np.array([patch_rows.packed(each) for each in merged(patches, shape, columns, shares)])


def _shares(what: Asked, part: slice) -> Rows:
    return np.array([packed(each) for each in answers(what, part, Question.shares)])


def parts(n: int, patches: int) -> list[slice]:
    """The first, the next, … of n images, for pictures of so many patches: all but the last stay what they are when n grows."""
    size = max(LANES, min(PART, NUMBERS // patches // LANES * LANES))
    return [slice(low, min(n, low + size)) for low in range(0, n, size)]


def packed(each: Sequence[Shares]) -> Float32[np.ndarray, " _"]:
    """The row of a query's noises among a part: for each, its evidence, then its shares."""
    return np.concatenate([part for one in each for part in (*patch_rows.halves(one.evidence), one.shares.ravel())])


def unpacked(row: Float32[np.ndarray, " _"], b: int, noises: int) -> list[Shares]:
    """What `packed` put together, of b images."""
    each = row.reshape(noises, 2 + b, -1)
    return [Shares(patch_rows.joined(one[:2]), one[2:].reshape(-1, b)) for one in each]


def merged(
    patches: Patches,
    shape: tuple[int, int],
    places: Sequence[Int64[np.ndarray, " _"]],
    shares: Callable[[int], Iterator[list[Shares]]],
) -> list[list[Explained]]:
    """For every query and each of its noises, what the images at all places explain; shares(j) are those of part j, by query.

    They are asked for twice: for their evidence, and when all of it is known.
    """
    each_part = (np.array([[noise.evidence for noise in query] for query in shares(j)]) for j in range(len(places)))
    evidence: Float64[np.ndarray, "q r a"] = reduce(np.logaddexp, each_part)
    n = sum(len(each) for each in places)
    tallies = [[Tally.of(patches, shape, n) for _ in query] for query in evidence]
    for j, columns in enumerate(places):
        for each, wholes, query in zip(tallies, evidence, shares(j), strict=True):
            for tally, whole, noise in zip(each, wholes, query, strict=True):
                tally.add(columns, noise.shares * np.exp(noise.evidence - whole)[:, None])
    return [
        [Explained(tally.scores, whole, tally.leaders) for tally, whole in zip(each, wholes, strict=True)]
        for each, wholes in zip(tallies, evidence, strict=True)
    ]
