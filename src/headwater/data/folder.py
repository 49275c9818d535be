"""A folder of image files. Subfolders, where every image is in one, are the classes."""

import os
from pathlib import Path

import numpy as np

from headwater.data.captions import told
from headwater.data.decode import fitted, opened, stacked
from headwater.errors import DataError
from headwater.examples import Examples

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def folder(root: str | Path, *, resize: int | None = None) -> Examples:
    """Every image below `root`, in the order of their relative paths, which are their ids.

    The name of the outermost subfolder is the image's group, its place among the sorted names the label; one image outside
    any subfolder, and there are neither. Hidden files and folders are passed over, links are followed. Prompts are the captions
    of a `metadata.jsonl` in `root`, and its groups, if it has any, count in place of the subfolders.
    """
    root = Path(root)
    files = _images(root)
    ids = tuple(os.fsencode(file).decode(errors="replace") for file in files)  # a name that is no text would not print
    prompts, groups = told(root, ids)
    images = stacked(((file, fitted(opened(root / file, str(root / file)), resize)) for file in files), len(files))
    if groups is None and all("/" in name for name in ids):
        groups = tuple(name.partition("/")[0] for name in ids)
    if groups is None:
        return Examples(images, ids=ids, prompts=prompts)
    place = {group: label for label, group in enumerate(sorted({*groups} - {""}))} | {"": -1}
    labels = np.array([place[group] for group in groups], np.int64)
    return Examples(images, ids=ids, labels=labels, groups=groups, prompts=prompts)


def _images(root: Path) -> list[str]:
    """The relative posix paths of the image files below `root`, sorted."""
    files = _files(root)
    if not files:
        raise DataError(f"The folder {root} is empty; expected images ({' '.join(SUFFIXES)}).")
    images = sorted(file for file in files if file.lower().endswith(SUFFIXES))
    if not images:
        raise DataError(
            f"None of the {len(files)} files in the folder {root} is an image by its name (e.g. {min(files)}); "
            f"expected {' '.join(SUFFIXES)}. For an .npz file name the file itself."
        )
    return images


def _files(root: Path) -> list[str]:
    """The relative posix paths of all files below `root` that are not hidden."""
    found: list[str] = []
    try:
        for here, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".") and not _loops(Path(here, name))]
            found += [Path(here, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    except OSError as error:
        raise DataError(f"Could not list the folder {error.filename}: {error.strerror}.") from error
    return found


def _loops(path: Path) -> bool:
    """Whether a link leads back to a folder it lies in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _raise(error: OSError) -> None:
    raise error
