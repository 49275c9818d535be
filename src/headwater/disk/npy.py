"""One array as a `.npy` file: written whole or not at all, never unpickled."""

from pathlib import Path

import numpy as np

from headwater.disk.files import written
from headwater.errors import DataError


def read_npy(path: Path) -> np.ndarray:
    """The array in the file; every kind of damage is a DataError."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"Could not read {path}: {error}") from error


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write the array; a kill or a full disk leaves the old file."""
    with written(path) as file:
        np.save(file, values)
