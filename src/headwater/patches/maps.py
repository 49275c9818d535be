"""Maps of queries, cached in the store: the images that lead in their tiles, and the patches by which these
explain them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from headwater.disk.store import FeatureStore
from headwater.patches.answers import Step
from headwater.patches.atlas import Atlas
from headwater.patches.compiled.displaced import LANES
from headwater.patches.noise import Noisy
from headwater.patches.posterior import Comparison, PatchPosterior
from headwater.patches.regions import Regions
from headwater.patches.rows import unpack_explained
from headwater.patches.threads import Threads
from headwater.patches.tiles import GRAIN, TILES, Foremost
from headwater.patches.views import Views
from headwater.workers import in_order

VERSION = 1  # of the numbers that given settings stand for
DRAWN = LANES  # training images with a map for each query: as many as are compared at once
BY_SCORE = 8  # the number that are chosen by score, whether they lead in a tile or not

Row = Float32[np.ndarray, " _"]
Rows = Float32[np.ndarray, "q _"]


class Level(NamedTuple):
    """One step and its weight in the scores."""

    step: Step
    weight: float
    alpha_bar: float


class MapInputs(NamedTuple):
    """Queries and training images, and the rows of the queries at every level."""

    levels: Sequence[Level]
    rows: list[Rows]
    train: Views
    queries: Views


def regions(
    levels: Sequence[Level],
    rows: Callable[[Step, Views], Rows],
    train: Views,
    queries: Views,
    store: FeatureStore,
) -> Regions:
    """The maps of all queries, from the store or computed out of their `rows` at every step."""
    steps = [{**asdict(level.step), "weight": level.weight, "alpha_bar": level.alpha_bar} for level in levels]
    settings = {
        "maps": steps,
        "train": train.fingerprint,
        "cut": [DRAWN, BY_SCORE, TILES, GRAIN],
        "version": VERSION,
    }

    def compute(positions: list[int]) -> Iterator[Rows]:
        batch = queries.take(positions)
        inputs = MapInputs(levels, [rows(level.step, batch) for level in levels], train, batch)
        parts = [slice(q, q + 1) for q in range(len(batch))]
        if store.crew is None:
            with Threads(torch.get_num_threads()) as threads:
                yield from (_mapped(inputs, part.start, threads)[None] for part in parts)
        else:
            yield from in_order(store.crew.work(_on_one_thread, inputs, parts), parts)

    maps = replace(store, dtype="float32").rows(settings, queries.hashes, compute)
    return _regions(maps, min(DRAWN, len(train)), *train.shape[1:])


def _on_one_thread(inputs: MapInputs, part: slice) -> Rows:
    """The row of one query, computed by a worker process on one thread."""
    with Threads(1) as threads:
        return _mapped(inputs, part.start, threads)[None]


def _mapped(inputs: MapInputs, q: int, threads: Threads) -> Row:
    """The map of one query as the row of numbers that `_regions` reads."""
    n, (_, h, w) = len(inputs.train), inputs.train.shape
    x, content = inputs.queries.part(slice(q, q + 1))[0], inputs.queries.hashes[q]
    scores, listed, jobs = np.zeros(n), [], []
    for (step, weight, alpha_bar), rows in zip(inputs.levels, inputs.rows, strict=True):
        row = unpack_explained(rows[q], n, max(1, step.noises), (h, w))
        scores += weight * row.scores
        noise_weight = weight / len(row.evidence)
        listed += [(noise_weight, leaders) for leaders in row.leaders]
        noises = zip(step.noised(x, content, alpha_bar), row.evidence, strict=True)
        jobs += [(step.comparison(0), noisy, evidence, noise_weight) for noisy, evidence in noises]
    most = at_most(listed, n)
    images = leading(scores, most)
    drawn = inputs.train.take(images)

    def atlas(job: tuple[Comparison, Noisy, Float64[np.ndarray, " a"], float]) -> Atlas:
        comparison, noisy, evidence, noise_weight = job
        traces = PatchPosterior(comparison, noisy, drawn, threads).traces(evidence)
        return Atlas.of(traces, comparison.patches, noise_weight)

    total = reduce(Atlas.plus, threads.pool.map(atlas, jobs))
    rest = np.delete(most, images, axis=1).max(1, initial=0)
    parts = (images, rest, total.query_tiles, total.image_tiles, np.moveaxis(total.patch, -1, 0))
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def _regions(rows: Rows, m: int, height: int, width: int) -> Regions:
    """The regions that rows of m images each stand for, with queries numbered from 0."""
    k, (ty, tx), (gy, gx) = len(rows), *((min(parts, height), min(parts, width)) for parts in (TILES, GRAIN))
    shapes = [(m,), (ty, tx), (m, ty, tx), (m, gy, gx), (len(Atlas.PATCH_FIELDS), m, ty, tx)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = [
        part.reshape(k, *shape) for part, shape in zip(np.split(rows, ends, axis=1), shapes, strict=True)
    ]
    images, rest, query_tiles, image_tiles, patch = parts
    fields: dict[str, Any] = dict(
        zip(Atlas.PATCH_FIELDS, np.moveaxis(patch, 1, 0).astype(np.int16), strict=True)
    )
    fields["mirrored"] = fields["mirrored"] > 0
    return Regions(
        np.arange(k),
        np.array([height, width]),
        images.astype(np.int64),
        query_tiles,
        rest,
        image_tiles,
        **fields,
    )


def at_most(listed: Sequence[tuple[float, Foremost]], n: int) -> Float64[np.ndarray, "tiles n"]:
    """The most of each tile that each of n images can explain: its listed value, or the least listed where a
    list lacks it."""
    most = np.zeros((len(listed[0][1].value), n))
    for weight, (value, column) in listed:
        least = value.min(1, keepdims=True)
        most += weight * least
        most[np.arange(len(most))[:, None], column] += weight * (value - least)
    return most


def leading(
    scores: Float64[np.ndarray, " n"],
    most: Float64[np.ndarray, "tiles n"],
    count: int = DRAWN,
    by_score: int = BY_SCORE,
) -> Int64[np.ndarray, " m"]:
    """The images to draw maps of: a few by score, then by the number of tiles they lead in, then by score;
    the strongest first."""
    led = np.bincount(most.argmax(1), minlength=len(scores))
    first = np.argsort(-scores, kind="stable")[:by_score]
    by_tiles = np.lexsort((-scores, -led))
    both = np.concatenate([first, by_tiles[~np.isin(by_tiles, first)]])[:count]
    return both[np.argsort(-scores[both], kind="stable")]
