"""Draws: the timesteps and noise of each example, a pure function of (seed, content hash, draw)."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater import seeds
from headwater.diffusion.denoiser import Condition, Denoiser
from headwater.diffusion.paths import path
from headwater.diffusion.schedule import Schedule
from headwater.errors import DataError, OptionError, unknown
from headwater.examples import Examples
from headwater.linalg.transfer import sent

STRATEGIES = ("uniform", "cumulative", "stratified", "antithetic", "random")
NOISES = ("own", "shared")


class Draw(NamedTuple):
    """The d draws of b examples. Leading axes may be [b, d], or [d] inside a per-example transformation."""

    x: Float[Tensor, "*b _ c h w"]  # one picture for all draws, or one per draw
    t: Int64[Tensor, "*b d"]
    then: Int64[Tensor, "*b d"]  # the timestep after t on a sampler's path; else t − 1
    noise: Float[Tensor, "*b d c h w"]
    x_t: Float[Tensor, "*b d c h w"]


class Numbers(NamedTuple):
    """What NumPy computes for the d draws of b examples: their pictures, timesteps and noise."""

    x: Float[np.ndarray, "b c h w"]
    t: Int64[np.ndarray, "b d"]
    noise: Float[np.ndarray, "b d c h w"]

    def noised(self, schedule: Schedule, like: Tensor) -> Draw:
        """The draws, with the dtype and device of `like`."""
        x = sent(self.x, like.device, like.dtype)[:, None]
        t, noise = sent(self.t, like.device), sent(self.noise, like.device, like.dtype)
        return Draw(x, t, t - 1, noise, schedule.noised(x, noise, t))


@dataclass(frozen=True)
class Draws:
    """K timesteps × `noises` noises per example.

    uniform: t = ⌊iT/K⌋ for i < K (K = 10, T = 1000: 0, 100, …, 900); cumulative: 0 … K−1; stratified: one t
    at random in each of K equal strata; antithetic: the same timesteps, and every second draw has the noise
    of the one before it with the opposite sign; random: K times at random. A tuple of timesteps is used
    unchanged. Noise `own` is named (seed, content hash, t, j): K = 10 and K = 100 share the noise of common
    timesteps, and equal images share all of it. Noise `shared` is named (seed, t, j): one ε for all images.
    """

    timesteps: int | tuple[int, ...] = 10
    strategy: str = "uniform"
    noises: int = 1
    seed: int = 0
    noise: str = "own"

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        check_noise(self.noise)
        if self.noises < 1:
            raise OptionError(f"noises is {self.noises}; expected 1 or more per timestep.")
        if self.count < 1:
            raise OptionError(
                f"timesteps is {self.timesteps}; expected a count of 1 or more, or a list of steps."
            )

    @property
    def count(self) -> int:
        """Draws of one example."""
        return (self.timesteps if isinstance(self.timesteps, int) else len(self.timesteps)) * self.noises

    def manifest(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return without_own(asdict(self))

    def check(self, T: int, name: str = "timesteps") -> None:
        """Raise an OptionError if a schedule of T timesteps lacks these; the error calls them `name`."""
        steps = self.timesteps
        if isinstance(steps, int):
            if steps > T and self.strategy != "random":
                raise OptionError(f"{name} is {steps}; the model's schedule has only {T}.")
        elif min(steps) < 0 or max(steps) >= T:
            raise OptionError(
                f"{name} has {min(steps)} … {max(steps)}; the model's schedule has 0 … {T - 1}."
            )

    def steps(self, content: str, T: int) -> Int64[np.ndarray, " K"]:
        """The timesteps of the example with this content hash."""
        self.check(T)
        K = self.timesteps
        if not isinstance(K, int):
            return np.asarray(K, dtype=np.int64)
        if self.strategy == "uniform":
            return np.arange(K, dtype=np.int64) * T // K
        if self.strategy == "cumulative":
            return np.arange(K, dtype=np.int64)
        random = seeds.generator(self.seed, "timesteps", content)
        if self.strategy == "random":
            return random.integers(0, T, size=K)
        edges = np.arange(K + 1, dtype=np.int64) * T // K
        return random.integers(edges[:-1], edges[1:])

    def numbers(self, examples: Examples, rows: slice, T: int) -> Numbers:
        """The numbers of the draws of `examples[rows]`, for a schedule of T timesteps."""
        contents = examples.hashes[rows]
        t = np.stack([np.repeat(self.steps(content, T), self.noises) for content in contents])
        noise = _named_noise(self.seed, examples.input_shape, contents, t, self.noise)
        if self.strategy == "antithetic":
            noise[:, 1::2] = -noise[:, : t.shape[1] // 2 * 2 : 2]
        return Numbers(examples.take(np.arange(len(examples))[rows]).inputs(), t, noise)

    def of(self, examples: Examples, rows: slice, schedule: Schedule, like: Tensor) -> Draw:
        """The draws of `examples[rows]`, with the dtype and device of `like`."""
        return self.numbers(examples, rows, schedule.T).noised(schedule, like)


@dataclass(frozen=True)
class Journey:
    """The picture x̂₀ predicted at each timestep t of a sampler's path, noised again to t.

    x̂₀ is the prediction from the stored x_t, clipped as the sampler clips it. Noise is named as in `Draws`.
    (Georgiev et al. 2023, arXiv:2312.06205; D-TRAK paper, appendix A.3.)
    """

    noises: int = 1
    seed: int = 0
    along: str = "journey"  # distinguishes it from Draws in the store
    noise: str = "own"

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def manifest(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return without_own(asdict(self))

    def of(
        self, examples: Examples, rows: slice, model: Denoiser, condition: Condition, like: Tensor
    ) -> Draw:
        """The draws of `examples[rows]`; `condition` has one row for each example, [b, 1, …]."""
        x_t, times = path(examples, rows, like.device)
        steps = times[times >= 0]
        states = x_t[:, : len(steps)].to(like)
        t = sent(steps, like.device).expand(len(states), -1)
        repeated = {
            name: v.expand(-1, t.shape[1], *v.shape[2:]).flatten(0, 1) for name, v in condition.items()
        }
        x = (
            _pictures(model, states.flatten(0, 1), t.reshape(-1), repeated)
            .view_as(states)
            .repeat_interleave(self.noises, 1)
        )
        t = t.repeat_interleave(self.noises, 1)
        named = np.tile(np.repeat(steps, self.noises), (len(states), 1))
        noise = _named_noise(self.seed, examples.input_shape, examples.hashes[rows], named, self.noise)
        epsilon = sent(noise, like.device, like.dtype)
        return Draw(x, t, t - 1, epsilon, model.schedule.noised(x, epsilon, t))


@dataclass(frozen=True)
class PseudoTargets:
    """`draws` with the same x_t, and η ~ N(0, I) named (seed, content hash, t, j) for the target noise.

    A target sampled from the model is ε_mod = ε_θ + η, of which a Monte-Carlo Fisher needs only η.
    (Mlodozieniec et al. 2025, arXiv:2410.13850, equation 10.)
    """

    draws: Draws
    seed: int = 0

    @property
    def noises(self) -> int:
        """Noises per timestep."""
        return self.draws.noises

    @property
    def count(self) -> int:
        """Draws of one example."""
        return self.draws.count

    def manifest(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {"draws": self.draws.manifest(), "seed": self.seed}

    def of(self, examples: Examples, rows: slice, schedule: Schedule, like: Tensor) -> Draw:
        """The draws of `examples[rows]`, with η for their noise."""
        numbers = self.draws.numbers(examples, rows, schedule.T)
        eta = _named_noise(self.seed, examples.input_shape, examples.hashes[rows], numbers.t, kind="sampled")
        return numbers.noised(schedule, like)._replace(noise=sent(eta, like.device, like.dtype))


AnyDraws = Draws | Journey | PseudoTargets


def _pictures(
    model: Denoiser, x_t: Tensor, t: Tensor, condition: Condition, together: int = 64
) -> Float[Tensor, "b c h w"]:
    """x̂₀ of each state, clipped as the sampler clips it, `together` at a time."""
    pictures = []
    with torch.no_grad():
        for low in range(0, len(x_t), together):
            part = slice(low, low + together)
            output = model.predict(
                x_t[part], t[part], {name: value[part] for name, value in condition.items()}
            )
            pictures.append(model.clipped(model.schedule.picture_and_noise(output, x_t[part], t[part])[0]))
    return torch.cat(pictures)


def _named_noise(
    seed: int,
    shape: tuple[int, int, int],
    contents: tuple[str, ...],
    t: Int64[np.ndarray, "b d"],
    noise: str = "own",
    kind: str = "noise",
) -> Float[np.ndarray, "b d c h w"]:
    """The noise named (seed, content hash, t, number of earlier draws at t); `shared`, all but content."""

    def of(content: str, step: int, j: int) -> Float[np.ndarray, "c h w"]:
        if noise == "shared":
            return shared_noise(shape, seed, step, j)
        return seeds.normal(shape, seed, kind, content, step, j)

    return np.stack(
        [
            [of(content, step, j) for step, j in _counted(steps.tolist())]
            for content, steps in zip(contents, t, strict=True)
        ]
    )


@lru_cache(maxsize=128)
def shared_noise(shape: tuple[int, int, int], seed: int, step: int, j: int) -> Float[np.ndarray, "c h w"]:
    """The noise that all images have at a timestep: drawn once for every batch."""
    return seeds.normal(shape, seed, "shared noise", step, j)


def check_noise(noise: str) -> None:
    """Raise an OptionError unless `noise` says whose it is."""
    if noise not in NOISES:
        raise unknown("noise", noise, NOISES)


def without_own(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as they were named in the store before noise could be shared."""
    return {name: value for name, value in fields.items() if (name, value) != ("noise", "own")}


