"""Renormalised influence: Hammoudeh & Lowd 2022, arXiv:2201.10055, with TRAK's kernel (D-TRAK paper, appendix
A.3)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from headwater.curvature.gram import Gram
from headwater.families.kernel import Kernel, over


@dataclass(frozen=True, kw_only=True)
class RenormIF(Kernel):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) / ‖φ(i)‖,   φ(x) = R ∇_θ ℓ(x).

    TRAK divided by the size of the training image's gradient.
    """

    title: ClassVar[str] = "Renormalised IF"

    def weights(self, gram: Gram, damping: float) -> Float[np.ndarray, " n"]:
        return over(gram.norms())
