"""DAS, diffusion attribution score: Lin et al. 2025 (ICLR), arXiv:2410.18639. From its formulas: the authors'
code does not run."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.curvature.gram import Gram
from headwater.diffusion.denoiser import Denoiser, require_model
from headwater.diffusion.draws import Draws
from headwater.disk.store import FeatureStore
from headwater.errors import OptionError, check_at_least
from headwater.examples import Examples
from headwater.families.gradients import Passes
from headwater.families.kernel import Kernel
from headwater.gradients.features import losses


@dataclass(frozen=True, eq=False)
class Residuals(Gram):
    """A Gram operator with the weight r(i) of each training image."""

    errors: Float[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class DAS(Kernel):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) · r(i),   φ(x) = mean over t of R∇_θ avg_t(x)/‖∇_θ avg_t(x)‖.

    The change of the output at q when i is removed, not of its loss. Every timestep's gradient has equal
    weight (`normalize`). `error`: r(i) = mean over t of e_t/‖e‖, with e_t the root of i's loss at each of
    `error_timesteps` steps: how much there is to learn from i, spread over the steps; else r = 1. `leverage`:
    divide by 1 − h(i), h(i) = φ(i)ᵀ(ΦᵀΦ + λI)⁻¹φ(i), as in exact leave-one-out of a linear model."""

    title: ClassVar[str] = "DAS"
    usual: ClassVar[float] = 0.002

    measurement: str = "avg"
    normalize: bool = True
    error: bool = True
    error_timesteps: int = 100
    leverage: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, self, "error_timesteps")

    def gram(self, model: Denoiser | None, train: Examples, store: FeatureStore) -> Residuals:
        T = require_model(model).schedule.T
        if self.error_timesteps > T:
            raise OptionError(f"error_timesteps is {self.error_timesteps}; the model's schedule has {T}.")
        phi = self.train(model, train, store)
        if not self.error:
            return Residuals(phi, np.ones(len(phi)))
        errors = np.sqrt(
            losses(model, train, Draws(self.error_timesteps, seed=self.seed), store).astype(np.float64)
        )
        return Residuals(phi, (errors / np.linalg.norm(errors, axis=1, keepdims=True)).mean(axis=1))

    def weights(self, gram: Gram, damping: float) -> Float[np.ndarray, " n"]:
        assert isinstance(gram, Residuals)
        return gram.errors / (1 - gram.self_scores(damping)) if self.leverage else gram.errors

    def passes(self, T: int) -> Passes:
        """Passes of the kernel, and forward passes for the errors."""
        return super().passes(T)._replace(train_forward=self.error_timesteps * self.error)
