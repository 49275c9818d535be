"""A folder of image files. Subfolders, where every image is in one, are the classes."""

import os
from pathlib import Path

import numpy as np

from headwater.data.captions import captions_of
from headwater.data.decode import fitted, opened, stacked
from headwater.errors import DataError
from headwater.examples import Examples

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def folder(root: str | Path, *, resize: int | None = None) -> Examples:
    """Every image below `root`, in the order of their relative paths, which are their ids.

    The outermost subfolder is the image's group, its place among the sorted names the label; if any image is
    outside the subfolders, there are neither. Hidden files and folders are skipped, links followed. Prompts
    are the captions of a `metadata.jsonl` in `root`, whose groups, if it has any, replace the subfolders.
    """
    root = Path(root)
    files = _images(root)
    # a name that is not text would not print
    ids = tuple(os.fsencode(file).decode(errors="replace") for file in files)
    prompts, groups = captions_of(root, ids)
    images = stacked(
        ((file, fitted(opened(root / file, str(root / file)), resize)) for file in files), len(files)
    )
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
            f"None of the {len(files)} files in the folder {root} is an image by its name (e.g. "
            f"{min(files)}); expected {' '.join(SUFFIXES)}. For an .npz file, give its own path."
        )
    return images


def _files(root: Path) -> list[str]:
    """The relative posix paths of all files below `root` that are not hidden."""
    paths: list[str] = []
    try:
        for parent, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            folders[:] = [
                name for name in folders if not name.startswith(".") and not _loops(Path(parent, name))
            ]
            paths += [
                Path(parent, name).relative_to(root).as_posix() for name in files if not name.startswith(".")
            ]
    except OSError as error:
        raise DataError(f"Could not list the folder {error.filename}: {error.strerror}.") from error
    return paths


def _loops(path: Path) -> bool:
    """Whether a link leads back to a folder it lies in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _raise(error: OSError) -> None:
    raise error
