"""Preconditioned conjugate gradients on several right sides at once: (A + λI) x = b without A (Hestenes &
Stiefel 1952)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def conjugate_gradients(
    matvec: Operator, b: Float[Tensor, "q p"], precondition: Operator, steps: int
) -> Float[Tensor, "q p"]:
    """x after `steps` steps from x = M⁻¹b, for each row of b; `matvec` is symmetric positive definite,
    `precondition` is M⁻¹.

    In exact arithmetic p steps solve, and every step reduces the error xᵀAx. A row whose residual is zero
    does not change. Cost: one matvec per step, and one for the first residual."""
    x = precondition(b)
    residual = b - matvec(x)
    z = precondition(residual)
    direction, gamma = z, _dot(residual, z)
    for _ in range(steps):
        moved = matvec(direction)
        step = _ratio(gamma, _dot(direction, moved))
        x = x + step * direction
        residual = residual - step * moved
        z = precondition(residual)
        before, gamma = gamma, _dot(residual, z)
        direction = z + _ratio(gamma, before) * direction
    return x


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "q 1"]:
    return (a * b).sum(1, keepdim=True, dtype=torch.float64).to(a)


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    return torch.where(under > 0, over / torch.where(under > 0, under, 1), 0)
