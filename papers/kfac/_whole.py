"""EK-FAC of a bank with every training image's whole gradient in memory: one pass over them answers many
questions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.curvature.kfac import Curvature
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.examples import Examples
from headwater.gradients.projected import projected
from headwater.gradients.spec import GradientSpec
from headwater.linalg.project import Identity
from papers._shared.line import Line, influence
from papers._shared.session import Session


@dataclass(frozen=True, eq=False)
class WholeGradients:
    """The fitted method, and `train`: ∇ℓ of all training images, [n, p]."""

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


def whole_gradients(session: Session, timesteps: int) -> WholeGradients:
    """EK-FAC at its defaults."""
    experiment = session.experiment(Line(row="", **influence("ek-fac", timesteps)))
    method, (model,) = experiment.built(), experiment.models
    curvature = method.fit(model, session.bank.train, session.store).curvature
    train = _gradients(model, session.bank.train, method.draws(), curvature.pattern)
    return WholeGradients(method, model, curvature, train)


def _gradients(model: Denoiser, examples: Examples, draws: Draws, pattern: str) -> Tensor:
    return torch.cat(list(projected(model, examples, GradientSpec("simple", draws, pattern), Identity())))
