"""Samplers: noise to pictures, one named noise stream per picture."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater import seeds
from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.schedule import Flow, Schedule
from headwater.errors import OptionError

SAMPLERS = ("ddim", "ddpm")
Predict = Callable[[Tensor, Tensor], Tensor]


class Samples(NamedTuple):
    """Pictures in model units; the path holds x_t for each of `timesteps` and, last, the picture (t = −1)."""

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
    predict: Predict | None = None,
    keep_path: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Samples:
    """Pictures `indices` of stream `seed`, or their latents: picture i does not depend on its batch.

    ddim (Song et al. 2021, arXiv:2010.02502, equation 12 with η = 0): x_{t'} = √ᾱ_{t'} x̂₀ + √(1−ᾱ_{t'}) ε̂;
    for a flow model Euler's step x_{t'} = (1−σ_{t'}) x̂₀ + σ_{t'} ε̂.
    ddpm (Ho et al. 2020, equation 7): the posterior mean of x_{t'} given x_t and x̂₀, plus its noise.
    Timesteps are "leading": i⌊T/steps⌋ (50 steps: 980, 960, …, 0). x̂₀ of pixels is clipped to [−1, 1].
    `predict` gives the network's output at (x, t) (None: the model's own, without a condition).
    """
    _check(model.schedule, sampler, steps)
    predict = predict or model.predict
    times = np.append(np.arange(steps)[::-1] * (model.schedule.T // steps), -1)
    x = _noise(model, indices, seed, "start")
    path = [x] if keep_path else []
    signal, sigma, alpha_bar = (  # [-1]: the finished picture
        np.append(values, last)
        for values, last in (
            (model.schedule.signal, 1.0),
            (model.schedule.sigma, 0.0),
            (model.schedule.alpha_bar, 1.0),
        )
    )
    for i, (now, then) in enumerate(zip(times[:-1].tolist(), times[1:].tolist(), strict=True)):
        t = torch.full((len(x),), now, device=x.device)
        with torch.no_grad():
            picture, epsilon = model.schedule.picture_and_noise(predict(x, t), x, t)
        picture = model.clipped(picture)
        if sampler == "ddim":
            x = float(signal[then]) * picture + float(sigma[then]) * epsilon
        else:
            noise = _noise(model, indices, seed, f"step-{now}") if then >= 0 else None
            x = _posterior(x, picture, float(alpha_bar[now]), float(alpha_bar[then]), noise)
        if keep_path:
            path.append(x)
        if on_step:
            on_step(i + 1, steps)
    return Samples(x, torch.stack(path, 1) if keep_path else None, times)


def _check(schedule: Schedule, sampler: str, steps: int) -> None:
    if sampler not in SAMPLERS:
        raise OptionError(f"sampler is '{sampler}'; expected {' or '.join(SAMPLERS)}.")
    if not 1 <= steps <= schedule.T:
        raise OptionError(f"steps is {steps}; expected 1 to {schedule.T}.")
    if sampler == "ddpm" and isinstance(schedule, Flow):
        raise OptionError(
            "sampler is 'ddpm', and the model is a flow, whose path has no noise; expected ddim."
        )


def _posterior(x: Tensor, picture: Tensor, now: float, then: float, noise: Tensor | None) -> Tensor:
    """x_{t'} given x_t and x̂₀, for ᾱ_t = `now` and ᾱ_{t'} = `then`; its mean without noise."""
    step = now / then
    mean = (then**0.5 * (1 - step) * picture + step**0.5 * (1 - then) * x) / (1 - now)
    return mean if noise is None else mean + ((1 - then) / (1 - now) * (1 - step)) ** 0.5 * noise


def conditioned(model: Denoiser, condition: Condition, guidance: float = 1.0) -> Predict:
    """c, the output under the condition; with guidance g ≠ 1, u + g·(c − u), u for the empty prompt.

    (Ho & Salimans 2022, arXiv:2207.12598.)
    """
    if guidance == 1:
        return lambda x, t: model.predict(x, t, condition)
    if model.text is None:
        raise OptionError(
            f"guidance is {guidance:g}; only a model that takes prompts can be guided. Leave it out."
        )
    empty = model.text.embed([""])
    unconditional = {name: empty[name].expand_as(value) for name, value in condition.items()}

    def output(x: Tensor, t: Tensor) -> Tensor:
        plain = model.predict(x, t, unconditional)
        return plain + guidance * (model.predict(x, t, condition) - plain)

    return output


def _noise(model: Denoiser, indices: range, seed: int, name: str) -> Tensor:
    noise = [seeds.normal(model.shape, seed, "sample", i, name) for i in indices]
    return torch.as_tensor(np.stack(noise), dtype=model.like.dtype, device=model.device)
