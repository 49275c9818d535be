"""Where a model can run."""

import torch

from headwater.errors import OptionError


def available(name: str) -> str:
    """The device `name`, if torch can put a tensor there; else an OptionError."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise OptionError(f"The device '{name}' is not available here.", hint="Use --device cpu.") from error
    return name
