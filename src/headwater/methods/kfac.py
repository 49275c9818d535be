"""K-FAC influence functions for diffusion models: Mlodozieniec et al. 2025, arXiv:2410.13850."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.influence import Influence


@dataclass(frozen=True, kw_only=True)
class KFAC(Influence):
    """τ(q, i) = (1/n) ∇m(q)ᵀ (F + λI)⁻¹ ∇ℓ(i),   F ≈ ⊕_layers B ⊗ A   (equations 6, 10 and 12).

    To first order, the change of m(q) at the optimum of the mean training loss when i is left out. Each
    layer's Gauss–Newton block is a Kronecker product. Only parameters of Linear and Conv2d layers are used.
    """

    title: ClassVar[str] = "K-FAC influence"
