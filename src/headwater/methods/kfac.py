"""K-FAC influence functions for diffusion models: Mlodozieniec et al. 2025, arXiv:2410.13850."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.influence import Influence


@dataclass(frozen=True, kw_only=True)
class KFAC(Influence):
    """τ(q, i) = (1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i),   F ≈ ⊕_layers B ⊗ A   (equations 6, 10 and 12).

    The change of q when the optimum of the mean training loss moves because i is left out, to first order, with each layer's
    Gauss–Newton block as a Kronecker product. Only parameters of Linear and Conv2d layers.
    """

    title: ClassVar[str] = "K-FAC influence"
