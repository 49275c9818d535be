"""The arithmetic of counterfactual evaluation."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from headwater import seeds
from headwater.errors import OptionError
from headwater.evaluate.counterfactual import compare_effects, distance, quartiles, removal_counts, without


def test_the_strongest_proponents_go_and_of_equal_ones_the_first():
    mask = without(np.array([0.5, 2.0, -3.0, 0.5, 0.5], np.float32), 2)
    assert mask.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("k", [0, 5, 9])
def test_what_cannot_be_removed_is_refused(k):
    with pytest.raises(OptionError, match=f"{k} of 5"):
        without(np.zeros(5, np.float32), k)


def test_counts_are_numbers_or_percentages():
    assert removal_counts(["500", "2%", "0.5%"], 5000) == [500, 100, 25]
    with pytest.raises(OptionError, match="to remove are 'ten'") as refusal:
        removal_counts(["ten"], 10)
    assert "--remove 2%,10%" in refusal.value.hint


def test_distance_is_that_of_the_pixels():
    before, after = np.zeros((2, 1, 2, 2), np.float32), np.zeros((2, 1, 2, 2), np.float32)
    after[1, 0, 0] = 3, 4
    assert distance(before, after).tolist() == [0.0, 5.0]


def test_a_paired_difference_sees_what_the_spread_over_pictures_hides():
    random = seeds.generator(0, "paired")
    base = random.normal(10, 5, 12)
    a, b = base + 1 + 0.1 * random.normal(size=12), base
    comparison = compare_effects(a, b)
    assert comparison.difference.low > 0.8 and comparison.above == 12
    assert comparison.p == pytest.approx(wilcoxon(a, b).pvalue) and comparison.p == pytest.approx(2 / 2**12)
    assert quartiles(a).low < quartiles(b).high  # not paired, they overlap


def test_a_method_is_not_above_itself():
    values = seeds.generator(0, "self").normal(size=9)
    assert compare_effects(values, values) == ((0.0, 0.0, 0.0), 1.0, 0)


def test_a_difference_of_nothing_is_rarely_called_one():
    random = seeds.generator(0, "null")
    intervals = [compare_effects(*random.normal(size=(2, 30))).difference for _ in range(200)]
    wrong = sum(interval.low > 0 or interval.high < 0 for interval in intervals)
    assert wrong < 0.05 * 200 + 3 * (200 * 0.05 * 0.95) ** 0.5
