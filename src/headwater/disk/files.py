"""Files that appear only when complete, and folders locked by one process at a time."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from headwater.errors import StorageError

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR)


def expanded(path: str | Path) -> Path:
    """The path with `~` as the user's home folder; a StorageError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise StorageError(
            f"'{path}' begins in a home folder, and there is none: HOME is not set, or nobody is called so. "
            "Write the whole path."
        ) from error


def cache_home() -> Path | None:
    """The folder of the user's caches; None for a user without a home folder (HOME is not set)."""
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError:
        return None


def check_hub_cache() -> None:
    """Raise a StorageError where the hub's cache would be a folder called `~`: of a user without a home."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if str(HF_HUB_CACHE).startswith("~"):
        raise StorageError(
            f"The hub's cache would be {HF_HUB_CACHE}: this user has no home folder (HOME is not set). Name "
            "a folder for it in HF_HOME."
        )


@contextlib.contextmanager
def written(path: Path, mode: str = "w+b") -> Iterator[IO]:
    """A file that appears under `path` only when complete: `.part` → fsync → rename.
    A full disk is a StorageError.

    Binary files are opened for reading too: numpy bypasses a write-only file object, which hides a full disk.
    """
    try:
        with _replaced(path, mode) as file:
            yield file
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise StorageError(
            f"Could not write {path}: {error.strerror}. Free some space or name another folder; a second "
            "run goes on where this one stopped.",
            hint="Then run the same command again.",
        ) from error


@contextlib.contextmanager
def _replaced(path: Path, mode: str) -> Iterator[IO]:
    """A file beside `path` that takes its place at the end, or else is removed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode) as file:
            yield file
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _settle(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file of text; a character that is no text, as names of files may have, becomes `?`."""
    with written(path) as file:
        file.write(text.encode(errors="replace"))


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """A lock on `folder` for one process at a time; half-written files of a killed process are removed.

    Another process waits for the lock, or with `wait=False` is refused. A kill releases it.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            remove_partial(folder)
        except BlockingIOError as error:
            raise StorageError(f"Another process is at work in {folder}. Try again when it ends.") from error
        except OSError as error:  # network disks may have no locks: two writers would then mix their files
            raise StorageError(
                f"Could not lock the folder {folder}: {error.strerror}. Use a folder on a local disk that "
                "can be written.",
                hint="For stored features: --store FOLDER.",
            ) from error
        yield


def remove_partial(folder: Path) -> None:
    """Remove half-written files of a killed process from a folder where no other process works."""
    for part in folder.glob(".*.part"):
        if part.is_file():
            part.unlink()


def _settle(folder: Path) -> None:
    """fsync of the folder, so that a rename outlasts a power cut; not every system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
