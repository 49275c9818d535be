"""A folder of image files. Subfolders, where every image is in one, are the classes."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headwater.data.captions import metadata_of
from headwater.data.decode import fitted, opened, stacked, suffixes
from headwater.errors import DataError, Warn, to_warnings
from headwater.examples import Examples, places
from headwater.words import composed


def folder(root: str | Path, *, resize: int | None = None, warn: Warn = to_warnings) -> Examples:
    """Every image below `root`, in the order of their relative paths, which are their ids.

    The outermost subfolder is the image's group, its place among the sorted names the label; if any image is
    outside the subfolders, there are neither. Hidden files and folders are skipped, links followed. Prompts
    are the captions of `metadata.jsonl`, `.csv` or `.parquet`, in `root` or in subfolders, whose groups or
    labels, if there are any, replace the subfolders; else the text files beside the images. `warn` hears of
    files that were passed over.
    """
    root = Path(root)
    files = _files(root)
    images = {_printable(file): file for file in _images(root, files)}
    ids = tuple(images)
    metadata = metadata_of(root, files, images, warn)
    _note_passed_over(root, {*files} - {*images.values()} - metadata.files, warn)
    pixels = stacked(
        ((file, fitted(opened(root / file, str(root / file)), resize)) for file in images.values()), len(ids)
    )
    examples = Examples(
        pixels, ids=ids, prompts=metadata.prompts, groups=metadata.groups, labels=metadata.labels
    )
    if metadata.labels is not None or not all("/" in name for name in ids):
        return examples
    groups = tuple(composed(name.partition("/")[0]) for name in ids)
    return replace(examples, groups=groups, labels=places(groups))


def _printable(file: str) -> str:
    """The name as an id: one that is not text would not print."""
    return os.fsencode(file).decode(errors="replace")


def _images(root: Path, files: Sequence[str]) -> list[str]:
    """The files that are images by their names, sorted."""
    expected = f"expected images ({' '.join(suffixes())})"
    if not files:
        raise DataError(f"The folder {root} is empty; {expected}.")
    images = sorted(file for file in files if file.lower().endswith(suffixes()))
    if not images:
        raise DataError(
            f"None of the {len(files)} files in the folder {root} is an image by its name (e.g. "
            f"{min(files)}); {expected}. For an .npz file, give its own path."
        )
    if len({_printable(file) for file in images}) < len(images):
        raise DataError(
            f"Names in the folder {root} are not text and differ only in what cannot be printed; expected "
            "names in UTF-8. Rename the files."
        )
    return images


def _note_passed_over(root: Path, files: set[str], warn: Warn) -> None:
    if files:
        kinds = sorted({Path(file).suffix.lower() or Path(file).name for file in files})
        listed = ", ".join(kinds[:8]) + (" …" if len(kinds) > 8 else "")
        warn(f"In {root}, passed over {len(files):,} file{'s' * (len(files) > 1)} ({listed}).")


def _files(root: Path) -> list[str]:
    """The relative posix paths of all files below `root` that are not hidden, sorted."""
    paths: list[str] = []
    try:
        for parent, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            folders[:] = [
                name for name in folders if not name.startswith(".") and not _loops(root, Path(parent, name))
            ]
            paths += [
                Path(parent, name).relative_to(root).as_posix() for name in files if not name.startswith(".")
            ]
    except OSError as error:
        raise DataError(f"Could not list the folder {error.filename}: {error.strerror}.") from error
    return sorted(paths)


def _loops(root: Path, path: Path) -> bool:
    """Whether a link leads back to a folder through which it was reached, such as the one it lies in."""
    way = [folder for folder in path.parents if folder.is_relative_to(root)]
    return path.is_symlink() and any(folder.resolve().is_relative_to(path.resolve()) for folder in way)


def _raise(error: OSError) -> None:
    raise error
