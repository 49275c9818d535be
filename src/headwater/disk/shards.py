"""A shard: a block of rows in `rows-<i>.npy` and their keys in `rows-<i>.json`, both with checksums.

The `.json` is written last, and a shard without it does not exist. It holds the keys, shape and dtype of the
rows, the checksum of the `.npy` file, and a checksum of itself. float16 rows are stored as row · 2^−e, with
one exponent e for each row in the `.json`.
"""

import errno
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int

from headwater.disk.files import written
from headwater.errors import NonFiniteError, StorageError

Rows = Float32[np.ndarray, "n k"]
ENCODINGS = {"float32": "<f4", "float16": "<f2"}
# any other failure may be temporary: the file is left alone
LOST = (
    errno.ENOENT,
    errno.EACCES,
    errno.EIO,
    errno.EBADMSG,
)
TOP = 15  # the largest entry of a float16 row stays below 2^15; float16 ends at 65,504


class Damaged(Exception):
    """A shard whose content is not what was written."""


@dataclass(frozen=True)
class Shard:
    """A shard on disk: the path of its `.json`, and the content of the `.json`."""

    path: Path
    about: Mapping[str, Any]

    @property
    def keys(self) -> list[str]:
        """The keys of the rows, in order."""
        return self.about["keys"]

    def rows(self) -> Rows:
        """All rows, read once and verified."""
        path, shape, dtype = self.path.with_suffix(".npy"), self.about["shape"], self.about["dtype"]
        raw = _read(path)
        if _checksum(raw) != self.about["npy"]:
            raise Damaged(f"The stored features in {path} are damaged (their checksum is wrong).")
        size = shape[0] * shape[1] * np.dtype(ENCODINGS[dtype]).itemsize
        stored = np.frombuffer(raw, ENCODINGS[dtype], offset=len(raw) - size).reshape(shape)
        return stored if dtype == "float32" else restored(stored, np.array(self.about["exponents"]))


def shards(folder: Path) -> list[Path]:
    """The `.json` of every shard in the folder; rows that a killed process left without one are removed."""
    for path in folder.glob("rows-*.npy"):
        if not path.with_suffix(".json").exists():
            path.unlink()
    return sorted(folder.glob("rows-*.json"))


def open_shard(path: Path) -> Shard:
    """The shard of a `.json`; its rows are not read yet."""
    raw = _read(path)
    try:
        about = dict(json.loads(raw))
        del about["json"]
    except (ValueError, TypeError, KeyError):
        about = {}
    if _signed(about).encode() != raw:
        raise Damaged(f"The stored features in {path} are damaged (their keys are not what was written).")
    return Shard(path, about)


def write_shard(path: Path, keys: Sequence[str], rows: Rows, dtype: str) -> Rows:
    """Write the rows of `keys`; returns them as they will be read. `dtype` is float32 or float16."""
    if len(keys) != len(rows):
        raise ValueError(f"There are {len(rows)} rows for {len(keys)} keys.")
    stored, rows, encoding = _encoded(np.ascontiguousarray(rows, "<f4"), dtype)
    about = {"keys": list(keys), "shape": list(rows.shape), "dtype": dtype, **encoding}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(stored))
    with written(path.with_suffix(".npy")) as file:
        file.write(head.getvalue())
        file.write(stored.data)
    about["npy"] = _checksum(head.getvalue(), stored.data)  # of the intended bytes, not of a second read
    with written(path, "w") as file:
        file.write(_signed(about))
    return rows


def delete_shard(path: Path) -> None:
    """Delete a shard; its `.json` first, so that a kill in between leaves none."""
    for file in (path, path.with_suffix(".npy")):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{file} is damaged and could not be deleted: {error.strerror}. Delete it."
            ) from error


def _encoded(rows: Rows, dtype: str) -> tuple[np.ndarray, Rows, dict[str, Any]]:
    """The rows as they are stored, as they will be read, and the numbers that this takes or costs."""
    if dtype == "float32":
        return rows, rows, {}
    stored, exponents = to_float16(rows)
    back = restored(stored, exponents)
    return stored, back, {"exponents": exponents.tolist(), "relative_error": _relative_error(rows, back)}


def to_float16(rows: Rows) -> tuple[Float16[np.ndarray, "n k"], Int[np.ndarray, " n"]]:
    """(row · 2^−e in float16, e), with each row's largest entry near the top of float16's range.

    A power of two is exact, so the error is float16's rounding: 2^−11 of an entry, for entries above 2^−29 of
    the largest.
    """
    if not np.isfinite(rows).all():
        raise NonFiniteError(
            "A row of features has a NaN or an infinity; float16 holds finite numbers only. Check the "
            "weights."
        )
    exponents = np.frexp(np.abs(rows).max(axis=1))[1] - TOP
    return np.ldexp(rows, -exponents[:, None]).astype("<f2"), exponents


def restored(scaled: Float16[np.ndarray, "n k"], exponents: Int[np.ndarray, " n"]) -> Rows:
    """row = scaled · 2^e: the inverse of `to_float16`, up to its rounding."""
    return np.ldexp(scaled.astype(np.float32), exponents[:, None])


def _relative_error(rows: Rows, back: Rows) -> float:
    """‖back − rows‖ / ‖rows‖, Frobenius; 0 where all rows are 0."""
    exact = rows.astype(np.float64)
    return float(np.linalg.norm(back - exact) / (np.linalg.norm(exact) or 1.0))


def _signed(about: Mapping[str, Any]) -> str:
    """The text of a `.json`, whose last field is the checksum of the others."""
    return json.dumps({**about, "json": _checksum(json.dumps(about).encode())})


def _checksum(*pieces: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in LOST:
            raise StorageError(f"Could not read {path}: {error.strerror}. Try again.") from error
        raise Damaged(f"The stored features in {path} cannot be read ({error.strerror}).") from error
