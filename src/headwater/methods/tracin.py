"""TracIn at checkpoints: Pruthi et al. 2020, arXiv:2002.08484 (D-TRAK paper, appendix A.3)."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.inner import AlongTraining


@dataclass(frozen=True, kw_only=True)
class TracIn(AlongTraining):
    """τ(q, i) = (1/C) Σ_c ⟨φ_c(q), φ_c(i)⟩,   φ_c(x) = R ∇_θ ℓ(x; θ_c) at C `checkpoints` evenly spaced over
    training.

    The effect on q's loss of descent steps on image i, summed along training; without learning rates, as in
    the D-TRAK paper."""

    title: ClassVar[str] = "TracIn"
