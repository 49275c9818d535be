"""Credit by group: sums as a slow loop makes them, shares that sum to 1, intervals that hold what they
should."""

import math

import numpy as np
import pytest
from scipy import stats

from headwater import seeds
from headwater.credit.shares import RESAMPLES, by_group
from headwater.errors import DataError, OptionError
from headwater.scores import Scores
from toy_credit import NAMES


def slowly(values, names):
    """The equations in plain loops, float64."""
    groups = sorted(set(names))
    net, share = np.zeros((len(values), len(groups))), np.zeros((len(values), len(groups)))
    for q, row in enumerate(values.astype(np.float64).tolist()):
        positive = sum(max(score, 0.0) for score in row)
        for g, group in enumerate(groups):
            scores = [score for score, name in zip(row, names, strict=True) if name == group]
            net[q, g] = sum(scores)
            share[q, g] = sum(max(score, 0.0) for score in scores) / positive
    return groups, net, share


def test_net_and_share_are_those_of_a_slow_loop(values):
    credit = by_group(values, NAMES)
    groups, net, share = slowly(values, NAMES)
    assert list(credit.groups) == groups
    np.testing.assert_allclose(credit.net, net, rtol=1e-12)
    np.testing.assert_allclose(credit.share, share, rtol=1e-12)
    assert credit.images.tolist() == [4, 5, 1]
    assert credit.even.tolist() == [0.4, 0.5, 0.1]


def test_blocks_change_nothing(values):
    full, parts = by_group(values, NAMES), by_group(values, NAMES, block=25)
    np.testing.assert_array_equal(full.net, parts.net)
    np.testing.assert_array_equal(full.share, parts.share)
    assert full.of(3) == parts.of(3)


