"""EK-FAC of a bank with every training image's whole gradient at hand: many questions, one pass over the training images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine import Given, Line, influence
from headwater.curvature.kfac import Curvature
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.examples import Examples
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Identity


@dataclass(frozen=True, eq=False)
class WholeGradients:
    """The fitted method, and ∇ℓ of all training images, [n, p]."""

    method: Any
    model: Denoiser
    curvature: Curvature
    train: Tensor

    def of(self, examples: Examples, draws: Draws) -> Tensor:
        """∇ℓ of these examples over these draws."""
        return _gradients(self.model, examples, draws, self.curvature.pattern)

    def solved(self, v: Tensor) -> Tensor:
        """(F + λI)⁻¹ v with the paper's λ."""
        return self.curvature.solve(v, self.method.own_damping)


def whole_gradients(given: Given, timesteps: int) -> WholeGradients:
    """EK-FAC at its defaults."""
    run = given.run(Line(row="", **influence("ek-fac", timesteps)))
    method, (model,) = run.built(), run.models
    curvature = method.fit(model, given.bank.train, given.store).curvature
    return WholeGradients(method, model, curvature, _gradients(model, given.bank.train, method.draws(), curvature.pattern))


def _gradients(model: Denoiser, examples: Examples, draws: Draws, pattern: str) -> Tensor:
    return torch.cat(list(projected(model, examples, GradientSpec("simple", draws, pattern), Identity())))