def _counted(steps: list[int]) -> list[tuple[int, int]]:
    """Each timestep with the number of its earlier occurrences: a timestep drawn twice gets two noises."""
    before: Counter[int] = Counter()
    pairs = []
    for step in steps:
        pairs.append((step, before[step]))
        before[step] += 1
    return pairs


def along_trajectory(examples: Examples, rows: slice, schedule: Schedule, like: Tensor) -> Draw:
    """The stored states of a sampler's path as draws: x_t with the noise that its step to x_{t'} implies.

    From the DDPM step's mean, x_{t'} = μ(x_t, ε) solves to ε = (x_t − √(ᾱ_t/ᾱ_{t'}) x_{t'})
    √(1−ᾱ_t)/(1−ᾱ_t/ᾱ_{t'}), so that ‖x_{t'} − μ_θ‖² is a multiple of ‖ε − ε_θ‖². The last step, to the
    picture, adds no noise and has no density: it is left out.
    """
    states, stored = path(examples, rows, like.device)
    keep = int((stored >= 0).sum()) - 1
    if keep < 1:
        raise DataError(
            "The queries' path has no step between two noisy states; expected two or more timesteps."
        )
    times = sent(stored, like.device)
    t, then = times[:keep], times[1 : keep + 1]
    x_t, after = states[:, :keep], states[:, 1 : keep + 1]
    alpha_bar = schedule.table("alpha_bar", like.device, torch.float64)[:, None, None, None]
    step = alpha_bar[t] / alpha_bar[then]
    noise = (x_t - step.sqrt() * after) * (1 - alpha_bar[t]).sqrt() / (1 - step)
    b = len(states)
    return Draw(states[:, -1:].to(like), t.expand(b, -1), then.expand(b, -1), noise.to(like), x_t.to(like))
