"""A reader of pickles that hold only words, numbers, lists, dictionaries and numpy arrays.

CIFAR-10 and ArtBench-10 are published as pickles. A pickle names functions that rebuild its content; this
reader has the four that rebuild an array, looks none up, and refuses every other name, so that nothing else
is ever called. No other module reads pickles.
"""

import pickle  # noqa: TID251 - only to derive an Unpickler that finds nothing but ADMITTED
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from headwater.data.decode import first_line
from headwater.errors import DataError

ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # numpy 1 and Python 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): str.encode,  # bytes, in pickles that Python 2 can read too
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that finds the names in ADMITTED and no others."""

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in ADMITTED:
            raise DataError(
                f"it asks for {module}.{name}, which rebuilds no array; loading never runs code from a file. "
                "Download the file again, from its authors"
            )
        return ADMITTED[module, name]


def unpickled(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of Python 2 or 3; damage or any other content is a DataError."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(
                file, encoding="latin1"
            ).load()  # strings of Python 2 are bytes, array contents too
    except OSError as error:
        raise DataError(f"Could not open {path}: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{path} is refused: {error}.") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(
            f"Could not read {path}: it is damaged ({first_line(error)}). Download the file again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}; expected a dictionary. Download the file again."
        )
    return content
