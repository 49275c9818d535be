"""The noise schedule: the shares of picture and noise at each timestep t."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.func import debug_unwrap

from headwater.errors import ModelError, OptionError

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """x_t = √ᾱ_t x + √(1−ᾱ_t) ε, t = 0 … T−1 (Ho et al. 2020, arXiv:2006.11239, equation 4).

    `prediction` names what the network outputs: the noise ε, the velocity v = √ᾱ ε − √(1−ᾱ) x
    (Salimans & Ho 2022, arXiv:2202.00512), or the picture x itself. Raises a ModelError for impossible β.
    """

    beta: Float64[np.ndarray, " T"]
    prediction: Prediction = "epsilon"

    def __post_init__(self) -> None:
        values = self.beta
        is_possible = (values > 0) & (values < 1)  # False for NaN
        is_possible[-1:] |= values[-1:] == 1  # no signal at the last timestep
        if values.ndim != 1 or len(values) == 0:
            raise ModelError(f"The noise schedule has shape {values.shape}; expected a list of numbers.")
        if not is_possible.all():
            t = int(np.argmin(is_possible))
            raise ModelError(
                f"The noise schedule has {values[t]:g} at timestep {t} of {len(values)}; expected numbers "
                "above 0 and below 1 (1 only at the last timestep)."
            )

    @property
    def T(self) -> int:
        return len(self.beta)

    @cached_property
    def alpha_bar(self) -> Float64[np.ndarray, " T"]:
        """ᾱ_t = Π_{s≤t} (1 − β_s): the signal's part of the variance, for pictures of variance 1."""
        return np.cumprod(1.0 - self.beta)

    @property
    def signal(self) -> Float64[np.ndarray, " T"]:
        """√ᾱ_t, the factor of x."""
        return np.sqrt(self.alpha_bar)

    @property
    def sigma(self) -> Float64[np.ndarray, " T"]:
        """√(1−ᾱ_t), the factor of ε."""
        return np.sqrt(1.0 - self.alpha_bar)

    def time(self, t: Int64[Tensor, "*b"]) -> Tensor:
        """The network's time argument at timestep t."""
        return t

    def fingerprinted(self) -> bytes:
        """The bytes that identify this schedule."""
        return self.beta.tobytes() + self.prediction.encode()

    @property
    def elbo_weight(self) -> Float64[np.ndarray, " T"]:
        """β_t/(2α_t(1−ᾱ_t)), the weight of a timestep in the variational bound."""
        return self.beta / (2 * (1 - self.beta) * (1 - self.alpha_bar))

    def table(self, name: str, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " T"]:
        """The schedule's numbers of this name on a device, where they stay."""
        tables = _TABLES.setdefault(self, {})
        if (key := (name, device, dtype)) not in tables:
            table = torch.as_tensor(getattr(self, name), device=device, dtype=dtype)
            tables[key] = debug_unwrap(table)  # it outlives a transformation of torch.func
        return tables[key]

    def at(self, name: str, t: Int64[Tensor, "*b"], like: Tensor) -> Float[Tensor, "*b 1 1 1"]:
        """The schedule's numbers of this name at timesteps `t`, shaped to multiply pictures like `like`."""
        return self.table(name, like.device, like.dtype)[t][..., None, None, None]

    def signal_and_noise(
        self, t: Int64[Tensor, "*b"], like: Tensor
    ) -> tuple[Float[Tensor, "*b 1 1 1"], Float[Tensor, "*b 1 1 1"]]:
        """√ᾱ_t and √(1−ᾱ_t)."""
        return self.at("signal", t, like), self.at("sigma", t, like)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t for picture x and noise ε."""
        signal, sigma = self.signal_and_noise(t, noise)
        return signal * x + sigma * noise

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The training target of the network: ε, v or x."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x.expand_as(noise)
        signal, sigma = self.signal_and_noise(t, noise)
        return signal * noise - sigma * x

    def picture_and_noise(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂₀, ε̂): the finished picture and the noise that a network output implies."""
        signal, sigma = self.signal_and_noise(t, x_t)
        if self.prediction == "epsilon":
            return (x_t - sigma * output) / signal, output
        if self.prediction == "sample":
            return output, (x_t - signal * output) / sigma
        return signal * x_t - sigma * output, signal * output + sigma * x_t


# Beside the schedules and not in them: they travel to other processes, and a device's numbers do not.
_TABLES: WeakKeyDictionary[Schedule, dict[tuple[str, torch.device, torch.dtype], Tensor]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Flow(Schedule):
    """x_t = (1 − σ_t) x + σ_t ε; the network outputs ε − x, the velocity of the straight path to noise.

    σ_t rises with t = 0 … T−1 and takes the place of β. The network's time argument is T·σ_t. (Rectified
    flow: Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206.) `alpha_bar` is for x_t
    scaled to unit variance: (1−σ)²/((1−σ)²+σ²).
    """

    prediction: Prediction = "flow"

    @property
    def signal(self) -> Float64[np.ndarray, " T"]:
        return 1.0 - self.beta

    @property
    def sigma(self) -> Float64[np.ndarray, " T"]:
        return self.beta

    @property
    def times(self) -> Float64[np.ndarray, " T"]:
        """The network's time argument at each timestep."""
        return self.T * self.beta

    @cached_property
    def alpha_bar(self) -> Float64[np.ndarray, " T"]:
        return self.signal**2 / (self.signal**2 + self.sigma**2)

    def time(self, t: Int64[Tensor, "*b"]) -> Tensor:
        return self.table("times", t.device, torch.float32)[t]

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x

    def picture_and_noise(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        signal, sigma = self.signal_and_noise(t, x_t)
        return x_t - sigma * output, x_t + signal * output


def linear(
    T: int = 1000, start: float = 1e-4, end: float = 0.02, prediction: Prediction = "epsilon"
) -> Schedule:
    """The linear schedule of DDPM: β from 1e-4 to 0.02 over T = 1000 steps."""
    return Schedule(np.linspace(start, end, T), prediction)


def early(timesteps: int | tuple[int, ...], T: int) -> tuple[int, ...]:
    """Explicit timesteps, validated; or for an integer K, K of them evenly in the schedule's first half."""
    if isinstance(timesteps, int):
        if timesteps > (limit := max(1, T // 2)):
            raise OptionError(
                f"timesteps is {timesteps}; the first half of the schedule has {limit} steps. Expected at "
                f"most {limit}."
            )
        return tuple(T * (i + 1) // (2 * timesteps) for i in range(timesteps))
    if min(timesteps) < 0 or max(timesteps) >= T:
        raise OptionError(f"timesteps has {min(timesteps)} … {max(timesteps)}; the schedule has 0 … {T - 1}.")
    return timesteps


def early_noisy(timesteps: int | tuple[int, ...], alpha_bar: Float64[np.ndarray, " T"]) -> tuple[int, ...]:
    """`early` without steps where σ = 0, for callers that divide by σ²: an OptionError for such a step."""
    steps = early(timesteps, len(alpha_bar))
    for t in steps:
        if alpha_bar[t] == 1:
            first = int(np.argmax(alpha_bar < 1))
            raise OptionError(
                f"timesteps has {t}, where the schedule adds no noise (ᾱ is 1). Expected steps with noise: "
                f"{first} or more."
            )
    return steps
