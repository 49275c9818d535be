"""Weights of patches among parts of the training images: when images are added, only the parts that they
change are compared.

A part P of the images has ln Z_P[a] = ln Σ_{b ∈ P} exp(−D(a, b)/2σ²), and w_P[a, i], the share of image i in
patch a among the part alone. Normalisers merge: Z = Σ_P Z_P, w[a, i] = w_P[a, i] · Z_P[a]/Z[a]."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headwater.disk.store import FeatureStore
from headwater.patches.answers import TOGETHER, Rows, StepInputs, answers, blocks
from headwater.patches.compiled.displaced import LANES
from headwater.patches.explained import Explained, Tally
from headwater.patches.geometry import Patches
from headwater.patches.posterior import PatchPosterior, Shares
from headwater.patches.rows import join_evidence, pack_explained, split_evidence
from headwater.patches.views import Views

PART = 8 * LANES  # images of a part at most
NUMBERS = 2**20  # of a row at most, unless LANES images alone have more
WAITING = 8 * TOGETHER  # queries whose parts are merged together


def growing_rows(
    inputs: StepInputs, places: Int64[np.ndarray, " n"], settings: Mapping[str, object], store: FeatureStore
) -> Iterator[Rows]:
    """`answers.rows`, computed by parts of the training images in the order of `places`; the store keeps the
    rows of each part."""
    patches, shape = Patches(inputs.step.size, inputs.step.coarse), inputs.train.shape[1:]
    number = math.prod(side.number for side in patches.windows(*shape))
    columns = [places[part] for part in part_slices(len(places), number)]
    trains = [inputs.train.take(part) for part in columns]
    for low in range(0, len(inputs.queries), WAITING):
        queries = inputs.queries.take(range(low, min(low + WAITING, len(inputs.queries))))

        def shares(j: int, queries: Views = queries) -> Iterator[list[Shares]]:
            def compute(positions: list[int]) -> Iterator[Rows]:
                yield from blocks(
                    _shares, inputs._replace(train=trains[j], queries=queries.take(positions)), store
                )

            part_settings = {**settings, "train": trains[j].fingerprint, "what": "shares among a part"}
            rows = replace(store, dtype="float32").rows(part_settings, queries.hashes, compute)
            return (unpack_shares(row, len(trains[j]), max(1, inputs.step.noises)) for row in rows)

        yield np.array([pack_explained(noises) for noises in merge_parts(patches, shape, columns, shares)])


def _shares(inputs: StepInputs, part: slice) -> Rows:
    return np.array([pack_shares(noises) for noises in answers(inputs, part, PatchPosterior.shares)])


def part_slices(n: int, patches: int) -> list[slice]:
    """The parts of n images, for pictures of this number of patches: all but the last stay the same when n
    grows."""
    size = max(LANES, min(PART, NUMBERS // patches // LANES * LANES))
    return [slice(low, min(n, low + size)) for low in range(0, n, size)]


def pack_shares(noises: Sequence[Shares]) -> Float32[np.ndarray, " _"]:
    """The row of a query's noises among a part: for each, its evidence, then its shares."""
    return np.concatenate(
        [part for noise in noises for part in (*split_evidence(noise.evidence), noise.shares.ravel())]
    )


def unpack_shares(row: Float32[np.ndarray, " _"], b: int, noises: int) -> list[Shares]:
    """The inverse of `pack_shares`, for b images."""
    return [
        Shares(join_evidence(part[:2]), part[2:].reshape(-1, b)) for part in row.reshape(noises, 2 + b, -1)
    ]


def merge_parts(
    patches: Patches,
    shape: tuple[int, int],
    places: Sequence[Int64[np.ndarray, " _"]],
    shares: Callable[[int], Iterator[list[Shares]]],
) -> list[list[Explained]]:
    """For every query and each of its noises, what the images at all places explain; shares(j) are of part j,
    by query.

    `shares` is called twice for each part: for the evidence, and when all evidence is known.
    """
    by_part = (
        np.array([[noise.evidence for noise in query] for query in shares(j)]) for j in range(len(places))
    )
    evidence: Float64[np.ndarray, "q r a"] = reduce(np.logaddexp, by_part)
    n = sum(len(columns) for columns in places)
    tallies = [[Tally.of(patches, shape, n) for _ in query] for query in evidence]
    for j, columns in enumerate(places):
        for query_tallies, totals, query in zip(tallies, evidence, shares(j), strict=True):
            for tally, total, noise in zip(query_tallies, totals, query, strict=True):
                tally.add(columns, noise.shares * np.exp(noise.evidence - total)[:, None])
    return [
        [
            Explained(tally.scores, total, tally.leaders)
            for tally, total in zip(query_tallies, totals, strict=True)
        ]
        for query_tallies, totals in zip(tallies, evidence, strict=True)
    ]
