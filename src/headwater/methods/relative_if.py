"""Relative influence: Barshan et al. 2020, arXiv:2003.11630, with TRAK's kernel (D-TRAK paper, appendix
A.3)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.curvature.gram import Gram
from headwater.families.kernel import Kernel, over


@dataclass(frozen=True, kw_only=True)
class RelativeIF(Kernel):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) / ‖(ΦᵀΦ + λI)⁻¹ φ(i)‖,   φ(x) = R ∇_θ ℓ(x).

    TRAK divided by the distance that removing the image moves the parameters: outliers no longer lead for
    every query."""

    title: ClassVar[str] = "Relative IF"

    def weights(self, gram: Gram, damping: float) -> Float[np.ndarray, " n"]:
        return over(gram.solved_norms(damping))
