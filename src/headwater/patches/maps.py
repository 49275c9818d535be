"""Maps of queries: the training images that lead in their parts, and what these explain of them, with what; kept in the store."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from headwater.disk.store import FeatureStore
from headwater.patches.atlas import Atlas
from headwater.patches.compiled.displaced import LANES
from headwater.patches.posterior import Hands, Noisy, Question, Step, hands
from headwater.patches.regions import Regions
from headwater.patches.rows import unpacked
from headwater.patches.tiles import GRAIN, TILES, Foremost
from headwater.patches.views import Views
from headwater.workers import in_order

VERSION = 1  # of the numbers that given settings stand for
DRAWN = LANES  # training images that maps of a query are drawn of: as many as are looked through at once
BY_SCORE = 8  # of them those with the highest scores, whether they lead anywhere or not

Row = Float32[np.ndarray, " _"]
Rows = Float32[np.ndarray, "q _"]


class Level(NamedTuple):
    """One step and its weight in the scores."""

    step: Step
    weight: float
    alpha_bar: float


class Asked(NamedTuple):
    """Queries, and what is in the store of each at every level."""

    levels: Sequence[Level]
    known: list[Rows]
    train: Views
    queries: Views


def regions(
    levels: Sequence[Level], rows: Callable[[Step, Views], Rows], train: Views, queries: Views, store: FeatureStore
) -> Regions:
    """The maps of all queries, from the store or computed out of their `rows` at every step."""
    told = [{**asdict(level.step), "weight": level.weight, "alpha_bar": level.alpha_bar} for level in levels]
    settings = {"maps": told, "train": train.fingerprint, "cut": [DRAWN, BY_SCORE, TILES, GRAIN], "version": VERSION}

    def compute(positions: list[int]) -> Iterator[Rows]:
        asked = queries.take(positions)
        what = Asked(levels, [rows(level.step, asked) for level in levels], train, asked)
        parts = [slice(q, q + 1) for q in range(len(asked))]
        if store.crew is None:
            with hands(torch.get_num_threads()) as workers:
                yield from (_mapped(what, part.start, workers)[None] for part in parts)
        else:
            yield from in_order(store.crew.work(_alone, what, parts), parts)

    found = replace(store, dtype="float32").rows(settings, queries.hashes, compute)
    return _regions(found, min(DRAWN, len(train)), *train.shape[1:])


def _alone(what: Asked, part: slice) -> Rows:
    """The row of one query, by whoever does it on one thread."""
    with hands(1) as workers:
        return _mapped(what, part.start, workers)[None]


def _mapped(what: Asked, q: int, workers: Hands) -> Row:
    """The map of one query as a row of numbers: as `_regions` reads it."""
    n, (_, h, w) = len(what.train), what.train.shape
    x, content = what.queries.part(slice(q, q + 1))[0], what.queries.hashes[q]
    scores, listed, jobs = np.zeros(n), [], []
    for (step, weight, alpha_bar), rows in zip(what.levels, what.known, strict=True):
        kept = unpacked(rows[q], n, max(1, step.noises), (h, w))
        scores += weight * kept.scores
        each = weight / len(kept.evidence)
        listed += [(each, leaders) for leaders in kept.leaders]
        noises = zip(step.noised(x, content, alpha_bar), kept.evidence, strict=True)
        jobs += [(step.question(0), noisy, evidence, each) for noisy, evidence in noises]
    most = at_most(listed, n)
    images = leading(scores, most)

    def atlas(job: tuple[Question, Noisy, Float64[np.ndarray, " a"], float]) -> Atlas:
        question, noisy, evidence, each = job
        return Atlas.of(question.trace(noisy, what.train.take(images), evidence, workers), question.patches, each)

    whole = reduce(Atlas.and_, workers.pool.map(atlas, jobs))
    others = np.delete(most, images, axis=1).max(1, initial=0)
    parts = (images, others, whole.here, whole.there, np.moveaxis(whole.patch, -1, 0))
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def _regions(rows: Rows, m: int, height: int, width: int) -> Regions:
    """What rows of so many images each stand for, of queries numbered from 0."""
    k, (ty, tx), (gy, gx) = len(rows), *((min(parts, height), min(parts, width)) for parts in (TILES, GRAIN))
    shapes = [(m,), (ty, tx), (m, ty, tx), (m, gy, gx), (len(Atlas.FOUND), m, ty, tx)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = [part.reshape(k, *shape) for part, shape in zip(np.split(rows, ends, axis=1), shapes, strict=True)]
    images, others, here, there, patch = parts
    found: dict[str, Any] = dict(zip(Atlas.FOUND, np.moveaxis(patch, 1, 0).astype(np.int16), strict=True))
    found["mirrored"] = found["mirrored"] > 0
    return Regions(np.arange(k), np.array([height, width]), images.astype(np.int64), here, others, there, **found)


def at_most(listed: Sequence[tuple[float, Foremost]], n: int) -> Float64[np.ndarray, "tiles n"]:
    """How much of each tile each of n images explains at most: as lists say, and where one lacks it no more than its least."""
    most = np.zeros((len(listed[0][1].value), n))
    for weight, (value, column) in listed:
        least = value.min(1, keepdims=True)
        most += weight * least
        most[np.arange(len(most))[:, None], column] += weight * (value - least)
    return most


def leading(
    scores: Float64[np.ndarray, " n"], most: Float64[np.ndarray, "tiles n"], count: int = DRAWN, by_score: int = BY_SCORE
) -> Int64[np.ndarray, " m"]:
    """The images to draw maps of: a few by their scores, then those that lead in most tiles, then by scores; all in their order."""
    led = np.bincount(most.argmax(1), minlength=len(scores))
    first = np.argsort(-scores, kind="stable")[:by_score]
    others = np.lexsort((-scores, -led))
    both = np.concatenate([first, others[~np.isin(others, first)]])[:count]
    return both[np.argsort(-scores[both], kind="stable")]
