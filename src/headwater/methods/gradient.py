"""Gradient similarity without a kernel (Charpiat et al. 2019, arXiv:2004.14117; D-TRAK paper, appendix A.3)."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.inner import InnerProduct


@dataclass(frozen=True, kw_only=True)
class Gradient(InnerProduct):
    """τ(q, i) = ⟨φ(q), φ(i)⟩,   φ(x) = R ∇_θ m(x): one step of gradient descent on image i, seen from q."""

    title: ClassVar[str] = "Gradient"


@dataclass(frozen=True, kw_only=True)
class GradientCos(InnerProduct):
    """τ(q, i) = ⟨φ(q), φ(i)⟩/(‖φ(q)‖‖φ(i)‖): the same, blind to the size of a gradient. Self-influence is 1 throughout."""

    title: ClassVar[str] = "Gradient cosine"
    cosine: ClassVar[bool] = True
