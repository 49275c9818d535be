"""Draws: timesteps and noise are a function of the picture alone."""

import hashlib

import numpy as np
import pytest
import torch

from headwater import seeds
from headwater.diffusion.draws import STRATEGIES, Draws, PseudoTargets, along_trajectory
from headwater.diffusion.schedule import linear
from headwater.errors import DataError, OptionError
from headwater.examples import Examples

FROZEN = {"f064a937cfa5", "0d9647f9d6d9", "59c105e6f831"}  # of the noise, by strategy
LIKE = torch.zeros((), dtype=torch.float64)


def of(draws, examples, rows=slice(None)):
    return draws.of(examples, rows, linear(), LIKE)


def test_uniform_10_of_1000_is_every_hundredth_from_0():
    assert Draws(10).steps("any", 1000).tolist() == list(range(0, 1000, 100))


@pytest.mark.parametrize(("K", "T"), [(1, 1000), (3, 1000), (7, 10), (1000, 1000), (999, 1000)])
def test_uniform_is_the_floor_of_iT_over_K(K, T):
    assert Draws(K).steps("any", T).tolist() == [i * T // K for i in range(K)]


def test_cumulative_is_the_first_K():
    assert Draws(4, "cumulative").steps("any", 1000).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("K", "T"), [(10, 1000), (7, 100), (100, 100)])
def test_stratified_has_one_in_each_stratum_and_reaches_all_of_it(K, T):
    steps = np.stack([Draws(K, "stratified").steps(str(i), T) for i in range(300)])
    edges = np.arange(K + 1) * T // K
    assert (steps >= edges[:-1]).all() and (steps < edges[1:]).all()
    assert set(steps[:, 0]) >= {edges[0], edges[1] - 1} or T // K > 60


def test_numbers_drawn_ahead_give_the_same_draws_and_are_frozen(pictures):
    digests = set()
    for strategy in ("uniform", "antithetic", "random"):
        draws, examples = Draws(3, strategy, 2, seed=4), pictures(4)
        numbers = draws.numbers(examples, slice(1, 3), 1000)
        for part, direct in zip(
            numbers.noised(linear(), LIKE), of(draws, examples, slice(1, 3)), strict=True
        ):
            assert torch.equal(part, direct)
        digests.add(hashlib.blake2b(numbers.noise.tobytes(), digest_size=6).hexdigest())
    assert digests == FROZEN


@pytest.mark.parametrize(("K", "noises"), [(4, 1), (5, 1), (2, 2), (3, 3)])
def test_antithetic_draws_are_stratified_with_noises_in_pairs_of_both_signs(pictures, K, noises):
    plain, paired = (of(Draws(K, strategy, noises), pictures(2)) for strategy in ("stratified", "antithetic"))
    assert torch.equal(paired.t, plain.t)
    assert torch.equal(paired.noise[:, ::2], plain.noise[:, ::2])
    even = K * noises // 2 * 2
    assert torch.equal(paired.noise[:, 1:even:2], -paired.noise[:, 0:even:2])
    assert torch.equal(paired.x_t, linear().noised(paired.x, paired.noise, paired.t))


def test_a_sampled_target_changes_the_noise_alone_and_is_named(pictures):
    examples, draws = pictures(2), Draws(3, noises=2, seed=5)
    plain, sampled = of(draws, examples), of(PseudoTargets(draws, seed=7), examples)
    for name in ("x", "t", "then", "x_t"):
        assert torch.equal(getattr(plain, name), getattr(sampled, name))
    named = seeds.normal((1, 8, 8), 7, "sampled", examples.hashes[1], 333, 1)
    assert torch.equal(sampled.noise[1, 3], torch.as_tensor(named).double())
    assert (PseudoTargets(draws).count, PseudoTargets(draws).noises) == (6, 2)


def test_random_timesteps_cover_the_schedule_and_differ_between_pictures():
    steps = np.stack([Draws(50, "random").steps(str(i), 100) for i in range(40)])
    assert set(steps.ravel()) == set(range(100))
    assert len({tuple(row) for row in steps.tolist()}) == 40


def test_listed_timesteps_are_used_unchanged():
    assert Draws((5, 3, 3), "random").steps("any", 10).tolist() == [5, 3, 3]


