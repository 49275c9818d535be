"""The path of a sampler that made a picture: its states and their timesteps."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwater.errors import DataError
from headwater.examples import Examples
from headwater.linalg.transfer import sent


def path(
    examples: Examples, rows: slice, device: torch.device
) -> tuple[Float[Tensor, "b s c h w"], Int64[np.ndarray, " s"]]:
    """The states of a sampler's path, in double (differences are tiny near t = 0), and their timesteps."""
    states, times = stored_path(examples)
    return sent(states[rows], device).double(), times


def stored_path(
    examples: Examples, T: int | None = None
) -> tuple[Float[np.ndarray, "n s c h w"], Int64[np.ndarray, " s"]]:
    """The pictures' sampler path; a DataError if there is none, or if it does not fit T timesteps."""
    if examples.trajectory is None or examples.trajectory_timesteps is None:
        raise DataError(
            "This needs the sampler's path, and the queries have no `trajectory`. Sample them with "
            "keep_path=True (for the measurement 'trajectory' also with sampler='ddpm').",
            hint="That is `headwater sample … --trajectory` (and `--sampler ddpm`).",
        )
    states, times = examples.trajectory, examples.trajectory_timesteps
    if states.shape[2:] != examples.input_shape:
        raise DataError(
            f"The path's states are {list(states.shape[2:])}; expected [c, h, w] of the model's inputs, "
            f"{list(examples.input_shape)}."
        )
    largest = np.inf if T is None else T - 1
    if not (len(times) and (np.diff(times) < 0).all() and times[-1] >= -1 and 0 <= times[0] <= largest):
        raise DataError(
            f"trajectory_timesteps run {times[:3].tolist()} … {times[-1:].tolist()}; expected decreasing "
            f"timesteps from at most {'the last' if T is None else T - 1} down to 0 or to -1, the finished "
            "picture."
        )
    return states, times
