"""Examples as an `.npz` file, of a user, of `sample` or of a bank. numpy only, never unpickled."""

import zipfile
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from headwater.disk.files import written
from headwater.errors import DataError
from headwater.examples import Examples, are_numbers, labels_of, places

TEXT_COLUMNS = ("ids", "groups", "prompts", "split")
PATH_COLUMNS = ("trajectory", "trajectory_timesteps")


def read_examples(path: str | Path) -> Examples:
    """The Examples in an `.npz`: `images` uint8 `[n, h, w, c]` or `[n, h, w]`, and further fields.

    Labels that are words become groups, and the words' sorted positions the labels; ids of any type become
    text. Arrays with other names are not read.
    """
    path = Path(path)
    columns = arrays(path, ("images", "labels", *TEXT_COLUMNS, *PATH_COLUMNS))
    if "images" not in columns:
        raise DataError(
            f"{path} has no array `images`; expected uint8 [n, height, width, channels] under that name."
        )
    images = _images(path, columns["images"])
    _check_lengths(path, columns, len(images))
    fields: dict[str, Any] = {name: _words(columns[name]) for name in TEXT_COLUMNS if name in columns}
    if "labels" in columns:
        labels, words = _labels(path, columns["labels"])
        fields = {"groups": words, **fields, "labels": labels}
    return Examples(images, **fields, **_trajectory(path, columns, len(images)))


def _check_lengths(path: Path, columns: dict[str, np.ndarray], n: int) -> None:
    for name in ("labels", *TEXT_COLUMNS):
        if name in columns and columns[name].shape != (n,):
            shape = list(columns[name].shape)
            raise DataError(f"`{name}` in {path} has shape {shape}; expected [{n}], one for each image.")


def write_examples(path: str | Path, examples: Examples, **further: np.ndarray) -> None:
    """Write examples as a compressed `.npz` that `read_examples` reads.

    The latents of generated pictures and the `further` arrays are written too, but `read_examples` skips
    them: a picture's latents are always the encoding of its 8-bit pixels.
    """
    columns: dict[str, Any] = {"images": examples.images, **further}
    for name in ("labels", "latents", *PATH_COLUMNS):
        if getattr(examples, name) is not None:
            columns[name] = getattr(examples, name)
    for name in TEXT_COLUMNS:
        if getattr(examples, name) is not None:
            columns[name] = np.array(getattr(examples, name))
    with written(Path(path)) as file:
        np.savez_compressed(file, **columns)


def arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays that are in the `.npz`; every kind of damage is a DataError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"Could not open {path}: {error.strerror}.") from error
    with file:
        if not zipfile.is_zipfile(file):
            raise DataError(
                f"{path} is not an .npz file, or is cut short. Expected one that numpy.savez(path, "
                "images=...) wrote."
            )
        file.seek(0)
        return _members(path, file, names)


def _members(path: Path, file: BufferedReader, names: Iterable[str]) -> dict[str, np.ndarray]:
    name, members = "it", {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for name in (n for n in names if n in archive.files):
                members[name] = archive[name]
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own; the file is at fault
        raise _unreadable(path, name, error) from error
    for name, column in members.items():
        if not isinstance(column, np.ndarray):  # numpy returns the bytes of a member that is not an .npy file
            raise DataError(f"`{name}` in {path} is not an array; expected a file that numpy.savez wrote.")
    return members


def _unreadable(path: Path, name: str, error: Exception) -> DataError:
    """The error for a member that numpy could not read."""
    if "Object arrays" in str(error):
        return DataError(
            f"`{name}` in {path} holds Python objects; loading never unpickles. Save it as plain numbers or "
            "text, without dtype=object."
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(f"Could not read {path}: {name} is damaged ({reason}). Write the file again.")


def _form(column: np.ndarray) -> str:
    return f"{column.dtype} {list(column.shape)}"


def _images(path: Path, column: np.ndarray) -> UInt8[np.ndarray, "n h w c"]:
    _check_bytes(path, column)
    images = column[..., None] if column.ndim == 3 else column
    if images.ndim != 4 or not images.size:
        raise DataError(
            f"The images in {path} are {_form(column)}; expected at least one, as [n, height, width, "
            "channels] or [n, height, width]."
        )
    if images.shape[3] > 4:
        first = images.shape[1] <= 4
        advice = "Put the channels last: images.transpose(0, 2, 3, 1)." if first else "Save 1 or 3 channels."
        raise DataError(
            f"The images in {path} are {_form(column)}, so with {images.shape[3]} channels; expected 1 to 4. "
            f"{advice}"
        )
    return np.ascontiguousarray(images)


def _check_bytes(path: Path, images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        numbers = images.size and images.dtype.kind in "fiu"
        between = f" between {images.min():g} and {images.max():g}" if numbers else ""
        raise DataError(
            f"The images in {path} are {_form(images)}{between}; expected uint8. Scale them to 0…255, round "
            "them, and save them with .astype(numpy.uint8)."
        )


def _words(column: np.ndarray) -> tuple[str, ...]:
    if column.dtype.kind == "S":
        return tuple(word.decode(errors="replace") for word in column.tolist())
    return tuple(str(word) for word in column.tolist())


def _labels(path: Path, column: np.ndarray) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...] | None]:
    """Labels, and the words they stand for where the file holds words."""
    if column.dtype.kind not in "biufUS":
        raise DataError(
            f"`labels` in {path} are {column.dtype}; expected whole numbers or words. Save them with "
            ".astype(int)."
        )
    values = _words(column) if column.dtype.kind in "US" else column.tolist()
    if column.dtype.kind in "US" and not are_numbers(values):
        return places(values), values
    return labels_of(values, f"`labels` in {path}"), None


def _trajectory(path: Path, columns: dict[str, np.ndarray], n: int) -> dict[str, Any]:
    """The states of a sampler's path, `[n, s, c, h, w]`, and their timesteps, `[s]`: both, or neither."""
    missing = [name for name in PATH_COLUMNS if name not in columns]
    if len(missing) == len(PATH_COLUMNS):
        return {}
    if missing:
        both = " and ".join(f"`{name}`" for name in PATH_COLUMNS)
        raise DataError(f"{path} has no `{missing[0]}`; expected {both} both, or neither.")
    states, steps = (columns[name] for name in PATH_COLUMNS)
    if states.dtype.kind != "f" or states.ndim != 5 or len(states) != n:
        raise DataError(f"`trajectory` in {path} is {_form(states)}; expected floats [{n}, s, c, h, w].")
    if steps.dtype.kind not in "iu" or steps.shape != (states.shape[1],):
        raise DataError(
            f"`trajectory_timesteps` in {path} is {_form(steps)}; expected whole numbers "
            f"[{states.shape[1]}], one for each state."
        )
    return {"trajectory": states.astype(np.float32), "trajectory_timesteps": steps.astype(np.int64)}
