"""The noise schedule, against published values and against diffusers."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from headwater import seeds
from headwater.diffusion.schedule import linear

PREDICTIONS = ("epsilon", "v_prediction", "sample")
KEPT_SIGNAL = {100: 0.895142, 200: 0.656347, 300: 0.394011, 400: 0.193572, 500: 0.077797}


def random(name: str, *shape: int) -> torch.Tensor:
    return torch.as_tensor(seeds.generator(0, "test_schedule", name).standard_normal(shape))


@pytest.fixture
def noisy():
    """Picture, noise and timestep of six images, in float64."""
    return random("x", 6, 1, 4, 4), random("noise", 6, 1, 4, 4), torch.tensor([0, 1, 100, 500, 998, 999])


def test_the_linear_schedule_keeps_as_much_signal_as_ddpm_says():
    alpha_bar = linear().alpha_bar
    assert {t: round(float(alpha_bar[t]), 6) for t in KEPT_SIGNAL} == KEPT_SIGNAL


def test_the_linear_schedule_is_diffusers_default_one():
    assert np.allclose(
        linear().alpha_bar, DDPMScheduler().alphas_cumprod, rtol=3e-5
    )  # expected is a float32 product of 1000


def test_beta_rises_linearly_from_1e_4_to_2e_2():
    assert np.allclose(linear().beta, np.linspace(1e-4, 0.02, 1000), rtol=1e-10, atol=1e-13)
    assert linear(T=10, start=0.1, end=0.3).T == 10


def test_signal_and_noise_have_the_variance_of_1(noisy):
    x, _, t = noisy
    signal, sigma = linear().signal_and_noise(t, x)
    assert signal.shape == sigma.shape == (6, 1, 1, 1)
    assert torch.allclose(signal**2 + sigma**2, torch.ones(6, 1, 1, 1, dtype=torch.float64), atol=1e-15)


def test_noised_pictures_are_those_of_diffusers(noisy):
    x, noise, t = noisy
    expected = DDPMScheduler().add_noise(x, noise, t)
    assert torch.allclose(linear().noised(x, noise, t), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_is_that_of_diffusers(noisy, prediction):
    x, noise, t = noisy
    expected = {"epsilon": noise, "sample": x, "v_prediction": DDPMScheduler().get_velocity(x, noise, t)}[
        prediction
    ]
    assert torch.allclose(linear(prediction=prediction).target(x, noise, t), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_output_implies_the_true_picture_and_noise(noisy, prediction):
    x, noise, t = noisy
    schedule = linear(prediction=prediction)
    picture, implied = schedule.picture_and_noise(
        schedule.target(x, noise, t), schedule.noised(x, noise, t), t
    )
    assert torch.allclose(picture, x, atol=1e-12)
    assert torch.allclose(implied, noise, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_any_output_implies_a_picture_and_noise_that_mix_back_to_x_t(noisy, prediction):
    x_t, output, t = noisy
    schedule = linear(prediction=prediction)
    picture, noise = schedule.picture_and_noise(output, x_t, t)
    assert torch.allclose(schedule.noised(picture, noise, t), x_t, atol=1e-12)


def test_one_picture_with_many_draws_is_broadcast():
    x, noise, t = (
        random("x", 2, 1, 1, 4, 4),
        random("noise", 2, 3, 1, 4, 4),
        torch.tensor([[0, 5, 9], [3, 3, 7]]),
    )
    for prediction in PREDICTIONS:
        schedule = linear(prediction=prediction)
        assert schedule.noised(x, noise, t).shape == schedule.target(x, noise, t).shape == noise.shape
        assert torch.equal(
            schedule.noised(x, noise, t)[1, 2], schedule.noised(x[1], noise[1, 2:], t[1, 2:])[0]
        )


def test_float32_tables_are_rounded_once_from_float64():
    schedule = linear(T=1, start=1e-9)
    _, sigma = schedule.signal_and_noise(torch.tensor([0]), torch.zeros(1))
    assert float(sigma) == pytest.approx(1e-9**0.5, rel=1e-6)  # 1 − ᾱ taken in float32 would be 0


def test_tables_stay_on_the_device_and_outlive_a_transformation_and_do_not_travel():
    schedule = linear()
    t, x = torch.tensor([[3], [7]]), torch.ones(2, 1, 1, 2, 2)
    weigh = torch.func.vmap(torch.func.grad(lambda x, t: schedule.noised(x, x, t).sum()))
    first = weigh(x, t)
    table = schedule.table("signal", x.device, x.dtype)
    assert torch.equal(weigh(x, t), first) and schedule.table("signal", x.device, x.dtype) is table
    np.testing.assert_array_equal(table.numpy(), schedule.signal.astype(np.float32))
    assert schedule.table("signal", x.device, torch.float64).dtype == torch.float64
    assert vars(deepcopy(schedule)).keys() == {"beta", "prediction", "alpha_bar"} & vars(schedule).keys()
