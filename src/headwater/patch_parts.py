"""What patches weigh among parts of the training images, so that more images can come without all being compared again.

Of a part P of the images, ln Z_P[a] = ln Σ_{b ∈ P} exp(−D(a, b)/2σ²), and w_P[a, i], what image i explains of patch a among the
part alone. Normalisers merge: Z = Σ_P Z_P, w[a, i] = w_P[a, i] · Z_P[a]/Z[a].
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from headwater import patch_rows
from headwater.features import in_order
from headwater.linalg.displaced import LANES
from headwater.patchwise import Explained, Hands, Noisy, Patches, Question, Shares, Step, Tally, hands
from headwater.store import FeatureStore
from headwater.views import Views

TOGETHER = 8  # queries that are kept together in the store
PART = 8 * LANES  # images of a part at most
NUMBERS = 2**20  # of a row at most, where even LANES images do not have more
WAITING = 8 * TOGETHER  # queries whose parts are merged together

Rows = Float32[np.ndarray, "b _"]
Found = TypeVar("Found")


class Asked(NamedTuple):
    """Queries at one step."""

    step: Step
    alpha_bar: float
    train: Views
    queries: Views
    memory: int


def rows(what: Asked, store: FeatureStore) -> Iterator[Rows]:
    """`patch_rows.packed` of every query, some at a time."""
    return _blocks(_rows, what, store)


def _blocks(rows: Callable[[Asked, slice], Rows], what: Asked, store: FeatureStore) -> Iterator[Rows]:
    """Rows of all queries, TOGETHER at a time, from all who work."""
    parts = [slice(low, low + TOGETHER) for low in range(0, len(what.queries), TOGETHER)]
    if store.crew is None:
        yield from (rows(what, part) for part in parts)
    else:
        yield from in_order(store.crew.work(rows, what, parts), parts)


def _answers(what: Asked, part: slice, answer: Callable[[Question, Noisy, Views, Hands], Found]) -> Iterator[list[Found]]:
    """Of some queries, what is answered for each of their noises."""
    question = what.step.question(what.memory)
    with hands(torch.get_num_threads()) as workers:
        for x, content in zip(what.queries.part(part), what.queries.hashes[part], strict=True):
            noises = what.step.noised(x, content, what.alpha_bar)
            yield [answer(question, noisy, what.train, workers) for noisy in noises]


def _rows(what: Asked, part: slice) -> Rows:
    return np.array([patch_rows.packed(each) for each in _answers(what, part, Question.answer)])


def grown(what: Asked, places: Int64[np.ndarray, " n"], settings: Mapping[str, object], store: FeatureStore) -> Iterator[Rows]:
    """`rows`, by parts of the training images in the order of `places`, the rows of each kept."""
    patches, shape = Patches(what.step.size, what.step.coarse), what.train.shape[1:]
    number = math.prod(side.number for side in patches.windows(*shape))
    columns = [places[part] for part in parts(len(places), number)]
    trains = [what.train.take(each) for each in columns]
    for low in range(0, len(what.queries), WAITING):
        queries = what.queries.take(range(low, min(low + WAITING, len(what.queries))))

        def shares(j: int, queries: Views = queries) -> Iterator[list[Shares]]:
            def compute(positions: list[int]) -> Iterator[Rows]:
                asked = what._replace(train=trains[j], queries=queries.take(positions))
                yield from _blocks(_shares, asked, store)

            own = {**settings, "train": trains[j].fingerprint, "what": "shares among a part"}
            found = replace(store, dtype="float32").rows(own, queries.hashes, compute)
            return (unpacked(row, len(trains[j]), max(1, what.step.noises)) for row in found)

        yield np.array([patch_rows.packed(each) for each in merged(patches, shape, columns, shares)])


def _shares(what: Asked, part: slice) -> Rows:
    return np.array([packed(each) for each in _answers(what, part, Question.shares)])


def parts(n: int, patches: int) -> list[slice]:
    """The first, the next, … of n images, for pictures of so many patches: all but the last stay what they are when n grows."""
    size = max(LANES, min(PART, NUMBERS // patches // LANES * LANES))
    return [slice(low, min(n, low + size)) for low in range(0, n, size)]


def packed(each: Sequence[Shares]) -> Float32[np.ndarray, " _"]:
    """The row of a query's noises among a part. Evidence is two numbers, the second what the first leaves in float32."""
    found: list[np.ndarray] = []
    for one in each:
        high = one.evidence.astype(np.float32)
        found += [high, one.evidence - high, one.shares.ravel()]
    return np.concatenate(found).astype(np.float32)


def unpacked(row: Float32[np.ndarray, " _"], b: int, noises: int) -> list[Shares]:
    """What `packed` put together, of b images."""
    each = row.reshape(noises, 2 + b, -1)
    return [Shares(one[0] + one[1].astype(np.float64), one[2:].reshape(-1, b)) for one in each]


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
