import numpy as np
import pytest
import scipy.stats

from headwater.evaluate.lds import difference, lds
from headwater.evaluate.tune import halves, tuned
from headwater.linalg.rank import spearman


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


def test_spearman_equals_scipys_with_ties(random):
    a, b = random.integers(0, 8, (5, 30)), random.integers(0, 8, (5, 30))
    expected = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a.astype(float), b.astype(float)), expected, atol=1e-12)


def test_spearman_of_a_constant_is_zero():
    assert spearman(np.ones((1, 5)), np.arange(5.0)[None])[0] == 0


@pytest.fixture
def linear_world(random):
    """Outcomes that really are −Σ_{i∈A} τ[q, i]: the world in which LDS of τ is 1."""
    tau = random.standard_normal((7, 40)).astype(np.float32)
    subsets = random.permuted(np.tile(np.arange(40) < 20, (32, 1)), axis=1)
    return tau, subsets, -(tau @ subsets.T).T


def test_the_true_scores_of_a_linear_world_have_lds_one(linear_world):
    tau, subsets, outcomes = linear_world
    np.testing.assert_allclose(lds(tau, subsets, outcomes).per_query, 1.0)


def test_the_sign_is_that_a_positive_score_means_removal_raises_the_loss(linear_world):
    tau, subsets, outcomes = linear_world
    np.testing.assert_allclose(lds(-tau, subsets, outcomes).per_query, -1.0)


def test_a_constant_per_query_changes_nothing_on_halves_of_one_size(linear_world):
    tau, subsets, outcomes = linear_world
    np.testing.assert_allclose(lds(tau + 5, subsets, outcomes).per_query, 1.0)


def test_the_interval_of_a_mean_holds_the_mean_and_is_narrower_for_more_subsets(random):
    tau = random.standard_normal((20, 60)).astype(np.float32)
    widths = []
    for m in (16, 256):
        subsets = random.permuted(np.tile(np.arange(60) < 30, (m, 1)), axis=1)
        found = lds(tau, subsets, -(tau @ subsets.T).T + 8 * random.standard_normal((m, 20))).mean()
        assert found.low < found.mean < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_the_difference_of_a_method_with_itself_is_exactly_zero(linear_world):
    tau, subsets, outcomes = linear_world
    noisy = lds(tau, subsets, outcomes + 3 * np.sin(np.arange(outcomes.size)).reshape(outcomes.shape))
    assert difference(noisy, noisy) == (0.0, 0.0, 0.0)


def test_halves_share_nothing_and_miss_nothing():
    queries = np.arange(21) % 3 != 0
    first, second = halves(queries)
    assert not (first & second).any()
    np.testing.assert_array_equal(first | second, queries)
    assert first.sum() == second.sum() == 7


def test_each_half_reports_the_setting_chosen_on_the_other(linear_world, random):
    """Two settings, each perfect on one half and chance on the other: an honest report shows chance, the oracle would hide it."""
    tau, subsets, outcomes = linear_world
    queries = np.ones(7, bool)
    first, second = halves(queries)
    chance = random.standard_normal(tau.shape).astype(np.float32)
    one, two = (("x", 1),), (("x", 2),)
    found = {one: lds(np.where(first[:, None], tau, chance), subsets, outcomes)}
    found[two] = lds(np.where(second[:, None], tau, chance), subsets, outcomes)
    best = tuned(found, queries)
    assert best.chosen == (two, one)
    np.testing.assert_array_equal(best.lds.per_query[first], found[two].per_query[first])
    np.testing.assert_array_equal(best.lds.per_query[second], found[one].per_query[second])
    assert best.lds.per_query.max() < 0.9