def test_the_shares_of_a_query_sum_to_1_and_nets_to_the_sum_of_scores(values):
    credit = by_group(values, NAMES)
    np.testing.assert_allclose(credit.share.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(
        credit.net.sum(axis=1), values.sum(axis=1, dtype=np.float64), rtol=1e-6, atol=1e-12
    )
    assert sum(row.share for row in credit.mean()) == pytest.approx(1)
    assert credit.even.sum() == pytest.approx(1)


def test_the_order_of_images_and_queries_changes_nothing(values):
    images, queries = seeds.generator(0, "order").permutation(10), seeds.generator(1, "order").permutation(7)
    one, permuted = by_group(values, NAMES), by_group(values[queries][:, images], [NAMES[i] for i in images])
    np.testing.assert_allclose(permuted.share, one.share[queries], rtol=1e-12)
    for a, b in [(one.of(int(queries[2])), permuted.of(2)), (one.mean(), permuted.mean())]:
        assert [row.group for row in a] == [row.group for row in b]
        np.testing.assert_allclose([row[1:] for row in a], [row[1:] for row in b], rtol=1e-9)


def test_groups_are_told_with_the_largest_share_first(values):
    shares = [row.share for row in by_group(values, NAMES).mean()]
    assert shares == sorted(shares, reverse=True)


def test_even_is_the_mean_share_over_all_ways_to_deal_out_the_names(values):
    """What a share is read against, whatever the scores: over draws of the names, shares average to |g|/n."""
    draw = seeds.generator(0, "deal")
    dealt = np.array([by_group(values, draw.permutation(NAMES)).share.mean(axis=0) for _ in range(2000)])
    error = dealt.std(axis=0) / math.sqrt(len(dealt))
    assert (np.abs(dealt.mean(axis=0) - [0.4, 0.5, 0.1]) < 4 * error).all()


def test_chance_is_a_slow_loop_over_the_same_deals(values):
    """Shares of all images, sorted, dealt to groups of the same sizes in their alphabetical order."""
    portion = np.maximum(values.astype(np.float64), 0)
    portions = sorted((portion / portion.sum(axis=1, keepdims=True)).mean(axis=0).tolist())
    stream, dealt = seeds.generator(0, "credit", "dealt"), []
    for _ in range(RESAMPLES):
        a, b, c = np.split(stream.permuted(portions), [4, 9])
        dealt.append([sum(a.tolist()), sum(b.tolist()), sum(c.tolist())])
    low, high = np.percentile(dealt, [2.5, 97.5], axis=0)
    by_name = {row.group: row for row in by_group(values, NAMES).mean()}
    np.testing.assert_allclose([by_name[g].even_low for g in "abc"], low, rtol=1e-9)
    np.testing.assert_allclose([by_name[g].even_high for g in "abc"], high, rtol=1e-9)


def test_chance_has_the_spread_of_drawing_without_putting_back():
    """The variance of a sum of k of n numbers is k(1 − k/n)S²; near enough to normal here."""
    values = seeds.generator(0, "spread").exponential(size=(1, 1000)).astype(np.float32)
    (row, _) = sorted(by_group(values, ["a"] * 300 + ["b"] * 700).of(0))
    spread = math.sqrt(300 * 0.7 * (values[0] / values.sum()).var(ddof=1))
    assert [row.even_low, row.even_high] == pytest.approx(
        [0.3 - 1.96 * spread, 0.3 + 1.96 * spread], abs=0.1 * spread
    )


def test_names_dealt_at_random_are_beyond_chance_one_time_in_twenty():
    """A strong image for all queries lifts its group in every one: the interval over queries knows nothing of
    that, chance does."""
    values = seeds.generator(0, "deals").exponential(size=(50, 300)).astype(np.float32)
    values *= seeds.generator(1, "deals").exponential(size=300).astype(np.float32) ** 2
    rows = [
        row
        for deal in range(40)
        for row in by_group(
            values, seeds.generator(deal, "names").permutation(np.repeat(np.arange(5), 60))
        ).mean()
    ]
    beyond = np.mean([not row.even_low <= row.share <= row.even_high for row in rows])
    off = np.mean([not row.low <= row.even <= row.high for row in rows])
    assert 0.02 <= beyond <= 0.08
    assert off > 0.7


def test_a_query_without_positive_score_has_no_shares_and_is_left_out_of_the_mean(values):
    values[2] = -np.abs(values[2])
    credit = by_group(values, NAMES)
    assert np.isnan(credit.share[2]).all()
    assert np.isfinite(credit.net).all()
    rest = by_group(np.delete(values, 2, axis=0), NAMES)
    assert [row.share for row in credit.mean()] == pytest.approx([row.share for row in rest.mean()])
    assert all(
        math.isnan(figure) for row in credit.of(2) for figure in (row.even_low, row.share, row.low, row.high)
    )
    assert all(math.isnan(row.share) for row in credit.mean([2]))


def test_one_query_has_no_interval_over_queries(values):
    assert all(math.isnan(row.low) and row.share > 0 for row in by_group(values, NAMES).mean([1]))
    with pytest.raises(OptionError, match="no queries"):
        by_group(values, NAMES).mean([])


def test_the_mean_over_some_queries_is_theirs_alone(values):
    part, alone = by_group(values, NAMES).mean([1, 4, 5]), by_group(values[[1, 4, 5]], NAMES).mean()
    assert part == alone


def test_resampling_images_is_a_slow_loop_over_the_same_draws(values):
    """Each image of a resample is drawn from the images of its own group, sorted by what they gain."""
    groups = sorted(set(NAMES))
    gains = {
        g: sorted(max(float(v), 0.0) for v, name in zip(values[4], NAMES, strict=True) if name == g)
        for g in groups
    }
    stream, drawn = seeds.generator(0, "bootstrap", "credit", "images"), []
    for _ in range(RESAMPLES):
        uniform = stream.random(len(NAMES)).tolist()
        sums = []
        for g in groups:
            draws, uniform = uniform[: len(gains[g])], uniform[len(gains[g]) :]
            sums.append(sum(gains[g][int(u * len(gains[g]))] for u in draws))
        if sum(sums):
            drawn.append([total / sum(sums) for total in sums])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    by_name = {row.group: row for row in by_group(values, NAMES).of(4)}
    np.testing.assert_allclose([by_name[g].low for g in groups], low, rtol=1e-9)
    np.testing.assert_allclose([by_name[g].high for g in groups], high, rtol=1e-9)


def test_both_intervals_are_scipys_percentile_bootstrap():
    """scipy resamples several samples each within itself, as images within their groups; up to the luck of
    1,000 draws."""
    values = seeds.generator(0, "scipy").exponential(size=(80, 60)).astype(np.float32)
    credit = by_group(values, ["a"] * 40 + ["b"] * 20)
    options = {"n_resamples": 4000, "method": "percentile", "vectorized": True}
    own = values[3].astype(np.float64)
    result = stats.bootstrap(
        (own[:40], own[40:]),
        lambda a, b, axis: a.sum(axis) / (a.sum(axis) + b.sum(axis)),
        **options,
        rng=seeds.generator(0, "images"),
    )
    row = next(row for row in credit.of(3) if row.group == "a")
    assert (row.low, row.high) == pytest.approx(result.confidence_interval, abs=0.01)
    result = stats.bootstrap((credit.share[:, 0],), np.mean, **options, rng=seeds.generator(0, "queries"))
    row = next(row for row in credit.mean() if row.group == "a")
    assert (row.low, row.high) == pytest.approx(result.confidence_interval, abs=0.002)


def test_the_interval_over_queries_holds_the_expected_share_in_19_of_20_worlds():
    """Gamma scores of one image each in three groups have Dirichlet shares: their expectation is known."""
    concentration, held = np.array([1.0, 2.0, 3.0]), []
    for world in range(300):
        values = (
            seeds.generator(world, "world").standard_gamma(concentration, size=(60, 3)).astype(np.float32)
        )
        held += [
            row.low <= concentration[int(row.group)] / 6 <= row.high
            for row in by_group(values, [0, 1, 2]).mean()
        ]
    assert 0.92 <= np.mean(held) <= 0.97


def test_many_queries_at_once_are_told_as_each_by_itself(values):
    """They share random numbers, not order: rows keep their place, whatever fits into a block."""
    values[2] = -1
    credit, ticks = by_group(values, NAMES), []
    alone = [credit.of(query) for query in (4, 2, 0, 6)]
    for block in (2**22, RESAMPLES * 3 * 2, 25):
        ticks.clear()
        in_blocks = by_group(values, NAMES, block=block)
        together = list(in_blocks.each([4, 2, 0, 6], lambda done, total: ticks.append((done, total))))
        np.testing.assert_equal(
            [[tuple(row) for row in shares] for shares in together], [[*map(tuple, row)] for row in alone]
        )
        assert ticks[-1] == (4, 4)
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_group_whose_share_rests_on_one_image_has_a_wide_interval():
    values = np.ones((1, 40), np.float32)
    values[0, 0], values[0, 1:20] = 20, 0
    few, many = by_group(values, ["few"] * 20 + ["many"] * 20).of(0)
    assert few.share == many.share == 0.5
    assert few.low == 0 and few.high > 0.7
    even = by_group(np.ones((1, 40), np.float32), ["a"] * 20 + ["b"] * 20).of(0)
    assert [row.low for row in even] == [row.high for row in even] == [0.5, 0.5]


def test_noise_gives_every_group_its_even_share():
    """The trap of a sum over many: scores without information still give a big group a big share."""
    values = seeds.generator(0, "noise").standard_normal((200, 1000), dtype=np.float32)
    big, small = by_group(values, ["big"] * 900 + ["small"] * 100).mean()
    assert big.share == pytest.approx(0.9, abs=0.01) and small.share == pytest.approx(0.1, abs=0.01)
    assert big.low <= 0.9 <= big.high


def test_scores_know_their_credit_by_words_or_numbers(values):
    scores = Scores(values, tuple("abcdefg"), tuple(map(str, range(10))), np.ones(10, np.float32))
    assert scores.credit(NAMES).mean() == by_group(values, NAMES).mean()
    assert scores.credit(np.arange(10) % 3).groups == ("0", "1", "2")
    with pytest.raises(DataError, match="9 names of groups for 10 training images"):
        scores.credit(NAMES[:9])