def test_a_draw_is_the_noised_picture_of_its_named_noise(pictures):
    examples = pictures(2)
    draw = of(Draws(3, noises=2, seed=5), examples)
    assert draw.x.shape == (2, 1, 1, 8, 8) and draw.noise.shape == draw.x_t.shape == (2, 6, 1, 8, 8)
    assert draw.t.tolist() == [[0, 0, 333, 333, 666, 666]] * 2
    assert torch.equal(draw.then, draw.t - 1)
    named = seeds.normal((1, 8, 8), 5, "noise", examples.hashes[1], 333, 1)
    assert torch.equal(draw.noise[1, 3], torch.as_tensor(named).double())
    alpha_bar = linear().alpha_bar[333]
    by_hand = alpha_bar**0.5 * examples.pixels()[1] + (1 - alpha_bar) ** 0.5 * named
    assert np.allclose(draw.x_t[1, 3], by_hand, atol=1e-7)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_draws_of_a_picture_do_not_depend_on_batch_or_place(pictures, strategy):
    examples, draws = pictures(5), Draws(4, strategy, 2)
    together = of(draws, examples)
    for rows in (slice(0, 2), slice(2, 5)):
        for part, column in zip(of(draws, examples, rows), together, strict=True):
            assert torch.equal(part, column[rows])
    for moved, column in zip(of(draws, examples.take([4, 0])), together, strict=True):
        assert torch.equal(moved, column[[4, 0]])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_pictures_have_equal_draws_and_others_do_not(pictures, strategy):
    images = pictures(3).images.copy()
    images[2] = images[0]
    draw = of(
        Draws(4, strategy), Examples(images, ids=("train", "other", "query"), labels=np.array([0, 1, 2]))
    )
    for column in draw:
        assert torch.equal(column[0], column[2])
    assert not torch.equal(draw.noise[0], draw.noise[1])


def test_another_seed_gives_other_noise_and_other_timesteps(pictures):
    a, b = (of(Draws(4, "random", seed=seed), pictures(1)) for seed in (0, 1))
    assert not torch.equal(a.noise, b.noise) and not torch.equal(a.t, b.t)


def test_the_noise_of_10_timesteps_is_part_of_that_of_100(pictures):
    few, many = of(Draws(10), pictures(2)), of(Draws(100), pictures(2))
    for column, longer in ((few.t, many.t), (few.noise, many.noise), (few.x_t, many.x_t)):
        assert torch.equal(column, longer[:, ::10])


def test_fewer_noises_of_a_timestep_are_the_first_of_more(pictures):
    few, many = of(Draws(3, noises=1), pictures(1)), of(Draws(3, noises=4), pictures(1))
    assert torch.equal(few.noise, many.noise[:, ::4])


@pytest.mark.parametrize("strategy", ["uniform", "random"])
def test_no_draw_is_a_copy_of_another(pictures, strategy):
    # 60 of 100 at random surely repeat a timestep; a repeated pair (t, ε) would be wasted work
    draws = Draws(60, strategy, 2)
    noise = draws.of(pictures(1), slice(None), linear(T=100), LIKE).noise[0]
    assert len({draw.numpy().tobytes() for draw in noise}) == 120


def test_global_generators_are_untouched(pictures):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    of(Draws(3, "random"), pictures(2))
    assert torch.equal(torch.get_rng_state(), torch_before) and np.array_equal(
        np.random.get_state()[1], numpy_before
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timesteps": 0}, "timesteps is 0"),
        ({"timesteps": -3}, "timesteps is -3"),
        ({"timesteps": ()}, r"timesteps is \(\)"),
        ({"noises": 0}, "noises is 0"),
    ],
)
def test_impossible_draws_are_refused(fields, said):
    with pytest.raises(OptionError, match=said):
        Draws(**fields)


@pytest.mark.parametrize(
    ("timesteps", "said"),
    [(1001, "1001.*only 1000"), ((5, 1000), "5 … 1000.*0 … 999"), ((-1, 5), "-1 … 5.*0 … 999")],
)
def test_timesteps_beyond_the_schedule_are_refused(timesteps, said):
    with pytest.raises(OptionError, match=said):
        Draws(timesteps).steps("any", 1000)


def test_a_path_needs_a_path(pictures):
    with pytest.raises(DataError, match="sampler's path"):
        along_trajectory(pictures(1), slice(None), linear(), LIKE)


def test_a_path_without_a_step_that_has_a_density_is_refused(pictures):
    examples = pictures(
        1, trajectory=np.zeros((1, 2, 1, 8, 8), np.float32), trajectory_timesteps=np.array([0, -1])
    )
    with pytest.raises(
        DataError, match="step"
    ):  # one step, straight to the picture: the mean over no draws would be NaN
        along_trajectory(examples, slice(None), linear(), LIKE)
