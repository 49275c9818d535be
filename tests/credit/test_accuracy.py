"""Accuracy of credit: counts and chances in closed form, and scipy's interval."""

import numpy as np
import pytest
from scipy import stats

from headwater import seeds
from headwater.credit.accuracy import right, wilson
from headwater.credit.shares import by_group


@pytest.mark.parametrize(("hits", "m"), [(0, 1), (1, 1), (0, 12), (5, 7), (50, 100), (199, 200)])
def test_the_interval_is_scipys(hits, m):
    expected = stats.binomtest(hits, m).proportion_ci(method="wilson")
    assert wilson(hits, m) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_the_interval_holds_the_rate_in_about_19_of_20_worlds():
    held = [
        low <= 0.3 <= high
        for hits in seeds.generator(0, "w").binomial(40, 0.3, 2000)
        for low, high in [wilson(int(hits), 40)]
    ]
    assert 0.93 <= np.mean(held) <= 0.97


def test_queries_are_counted_whose_group_has_images_and_that_have_shares():
    """One image has all the score of each query: the last two have no shares, or a group of nobody's."""
    values = np.zeros((6, 4), np.float32)
    values[range(5), [0, 1, 2, 3, 3]] = 1
    credit = by_group(values, ["a", "a", "b", "c"])
    rates = right(credit, ["a", "a", "b", "a", "nobody", "b"], range(6))
    assert rates is not None and (rates.pictures, rates.right, rates.rate) == (4, 3, 0.75)
    assert rates.even == pytest.approx(np.mean([2, 2, 1, 2]) / 4) and rates.largest == 0.75
    assert right(credit, [None] * 6, range(6)) is None and right(credit, ["a"] * 6, []) is None


def test_random_scores_with_one_image_above_0_are_right_as_often_as_the_groups_part_of_the_images():
    credit = by_group(np.eye(1, 50, dtype=np.float32), ["a"] * 10 + ["b"] * 40)
    (a, b) = (right(credit, [group], [0]) for group in "ab")
    assert a is not None and b is not None
    assert a.random == pytest.approx(0.2, abs=0.02) and b.random == pytest.approx(1 - a.random)
    assert (a.even, b.even, a.largest, b.largest) == (0.2, 0.8, 0, 1)


def test_random_scores_of_many_alike_images_are_right_where_the_largest_group_is_the_own():
    credit = by_group(np.ones((2, 30), np.float32), ["a"] * 10 + ["b"] * 20)
    rates = right(credit, ["a", "b"], range(2))
    assert rates is not None and rates.random == rates.largest == rates.rate == 0.5


def test_random_scores_of_groups_of_one_size_are_right_one_time_in_their_number():
    values = seeds.generator(0, "right").standard_normal((50, 120), dtype=np.float32)
    rates = right(by_group(values, np.arange(120) % 4), [str(q % 4) for q in range(50)], range(50))
    assert (
        rates is not None
        and rates.random == pytest.approx(0.25, abs=0.03)
        and rates.even == pytest.approx(0.25)
    )
    assert rates.low < 0.25 < rates.high  # these scores are random too


def test_the_order_of_images_and_queries_changes_nothing():
    values = seeds.generator(1, "right").standard_normal((9, 40), dtype=np.float32)
    names, groups = list("abcd") * 10, list("abcabcabc")
    images, queries = seeds.generator(0, "order").permutation(40), seeds.generator(1, "order").permutation(9)
    shuffled = by_group(values[queries][:, images], [names[i] for i in images])
    expected = right(by_group(values, names), groups, range(9))
    assert right(shuffled, [groups[q] for q in queries], range(9)) == pytest.approx(expected)
