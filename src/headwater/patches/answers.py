"""What queries are answered at one step, some at a time, by all who work."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from headwater.disk.store import FeatureStore
from headwater.patches.posterior import Hands, Noisy, Question, Step, hands
from headwater.patches.rows import packed
from headwater.patches.views import Views
from headwater.workers import in_order

TOGETHER = 8  # queries that are kept together in the store

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
    """`packed` of every query, some at a time."""
    return blocks(_rows, what, store)


def blocks(rows: Callable[[Asked, slice], Rows], what: Asked, store: FeatureStore) -> Iterator[Rows]:
    """Rows of all queries, TOGETHER at a time, from all who work."""
    parts = [slice(low, low + TOGETHER) for low in range(0, len(what.queries), TOGETHER)]
    if store.crew is None:
        yield from (rows(what, part) for part in parts)
    else:
        yield from in_order(store.crew.work(rows, what, parts), parts)


def answers(what: Asked, part: slice, answer: Callable[[Question, Noisy, Views, Hands], Found]) -> Iterator[list[Found]]:
    """Of some queries, what is answered for each of their noises."""
    question = what.step.question(what.memory)
    with hands(torch.get_num_threads()) as workers:
        for x, content in zip(what.queries.part(part), what.queries.hashes[part], strict=True):
            noises = what.step.noised(x, content, what.alpha_bar)
            yield [answer(question, noisy, what.train, workers) for noisy in noises]


def _rows(what: Asked, part: slice) -> Rows:
    return np.array([packed(each) for each in answers(what, part, Question.answer)])
