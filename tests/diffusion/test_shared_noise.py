"""One ε for all images: how it is named, and what it does to products of gradients, against a closed form."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws, Journey
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.errors import OptionError
from headwater.examples import Examples
from headwater.gradients.hooks import gradients
from headwater.methods import METHODS, make, method_class

LIKE = torch.zeros((), dtype=torch.float64)
SEEDS = 120


def of(draws, examples, rows=slice(None)):
    return draws.of(examples, rows, linear(), LIKE)


def test_all_images_have_one_noise_for_a_timestep_and_place(pictures):
    examples, draws = pictures(3), Draws((5, 5, 700), noises=2, seed=4, noise="shared")
    noise = of(draws, examples).noise
    assert all(torch.equal(noise[0], row) for row in noise)
    named = [seeds.normal((1, 8, 8), 4, "shared noise", t, j) for t, j in [(5, j) for j in range(4)]]
    named += [seeds.normal((1, 8, 8), 4, "shared noise", 700, j) for j in range(2)]
    np.testing.assert_array_equal(noise[0].float().numpy(), named)
    assert torch.equal(of(draws, examples, slice(1, 2)).noise, noise[1:2])
    assert torch.equal(of(draws, pictures(1, seed=9)).noise[0], noise[0])


def test_images_whose_timesteps_are_drawn_share_the_noise_of_a_timestep(pictures):
    draw = of(Draws(40, "stratified", noise="shared"), pictures(4))
    for t in set(draw.t[0].tolist()) & set(draw.t[1].tolist()):
        first, second = (draw.noise[row, int((draw.t[row] == t).nonzero()[0])] for row in (0, 1))
        assert torch.equal(first, second)


def test_the_store_names_noise_of_one_s_own_as_before():
    assert Draws(3, seed=1).manifest() == {"timesteps": 3, "strategy": "uniform", "noises": 1, "seed": 1}
    assert Draws(3, noise="shared").manifest() == asdict(Draws(3, noise="shared"))
    assert Journey(2).manifest() == {"noises": 2, "seed": 0, "along": "journey"}


def test_noise_of_nobody_is_refused():
    for name in METHODS:
        if "noise" in method_class(name).__dataclass_fields__:
            with pytest.raises(OptionError, match="There is no noise 'theirs'"):
                make(name, {"noise": "theirs"})


class Scale(nn.Module):
    """ε̂ = w x_t for pictures of one pixel."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(self.layer.weight, 0.7)

    def forward(self, x, t):
        return self.layer(x.flatten(1)).view_as(x)


def products(examples, **fields):
    """⟨∇ℓ(first), ∇ℓ(second)⟩ for many seeds."""
    model = Denoiser(Scale(), linear(), (1, 1, 1), "scale")
    values = []
    for seed in range(SEEDS):
        g = torch.cat(list(gradients(model, examples, simple, Draws(seed=seed, **fields))))
        values.append(float(g[0] @ g[1]))
    return np.array(values)


def moments(examples, t):
    """A, B and C of ∇ℓ = A + Bε + Cε², the gradient of (w x_t − ε)² by w, for both pictures."""
    schedule, w = linear(), 0.7
    a, s = float(schedule.alpha_bar[t]) ** 0.5, float(1 - schedule.alpha_bar[t]) ** 0.5
    x = examples.inputs()[:, 0, 0, 0].astype(float)
    return 2 * w * (a * x) ** 2, 2 * a * x * (2 * w * s - 1), 2 * (w * s - 1) * s


def close(values, mean, variance=None):
    """Within five standard errors, of the mean and of the variance."""
    assert abs(values.mean() - mean) < 5 * values.std() / SEEDS**0.5
    if variance is not None:
        squares = (values - mean) ** 2
        assert abs(squares.mean() - variance) < 5 * squares.std() / SEEDS**0.5


def test_a_product_of_gradients_has_the_mean_and_variance_of_its_closed_form():
    """Own noise leaves the product of the means, shared noise adds the covariance; antithetic pairs take the
    part of ε that is odd out of both."""
    t = 600
    examples = Examples(np.array([40, 230], np.uint8).reshape(2, 1, 1, 1))
    A, B, C = moments(examples, t)
    mean, odd, even = A + C, B, 2 * C**2
    second = mean**2 + odd**2 + even  # E of the square of a gradient
    close(products(examples, timesteps=(t,)), mean.prod(), second.prod() - mean.prod() ** 2)
    close(products(examples, timesteps=(t,), noise="shared"), mean.prod() + odd.prod() + even)
    pairs = {"timesteps": (t,), "strategy": "antithetic", "noises": 2}
    second = mean**2 + even
    close(products(examples, **pairs), mean.prod(), second.prod() - mean.prod() ** 2)
    close(products(examples, **pairs, noise="shared"), mean.prod() + even)
