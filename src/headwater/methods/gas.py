"""GAS, renormalised TracIn: Hammoudeh & Lowd 2022, arXiv:2201.10055 (D-TRAK paper, appendix A.3)."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.inner import AlongTraining


@dataclass(frozen=True, kw_only=True)
class GAS(AlongTraining):
    """τ(q, i) = (1/C) Σ_c cos(φ_c(q), φ_c(i)),   φ_c(x) = R ∇_θ ℓ(x; θ_c) at C `checkpoints` evenly spaced
    over training.

    TracIn, blind to the size of gradients: the few images with large gradients no longer lead for every
    query."""

    title: ClassVar[str] = "GAS"
    cosine: ClassVar[bool] = True
