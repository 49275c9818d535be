"""Draws: which timesteps and which noise each example gets, a pure function of (seed, content hash, draw)."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater import seeds
from headwater.core import Examples
from headwater.diffusion.schedule import Schedule
from headwater.errors import DataError, OptionError, unknown

STRATEGIES = ("uniform", "cumulative", "stratified", "random")


class Draw(NamedTuple):
    """The d draws of b examples. Leading axes may be [b, d], or [d] inside a per-example transformation."""

    x: Float[Tensor, "*b 1 c h w"]
    t: Int64[Tensor, "*b d"]
    then: Int64[Tensor, "*b d"]  # the timestep that a sampler's step from t leads to; t − 1 unless a path says otherwise
    noise: Float[Tensor, "*b d c h w"]
    x_t: Float[Tensor, "*b d c h w"]


@dataclass(frozen=True)
class Draws:
    """K timesteps × `noises` noises per example.

    uniform: t = ⌊iT/K⌋ for i < K (K = 10, T = 1000: 0, 100, …, 900); cumulative: 0 … K−1; stratified: one t at random in each
    of K equal strata; random: K times at random. A tuple of timesteps is used as it stands. Noise is called
    (seed, content hash, t, j): K = 10 and K = 100 share what they have in common, and equal images share everything.
    """

    timesteps: int | tuple[int, ...] = 10
    strategy: str = "uniform"
    noises: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        if self.noises < 1:
            raise OptionError(f"noises is {self.noises}; expected 1 or more per timestep.")
        least = self.timesteps if isinstance(self.timesteps, int) else len(self.timesteps)
        if least < 1:
            raise OptionError(f"timesteps is {self.timesteps}; expected a count of 1 or more, or a list of steps.")

    def steps(self, content: str, T: int) -> Int64[np.ndarray, " K"]:
        """The timesteps of the example with this content hash."""
        if not isinstance(self.timesteps, int):
            steps = np.asarray(self.timesteps, dtype=np.int64)
            if steps.min() < 0 or steps.max() >= T:
                raise OptionError(f"timesteps has {steps.min()} … {steps.max()}; the model's schedule has 0 … {T - 1}.")
            return steps
        K = self.timesteps
        if K > T and self.strategy != "random":
            raise OptionError(f"timesteps is {K}; the model's schedule has only {T}.")
        if self.strategy == "uniform":
            return np.arange(K, dtype=np.int64) * T // K
        if self.strategy == "cumulative":
            return np.arange(K, dtype=np.int64)
        random = seeds.stream(self.seed, "timesteps", content)
        if self.strategy == "random":
            return random.integers(0, T, size=K)
        edges = np.arange(K + 1, dtype=np.int64) * T // K
        return random.integers(edges[:-1], edges[1:])

    def of(self, examples: Examples, rows: slice, schedule: Schedule, like: Tensor) -> Draw:
        """The draws of `examples[rows]`, with the dtype and device of `like`."""
        contents = examples.hashes[rows]
        shape = examples.shape
        t = np.stack([np.repeat(self.steps(content, schedule.T), self.noises) for content in contents])
        noise = np.stack(
            [
                [seeds.normal(shape, self.seed, "noise", content, step, j) for step, j in _counted(steps.tolist())]
                for content, steps in zip(contents, t, strict=True)
            ]
        )
        x = torch.as_tensor(examples.take(np.arange(len(examples))[rows]).pixels()).to(like)[:, None]
        times = torch.as_tensor(t, device=like.device)
        epsilon = torch.as_tensor(noise).to(like)
        return Draw(x, times, times - 1, epsilon, schedule.noised(x, epsilon, times))


def _counted(steps: list[int]) -> list[tuple[int, int]]:
    """Each timestep with how often it came before: a timestep drawn twice gets two noises."""
    before: Counter[int] = Counter()
    found = []
    for step in steps:
        found.append((step, before[step]))
        before[step] += 1
    return found


def along_trajectory(examples: Examples, rows: slice, schedule: Schedule, like: Tensor) -> Draw:
    """The stored states of a sampler's path as draws: x_t as it was, with the noise that its step to x_{t'} implies.

    From the DDPM step's mean, x_{t'} = μ(x_t, ε) solves to ε = (x_t − √(ᾱ_t/ᾱ_{t'}) x_{t'}) √(1−ᾱ_t)/(1−ᾱ_t/ᾱ_{t'}), so that
    ‖x_{t'} − μ_θ‖² is a multiple of ‖ε − ε_θ‖². The last step, to the picture itself, adds no noise and has no density:
    it is left out.
    """
    if examples.trajectory is None or examples.trajectory_timesteps is None:
        raise DataError(
            "The measurement 'trajectory' needs the sampler's path, but the queries hold none. "
            "Make them with `headwater sample … --sampler ddpm --trajectory`."
        )
    path = torch.as_tensor(examples.trajectory[rows], device=like.device).double()  # near t = 0 the differences are tiny
    times = torch.as_tensor(examples.trajectory_timesteps, device=like.device)
    keep = int((times >= 0).sum()) - 1
    if keep < 1:
        raise DataError("The queries' path has no step between two noisy states; expected two or more timesteps.")
    t, then = times[:keep], times[1 : keep + 1]
    x_t, after = path[:, :keep], path[:, 1 : keep + 1]
    alpha_bar = torch.as_tensor(schedule.alpha_bar, device=like.device)[:, None, None, None]
    step = alpha_bar[t] / alpha_bar[then]
    noise = (x_t - step.sqrt() * after) * (1 - alpha_bar[t]).sqrt() / (1 - step)
    b = len(path)
    return Draw(path[:, -1:].to(like), t.expand(b, -1), then.expand(b, -1), noise.to(like), x_t.to(like))
