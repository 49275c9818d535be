"""TRAK: Park et al. 2023, arXiv:2303.14186, as the D-TRAK paper applies it to diffusion models."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class TRAK(Kernel):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i) · Q(i),   φ(x) = R ∇_θ ℓ(x)   (D-TRAK paper, equation 6, one model).

    Measurement and training loss are the same function, so Q = ∂ℓ/∂m = 1. Several models: the mean of their
    scores. Without damping the kernel is singular if k > n, and its scores are noise long before k reaches n.
    """

    title: ClassVar[str] = "TRAK"

    measurement: str = "simple"
