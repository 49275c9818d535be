"""Solutions on the exact Gauss–Newton matrix by conjugate gradients, with K-FAC as start and preconditioner.

They restore the correlations that a Kronecker product leaves out: between layers, and between a layer's two
sides. (Better curvature gives better influence: Hong et al. 2025, arXiv:2509.23437, on classifiers.)"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from headwater.curvature.ggn import ggn_matvec
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.disk.store import FeatureStore
from headwater.errors import NonFiniteError
from headwater.examples import Examples
from headwater.gradients.hooks import as_it_is
from headwater.gradients.inputs import drawn
from headwater.gradients.layers import layers_of
from headwater.gradients.memory import draws_that_fit
from headwater.linalg.cg import conjugate_gradients


@dataclass(frozen=True, eq=False)
class ExactSolver:
    """G over fixed draws of the training images, for the parameters that match `pattern`."""

    model: Denoiser
    examples: Examples
    draws: Draws
    pattern: str

    def _together(self) -> int:
        """Images in one pass: a product keeps about three times as much in memory as a gradient."""
        layers = layers_of(self.model, self.pattern)
        first = drawn(self.model, self.examples, slice(0, 1), simple, self.draws).one(0, 0)
        return max(1, draws_that_fit(self.model, simple, first, layers, as_it_is) // 3 // self.draws.count)

    def solved(
        self,
        v: Float[Tensor, "q p"],
        shift: Float64[Tensor, " p"],
        precondition: Callable[[Tensor], Tensor],
        steps: int,
        store: FeatureStore,
    ) -> Float[Tensor, "q p"]:
        """(G + diag λ)⁻¹ v after this number of steps. `store.warn` gets the cost before they begin."""
        passes = (steps + 1) * len(v) * len(self.examples) * self.draws.count
        store.warn(
            f"Conjugate gradients: {steps} steps for {len(v)} queries over {len(self.examples):,} images × "
            f"{self.draws.count} draws take {passes:,} products with a Jacobian and as many with its "
            "transpose."
        )
        products, batch = 0, self._together()

        def matvec(x: Float[Tensor, "q p"]) -> Float[Tensor, "q p"]:
            nonlocal products
            Gx = ggn_matvec(self.model, self.examples, self.draws, x, pattern=self.pattern, batch=batch)
            products += 1
            store.progress(products, steps + 1)
            return Gx + x * shift.to(x)

        x = conjugate_gradients(matvec, v, precondition, steps)
        if not bool(torch.isfinite(x).all()):
            row = int(torch.isfinite(x).all(1).int().argmin())
            raise NonFiniteError(
                f"Conjugate gradients gave a NaN or an infinity for query {row}: {self.model.dtype} may be "
                "too narrow for products with the Gauss–Newton matrix. Use float32, or refine 0."
            )
        return x
