"""Where a model can run."""

import torch

from headwater.errors import OptionError


def is_available(name: str) -> bool:
    """Whether torch can put a tensor on the device `name`."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def available(name: str) -> str:
    """The device `name`; an OptionError where it is not available."""
    if not is_available(name):
        raise OptionError(f"The device '{name}' is not available here.", hint="Use --device cpu.")
    return name
