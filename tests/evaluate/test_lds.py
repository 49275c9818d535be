"""LDS, its intervals and paired comparisons, in worlds whose answer is known."""

import numpy as np
import pytest
import scipy.stats

from headwater.evaluate.lds import compare_lds, correlated, difference, lds, mean_of, predicted
from headwater.evaluate.tune import query_halves, tuned
from headwater.linalg.rank import resamples


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


@pytest.fixture
def linear_world(random):
    """Outcomes that really are −Σ_{i∈A} τ[q, i]: the world in which LDS of τ is 1."""
    tau = random.standard_normal((7, 40)).astype(np.float32)
    subsets = random.permuted(np.tile(np.arange(40) < 20, (32, 1)), axis=1)
    return tau, subsets, -(tau @ subsets.T).T


@pytest.fixture
def noisy_world(random):
    """60 queries and subsets of several sizes, with as much noise in each outcome as signal."""
    tau = random.standard_normal((60, 40))
    subsets = random.random((48, 40)) < 0.5
    signal = -(subsets @ tau.T)
    return tau, subsets, signal + signal.std(0) * random.standard_normal(signal.shape)


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
        interval = lds(tau, subsets, -(tau @ subsets.T).T + 8 * random.standard_normal((m, 20))).mean()
        assert interval.low < interval.mean < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_the_difference_of_a_method_with_itself_is_exactly_zero(linear_world):
    tau, subsets, outcomes = linear_world
    noisy = lds(tau, subsets, outcomes + 3 * np.sin(np.arange(outcomes.size)).reshape(outcomes.shape))
    assert difference(noisy, noisy) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("levels", [2, 10**6], ids=["many ties", "hardly a tie"])
def test_lds_is_scipys_rank_correlation_of_each_query(random, levels):
    tau, subsets = random.integers(0, levels, (6, 20)).astype(float), random.random((24, 20)) < 0.5
    outcomes = random.integers(0, levels, (24, 6)).astype(float)
    expected = [
        scipy.stats.spearmanr(-(subsets @ t), y).statistic for t, y in zip(tau, outcomes.T, strict=True)
    ]
    np.testing.assert_allclose(lds(tau, subsets, outcomes).per_query, expected, atol=1e-12)


def test_the_bootstrap_is_the_lds_of_every_resample_of_the_subsets(noisy_world):
    tau, subsets, outcomes = noisy_world
    figures = lds(tau, subsets, outcomes)
    for row, pick in zip(figures.bootstrap[:20], resamples(48, 1000, "subsets"), strict=False):
        np.testing.assert_allclose(row, lds(tau, subsets[pick], outcomes[pick]).per_query, atol=1e-12)
    assert figures.bootstrap.shape == (1000, 60)


def test_on_exact_halves_sums_over_kept_and_over_removed_images_rank_alike(linear_world, random):
    tau, subsets, outcomes = linear_world
    included, removed = (
        lds(tau, subsets, outcomes),
        correlated((~subsets).astype(float) @ tau.T.astype(float), outcomes),
    )
    np.testing.assert_allclose(included.per_query, removed.per_query, atol=1e-12)


def test_blocks_of_queries_change_nothing(noisy_world):
    tau, subsets, outcomes = noisy_world
    expected = predicted(tau, subsets)
    for block in (1, 7 * 40, 10**9):
        np.testing.assert_allclose(predicted(tau, subsets, block=block), expected, atol=1e-12)
        np.testing.assert_array_equal(
            correlated(predicted(tau, subsets, block=block), outcomes).per_query, lds(*noisy_world).per_query
        )


def test_sums_are_those_of_float64_whatever_the_scores_are(random):
    """60,000 scores that hardly differ from 1: sums in float32 would not tell subsets apart."""
    tau = (1 + 1e-6 * random.standard_normal((1, 60_000))).astype(np.float32)
    subsets = random.permuted(np.tile(np.arange(60_000) < 30_000, (8, 1)), axis=1)
    np.testing.assert_allclose(
        predicted(tau, subsets)[:, 0], [-np.longdouble(tau[0, row]).sum() for row in subsets], rtol=1e-14
    )


