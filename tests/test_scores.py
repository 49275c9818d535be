"""Scores in blocks: the strongest of both ends, in bounded memory, are those of the whole."""

import itertools
import tracemalloc

import numpy as np
import pytest

from headwater import seeds
from headwater.errors import NonFiniteError, OptionError
from headwater.scores import Scores, dense, ends, top


def cut(values, sizes):
    edges = np.cumsum([0, *sizes])
    return [values[:, low:high] for low, high in itertools.pairwise(edges)]


def by_sorting(values, k):
    rows = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(values, rows, 1)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("sizes", [(40,), (1, 2, 37), (10, 10, 10, 10), (39, 1)])
@pytest.mark.parametrize("k", [1, 5, 40, 60])
def test_both_ends_of_blocks_are_those_of_a_stable_sort(levels, sizes, k):
    # few levels: many ties
    values = seeds.generator(0, "scores").integers(0, levels, size=(4, 40)).astype(np.float32)
    best, worst = ends(cut(values, sizes), k)
    rows, expected = by_sorting(values, k)
    assert np.array_equal(best.rows, rows) and np.array_equal(best.values, expected)
    rows, expected = by_sorting(-values, k)
    assert np.array_equal(worst.rows, rows) and np.array_equal(worst.values, -expected)


def test_a_million_training_images_need_the_memory_of_a_block():
    q, block, count = 100, 20_000, 50
    values = np.empty((q, block), np.float32)

    def blocks():
        for i in range(count):
            values[:] = seeds.generator(0, "block", i).random((q, block), dtype=np.float32)
            values[:, i] = 2 + i  # the best of all, in order
            yield values

    tracemalloc.start()
    best, worst = ends(blocks(), 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert best.values[0].tolist() == [51.0 - i for i in range(10)]
    assert best.rows[0].tolist() == [block * i + i for i in range(49, 39, -1)]
    assert (worst.values < 1e-4).all()
    assert peak < 4 * values.nbytes


def test_a_run_ranks_its_own_scores():
    scores = Scores(np.array([[1.0, -2.0, 3.0]], np.float32), ("q",), ("a", "b", "c"), np.ones(3, np.float32))
    assert scores.top(2).rows.tolist() == [[2, 0]] and scores.bottom(1).values.tolist() == [[-2.0]]


def test_a_run_is_an_array_to_numpy():
    scores = Scores(np.eye(2, dtype=np.float32), ("a", "b"), ("x", "y"), np.zeros(2, np.float32))
    np.testing.assert_array_equal(np.asarray(scores), np.eye(2))
    assert np.asarray(scores, dtype=np.float64).dtype == np.float64


def test_a_score_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteError, match="query q and training image b"):
        Scores(np.array([[1.0, np.nan]], np.float32), ("q",), ("a", "b"), np.ones(2, np.float32))


def test_no_blocks_and_no_rows_are_refused():
    with pytest.raises(OptionError, match="k is 0"):
        top([np.zeros((1, 3), np.float32)], 0)
    with pytest.raises(OptionError, match="no score blocks"):
        top([], 3)


def test_blocks_side_by_side_are_the_whole():
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    assert np.array_equal(dense([values[..., :1], values[..., 1:]]), values)
