"""Samplers: noise to pictures, one named noise stream per picture."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater import seeds
from headwater.diffusion.denoiser import Denoiser
from headwater.errors import OptionError

SAMPLERS = ("ddim", "ddpm")


class Sampled(NamedTuple):
    """Finished pictures in model units; the path holds x_t for each of `timesteps` and, last, the picture itself (t = −1)."""

    pictures: Float[Tensor, "n c h w"]
    path: Float[Tensor, "n s c h w"] | None
    timesteps: Int64[np.ndarray, " s"]


def sample(
    model: Denoiser,
    indices: range,
    seed: int,
    *,
    sampler: str = "ddim",
    steps: int = 50,
    labels: Int64[Tensor, " n"] | None = None,
    keep_path: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Sampled:
    """The pictures numbered `indices` of stream `seed`: picture i is the same whatever batch it is made in.

    ddim (Song et al. 2021, arXiv:2010.02502, equation 12 with η = 0): x_{t'} = √ᾱ_{t'} x̂₀ + √(1−ᾱ_{t'}) ε̂.
    ddpm (Ho et al. 2020, equation 7): the posterior mean of x_{t'} given x_t and x̂₀, plus noise of the posterior variance.
    Timesteps are "leading": i⌊T/steps⌋ (50 steps: 980, 960, …, 0). x̂₀ is clipped to [−1, 1].
    """
    T = model.schedule.T
    if sampler not in SAMPLERS:
        raise OptionError(f"sampler is '{sampler}'; expected {' or '.join(SAMPLERS)}.")
    if not 1 <= steps <= T:
        raise OptionError(f"steps is {steps}; expected 1 to {T}.")
    times = np.append(np.arange(steps)[::-1] * (T // steps), -1)
    x = _noise(model, indices, seed, "start")
    path = [x] if keep_path else []
    alpha_bar = np.append(model.schedule.alpha_bar, 1.0)  # [-1]: the finished picture
    for i, (now, then) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        t = torch.full((len(x),), now, device=x.device)
        with torch.no_grad():
            picture, epsilon = model.schedule.picture_and_noise(model.predict(x, t, labels), x, t)
        picture = picture.clamp(-1, 1)
        a_now, a_then = float(alpha_bar[now]), float(alpha_bar[then])
        if sampler == "ddim":
            x = a_then**0.5 * picture + (1 - a_then) ** 0.5 * epsilon
        else:
            step = a_now / a_then
            x = (a_then**0.5 * (1 - step) * picture + step**0.5 * (1 - a_then) * x) / (1 - a_now)
            if then >= 0:
                x = x + ((1 - a_then) / (1 - a_now) * (1 - step)) ** 0.5 * _noise(model, indices, seed, f"step-{now}")
        if keep_path:
            path.append(x)
        if on_step:
            on_step(i + 1, steps)
    return Sampled(x, torch.stack(path, 1) if keep_path else None, times)


def _noise(model: Denoiser, indices: range, seed: int, name: str) -> Tensor:
    each = [seeds.normal(model.shape, seed, "sample", i, name) for i in indices]
    return torch.as_tensor(np.stack(each), dtype=model.dtype, device=model.device)
