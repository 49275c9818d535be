"""From NumPy's memory to a device."""

import numpy as np
import torch
from torch import Tensor


def sent(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The values on a device; to a CUDA card from pinned memory, so that nothing waits for the copy."""
    tensor, by_itself = torch.as_tensor(values), device.type == "cuda"
    return (tensor.pin_memory() if by_itself else tensor).to(device, dtype, non_blocking=by_itself)