def test_random_scores_are_within_two_standard_errors_of_zero(noisy_world, random):
    _, subsets, outcomes = noisy_world
    figures = lds(random.standard_normal((60, 40)), subsets, outcomes)
    assert abs(figures.per_query.mean()) < 2 * figures.standard_error()


def test_the_interval_over_queries_is_about_two_standard_errors_wide_each_side(noisy_world):
    figures = lds(*noisy_world)
    mean, low, high = figures.mean_over_queries()
    assert mean == figures.mean().mean
    assert (high - low) / 2 == pytest.approx(1.96 * figures.standard_error(), rel=0.1)
    assert figures.standard_error() == pytest.approx(scipy.stats.sem(figures.per_query))


def test_chosen_queries_have_the_figures_they_have_alone(noisy_world):
    tau, subsets, outcomes = noisy_world
    chosen = np.arange(60) % 3 == 0
    among, alone = lds(tau, subsets, outcomes), lds(tau[chosen], subsets, outcomes[:, chosen])
    assert among.mean(chosen) == pytest.approx(alone.mean(), abs=1e-12)
    assert among.mean_over_queries(chosen) == pytest.approx(alone.mean_over_queries(), abs=1e-12)
    assert among.standard_error(chosen) == pytest.approx(alone.standard_error(), abs=1e-12)


def test_a_method_compared_with_itself_differs_by_exactly_zero(noisy_world):
    figures, again = lds(*noisy_world), lds(*noisy_world)
    assert compare_lds(figures, again) == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0, 0.0)


def test_a_comparison_is_sharper_for_being_paired(noisy_world, random):
    """Two noisy copies of the true scores: their intervals overlap, their difference is clear."""
    tau, subsets, outcomes = noisy_world
    noise = random.standard_normal(tau.shape)
    a, b = lds(tau + 0.4 * noise, subsets, outcomes), lds(tau + 0.5 * noise, subsets, outcomes)
    pair = compare_lds(a, b)
    assert a.mean().low < b.mean().high
    assert pair.over_subsets.low > 0 and pair.over_queries.low > 0
    assert pair.over_subsets.mean == pytest.approx(a.mean().mean - b.mean().mean)
    assert pair.above == np.mean(a.per_query > b.per_query) and pair.above + pair.below == 1
    assert difference(a, b) == pair.over_subsets


def test_the_mean_of_figures_is_resampled_together(noisy_world):
    tau, subsets, outcomes = noisy_world
    a, b = lds(tau, subsets, outcomes), lds(tau + 1, subsets, outcomes)
    np.testing.assert_array_equal(mean_of([a, b]).bootstrap, (a.bootstrap + b.bootstrap) / 2)


def test_halves_share_nothing_and_miss_nothing():
    queries = np.arange(21) % 3 != 0
    first, second = query_halves(queries)
    assert not (first & second).any()
    np.testing.assert_array_equal(first | second, queries)
    assert first.sum() == second.sum() == 7


def test_each_half_reports_the_setting_chosen_on_the_other(linear_world, random):
    """Each setting is perfect on one half: an honest report shows chance, the oracle hides it."""
    tau, subsets, outcomes = linear_world
    queries = np.ones(7, bool)
    first, second = query_halves(queries)
    chance = random.standard_normal(tau.shape).astype(np.float32)
    one, two = (("x", 1),), (("x", 2),)
    figures = {one: lds(np.where(first[:, None], tau, chance), subsets, outcomes)}
    figures[two] = lds(np.where(second[:, None], tau, chance), subsets, outcomes)
    best = tuned(figures, queries)
    assert best.chosen == (two, one)
    np.testing.assert_array_equal(best.lds.per_query[first], figures[two].per_query[first])
    np.testing.assert_array_equal(best.lds.per_query[second], figures[one].per_query[second])
    assert best.lds.per_query.max() < 0.9
