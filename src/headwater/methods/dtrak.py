"""D-TRAK: Zheng et al. 2023, arXiv:2311.00500."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.kernel import Kernel


@dataclass(frozen=True, kw_only=True)
class DTRAK(Kernel):
    """τ(q, i) = φ(q)ᵀ (ΦᵀΦ + λI)⁻¹ φ(i),   φ(x) = R ∇_θ m(x),   m = ‖ε̂_θ(x_t, t)‖²/d by default   (equation
    7).

    TRAK with a function in φ that differs from the loss to predict. No theory says that it should be better:
    measure it."""

    title: ClassVar[str] = "D-TRAK"
    usual: ClassVar[float] = 0.02

    measurement: str = "square"
