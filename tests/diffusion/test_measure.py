"""Measurements against their closed forms, by hand, in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draw, along_trajectory
from headwater.diffusion.measure import MEASUREMENTS, measurement, simple, square
from headwater.diffusion.sample import conditioned, sample
from headwater.diffusion.schedule import linear
from headwater.errors import OptionError

EXACT = {"rtol": 1e-10, "atol": 1e-12}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
D = 1 * 4 * 4  # pixel values of a picture


def random(name: str, *shape: int) -> Tensor:
    return torch.as_tensor(seeds.generator(0, "test_measure", name).standard_normal(shape))


@pytest.fixture
def output():
    return random("output", 2, 3, 1, 4, 4)


@pytest.fixture
def draw():
    """Two pictures, three draws each."""
    x, noise, t = (
        random("x", 2, 1, 1, 4, 4),
        random("noise", 2, 3, 1, 4, 4),
        torch.tensor([[0, 100, 999], [1, 500, 700]]),
    )
    return Draw(x, t, t - 1, noise, linear().noised(x, noise, t))


def pixels(values: Tensor) -> Tensor:
    return values.expand(2, 3, 1, 4, 4).reshape(2, 3, D)


def target(draw: Draw, prediction: str) -> Tensor:
    alpha_bar = torch.as_tensor(linear().alpha_bar)[draw.t][..., None]
    x, noise = pixels(draw.x), pixels(draw.noise)
    return {
        "epsilon": noise,
        "sample": x,
        "v_prediction": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x,
    }[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_simple_is_the_mean_squared_error_of_the_models_own_target(output, draw, prediction):
    values = simple(output, draw, linear(prediction=prediction))
    torch.testing.assert_close(
        values, ((target(draw, prediction) - pixels(output)) ** 2).sum(-1) / D, **EXACT
    )


def test_loss_is_another_name_of_simple():
    assert measurement("loss") is measurement("simple")


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("square", lambda out: (out**2).sum(-1) / D),
        ("avg", lambda out: out.sum(-1) / D),
        ("l1", lambda out: out.abs().sum(-1)),
        ("l2", lambda out: (out**2).sum(-1) ** 0.5),
        ("linf", lambda out: out.abs().max(-1).values),
    ],
)
def test_norms_and_means_are_of_the_raw_output(output, draw, name, closed, prediction):
    values = measurement(name)(output, draw, linear(prediction=prediction))
    torch.testing.assert_close(values, closed(pixels(output)), **EXACT)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_elbo_weighs_the_error_of_the_noise_by_beta_over_2_alpha_1_minus_alpha_bar(output, draw, prediction):
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    weight = torch.as_tensor(beta / (2 * (1 - beta) * (1 - alpha_bar)))[draw.t]
    out, a = pixels(output), torch.as_tensor(alpha_bar)[draw.t][..., None]
    x_t = a.sqrt() * pixels(draw.x) + (1 - a).sqrt() * pixels(draw.noise)
    noise = {
        "epsilon": out,
        "sample": (x_t - a.sqrt() * out) / (1 - a).sqrt(),
        "v_prediction": a.sqrt() * out + (1 - a).sqrt() * x_t,
    }[prediction]
    values = measurement("elbo")(output, draw, linear(prediction=prediction))
    torch.testing.assert_close(
        values, weight * ((pixels(draw.noise) - noise) ** 2).sum(-1) / D, rtol=1e-9, atol=1e-12
    )


def test_the_elbo_weight_at_the_first_timestep_is_one_half_over_alpha(output, draw):
    ratio = measurement("elbo")(output, draw, linear()) / simple(output, draw, linear())
    assert float(ratio[0, 0]) == pytest.approx(
        0.5 / (1 - 1e-4), rel=1e-9
    )  # ᾱ_0 = α_0, so β_0 = 1 − ᾱ_0 cancels


def gradient(name: str, output: Tensor, draw: Draw, prediction: str) -> Tensor:
    """∂m/∂output of each draw, `[b, d, pixels]`."""
    leaf = output.clone().requires_grad_()
    (slope,) = torch.autograd.grad(measurement(name)(leaf, draw, linear(prediction=prediction)).sum(), leaf)
    return pixels(slope)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_gradients_of_simple_square_and_eta_are_those_of_the_paper(output, draw, prediction):
    out, aim = pixels(output), target(draw, prediction)
    torch.testing.assert_close(gradient("simple", output, draw, prediction), 2 * (out - aim) / D, **EXACT)
    torch.testing.assert_close(gradient("square", output, draw, prediction), 2 * out / D, **EXACT)
    for eta in (0.0, 0.3, 0.5, 1.0):
        closed = 2 * (eta * out - (1 - eta) * aim) / D
        torch.testing.assert_close(gradient(f"eta:{eta}", output, draw, prediction), closed, **EXACT)


def test_eta_is_half_of_simple_at_one_half_and_square_at_one(output, draw):
    schedule = linear()
    torch.testing.assert_close(
        measurement("eta:0.5")(output, draw, schedule), simple(output, draw, schedule) / 2, **EXACT
    )
    torch.testing.assert_close(
        measurement("eta:1")(output, draw, schedule), square(output, draw, schedule), **EXACT
    )


@pytest.mark.parametrize("name", [*MEASUREMENTS, "eta:0.3"])
def test_a_perfect_model_has_the_least_loss(output, draw, name):
    values = measurement(name)(output, draw, linear())
    assert values.shape == (2, 3) and values.isfinite().all()
    if name in ("simple", "loss", "elbo"):
        assert (measurement(name)(draw.noise, draw, linear()) == 0).all() and (values > 0).all()


@pytest.mark.parametrize("name", ["eta:", "eta:2", "eta:-0.1", "eta:nan", "eta:x", "sqare", "", "ETA:0.3"])
def test_an_unknown_measurement_is_refused_by_name(name):
    with pytest.raises(OptionError, match=name or "''"):
        measurement(name)


# trajectory: −log p of a stored path


def path_of(model, pictures, steps=12, labels=None):
    """Two pictures sampled by ddpm, as queries that carry their path."""
    predict = None if labels is None else conditioned(model, {"class_labels": labels})
    samples = sample(model, range(2), 3, sampler="ddpm", steps=steps, keep_path=True, predict=predict)
    assert samples.path is not None
    return samples, pictures(
        2, trajectory=samples.path.float().numpy(), trajectory_timesteps=samples.timesteps
    )


def minus_log_p(model, path: Tensor, times: list[int]) -> Tensor:
    """−Σ log N(x_{t'}; μ_θ(x_t), σ_t²) and the sum of its constants, step by step as diffusers' DDPMScheduler
    writes them."""
    alpha_bar = torch.as_tensor(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))  # theirs is a float32 product
    value, constant = torch.zeros(len(path)).double(), 0.0
    for s, (now, then) in enumerate(itertools.pairwise(times[:-1])):
        x_t, after = path[:, s], path[:, s + 1]
        output = model.predict(x_t, torch.full((len(path),), now))
        a, b = alpha_bar[now], alpha_bar[then]
        beta = 1 - a / b
        picture = {
            "epsilon": (x_t - (1 - a).sqrt() * output) / a.sqrt(),
            "v_prediction": a.sqrt() * x_t - (1 - a).sqrt() * output,
            "sample": output,
        }[model.schedule.prediction]
        mean = (b.sqrt() * beta * picture + (1 - beta).sqrt() * (1 - b) * x_t) / (1 - a)
        sigma = ((1 - b) / (1 - a) * beta).sqrt()
        value -= torch.distributions.Normal(mean, sigma).log_prob(after).sum((1, 2, 3))
        constant += float(x_t[0].numel() * (sigma.log() + 0.5 * np.log(2 * np.pi)))
    return value - constant


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_trajectory_is_minus_log_p_of_the_path_up_to_a_constant(tiny, pictures, prediction):
    model = tiny(prediction=prediction)
    samples, queries = path_of(model, pictures)
    like = torch.zeros((), dtype=torch.float64)
    draw = along_trajectory(queries, slice(None), model.schedule, like)
    with torch.no_grad():
        output = model.predict(draw.x_t.flatten(0, 1), draw.t.flatten()).view_as(draw.x_t)
        value = measurement("trajectory")(output, draw, model.schedule).sum(1)
        direct = minus_log_p(model, torch.as_tensor(queries.trajectory).double(), samples.timesteps.tolist())
    torch.testing.assert_close(value, direct, rtol=1e-9, atol=0)


class Halving(nn.Module):
    """Predicts the picture tanh(w x_t): inside [−1, 1], so that no sampler clips it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x, t):
        return torch.tanh(self.w * x)


def test_where_nothing_is_clipped_trajectory_is_half_the_squared_noise_that_the_sampler_added(pictures):
    model = Denoiser(Halving(), linear(prediction="sample"), (1, 8, 8), "")
    samples, queries = path_of(model, pictures)
    draw = along_trajectory(queries, slice(None), model.schedule, torch.zeros((), dtype=torch.float64))
    with torch.no_grad():
        output = model.predict(draw.x_t.flatten(0, 1), draw.t.flatten()).view_as(draw.x_t)
        value = measurement("trajectory")(output, draw, model.schedule).sum(1)
    added = [
        [seeds.normal((1, 8, 8), 3, "sample", i, f"step-{t}") for t in samples.timesteps[:-2]]
        for i in range(2)
    ]
    np.testing.assert_allclose(
        value, 0.5 * np.square(np.array(added, np.float64)).sum((1, 2, 3, 4)), rtol=1e-5
    )


def test_along_a_path_states_are_as_stored_and_the_last_step_is_left_out(tiny, pictures):
    samples, queries = path_of(tiny(), pictures, steps=5)
    draw = along_trajectory(queries, slice(None), linear(), torch.zeros((), dtype=torch.float64))
    assert samples.timesteps.tolist() == [800, 600, 400, 200, 0, -1]
    assert draw.t.tolist() == [[800, 600, 400, 200]] * 2 and draw.then.tolist() == [[600, 400, 200, 0]] * 2
    assert torch.equal(draw.x_t, torch.as_tensor(queries.trajectory[:, :4]).double())
    assert torch.equal(draw.x, torch.as_tensor(queries.trajectory[:, -1:]).double())


def test_trajectory_in_float32_is_trajectory_in_float64_also_near_t_0(pictures):
    random_path = seeds.normal((1, 5, 1, 8, 8), 0, "path")
    queries = pictures(1, trajectory=random_path, trajectory_timesteps=np.array([3, 2, 1, 0, -1]))
    values, noises = [], []
    for dtype in (torch.float32, torch.float64):
        draw = along_trajectory(queries, slice(None), linear(), torch.zeros((), dtype=dtype))
        noises.append(draw.noise.double())
        values.append(measurement("trajectory")(torch.zeros_like(draw.noise), draw, linear()).double())
    torch.testing.assert_close(noises[0], noises[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=0)
