"""One damping: λ itself, or a multiple of a size that the operator knows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwater.errors import OptionError


@dataclass(frozen=True)
class Damping:
    """λ = `value` if it is absolute; else λ = `value` × the operator's own size.

    That size is the mean squared feature norm of a kernel, and the mean eigenvalue of each block of a
    curvature."""

    value: float
    absolute: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.value < np.inf:
            raise OptionError(f"{self.field} is {self.value}; expected a finite number of 0 or more.")

    @property
    def field(self) -> str:
        """The field of a method that gives a damping of this kind."""
        return "absolute_damping" if self.absolute else "damping"

    def scaled(self, size: float) -> float:
        """λ for an operator of this size."""
        return float(self.value) if self.absolute else float(self.value) * size


def damping_of(relative: float | None, absolute: float | None, default: Damping) -> Damping:
    """The damping that two fields give, of which one may be set; `default` where neither is."""
    if relative is not None and absolute is not None:
        raise OptionError(
            f"Both damping ({relative}) and absolute_damping ({absolute}) are given; expected one: damping "
            "is a multiple of the operator's own size, absolute_damping is λ itself."
        )
    if absolute is not None:
        return Damping(absolute, absolute=True)
    return default if relative is None else Damping(relative)


def check_dampings(dampings: Sequence[Damping]) -> None:
    """Raise an OptionError unless there is one damping or more, all relative or all absolute."""
    if not dampings:
        raise OptionError("No damping is given; expected one or more.")
    if len({damping.absolute for damping in dampings}) > 1:
        raise OptionError("Relative and absolute dampings are given together; expected dampings of one kind.")
