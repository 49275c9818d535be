"""Gradient similarity without a kernel (Charpiat et al. 2019, arXiv:2004.14117; D-TRAK paper, appendix
A.3)."""

from dataclasses import dataclass
from typing import ClassVar

from headwater.families.inner import InnerProduct


@dataclass(frozen=True, kw_only=True)
class Gradient(InnerProduct):
    """τ(q, i) = ⟨φ(q), φ(i)⟩,   φ(x) = R ∇_θ m(x): one step of gradient descent on image i, seen from q."""

    title: ClassVar[str] = "Gradient"


@dataclass(frozen=True, kw_only=True)
class GradientCos(InnerProduct):
    """τ(q, i) = ⟨φ(q), φ(i)⟩/(‖φ(q)‖‖φ(i)‖): `gradient`, blind to the size of gradients. Every self score is
    1."""

    title: ClassVar[str] = "Gradient cosine"
    cosine: ClassVar[bool] = True
