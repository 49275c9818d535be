"""Rank correlation and its bootstrap, against scipy's and against ranking every resample again."""

import numpy as np
import pytest
import scipy.stats

from headwater.linalg.rank import interval, ranks, resamples, spearman, spearman_resampled


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


def scipys(x, y):
    """scipy's Spearman correlation, 0 where one side is constant."""
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else scipy.stats.spearmanr(x, y).statistic


@pytest.mark.parametrize("levels", [2, 8, 10**6])
def test_ranks_and_correlation_equal_scipys_with_ties(random, levels):
    a, b = (random.integers(0, levels, (5, 30)).astype(float) for _ in range(2))
    np.testing.assert_array_equal(ranks(a), scipy.stats.rankdata(a, axis=-1))
    np.testing.assert_allclose(spearman(a, b), [scipys(x, y) for x, y in zip(a, b, strict=True)], atol=1e-12)


def test_the_correlation_with_a_constant_is_zero():
    assert spearman(np.ones((1, 5)), np.arange(5.0)[None])[0] == 0


@pytest.mark.parametrize("levels", [2, 5, 10**6], ids=["mostly ties", "many ties", "hardly a tie"])
@pytest.mark.parametrize("m", [3, 64, 300], ids=["with constant resamples", "in float32", "in float64"])
def test_every_resample_has_scipys_correlation(random, m, levels):
    a, b = (random.integers(0, levels, (4, m)).astype(float) for _ in range(2))
    picks = resamples(m, 12, "test")
    expected = [[scipys(x[pick], y[pick]) for x, y in zip(a, b, strict=True)] for pick in picks]
    np.testing.assert_allclose(spearman_resampled(a, b, picks), expected, atol=1e-12)


def test_the_sums_of_float32_are_exact_at_their_largest():
    """Perfect agreement of m = 256 elements: sums of about m³/3, and a correlation of exactly 1 in every
    resample."""
    row = np.arange(256.0)[None]
    np.testing.assert_array_equal(spearman_resampled(row, row, resamples(256, 50, "test")), 1.0)


def test_blocks_of_queries_change_nothing(random):
    a, b = random.standard_normal((2, 9, 20))
    picks = resamples(20, 30, "test")
    uncut = spearman_resampled(a, b, picks)
    np.testing.assert_array_equal(spearman_resampled(a, b, picks, block=1), uncut)


def test_resamples_depend_on_their_name_alone():
    np.testing.assert_array_equal(resamples(64, 5, "subsets"), resamples(64, 5, "subsets"))
    assert resamples(64, 5, "subsets")[:2].tolist() != resamples(64, 5, "queries")[:2].tolist()


def test_an_interval_holds_95_percent_of_the_samples():
    assert interval(50, np.arange(101.0)) == (50, 2.5, 97.5)
