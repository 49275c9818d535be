"""Files that appear only when whole, and folders in which one process works at a time: a kill or a full disk breaks neither."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from headwater.errors import StorageError

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR)


@contextlib.contextmanager
def written(path: Path, mode: str = "w+b") -> Iterator[IO]:
    """A file that appears under `path` only when complete: `.part` → fsync → rename. A full disk is told plainly.

    Binary files are opened for reading too: numpy's C code writes past a write-only file object, and then a full disk is silent.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open(mode) as file:
            yield file
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _settle(path.parent)
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise StorageError(
            f"Could not write {path}: {error.strerror}. Free some space or name another folder, then run the same command "
            "again: it goes on where it stopped."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """One process at a time in `folder`; what a killed one left half-written there is removed.

    Another process waits for its turn; with `wait=False` it is refused. A kill gives the lock back.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            sweep(folder)
        except BlockingIOError as error:
            raise StorageError(
                f"Another process is at work in {folder}. Wait until it ends, then run the same command again."
            ) from error
        except OSError as error:  # network disks may have no locks: two writers would then mix their files
            raise StorageError(
                f"Could not lock the folder {folder}: {error.strerror}. Name one on a local disk that can be written; "
                "features are kept where --store says."
            ) from error
        yield


def sweep(folder: Path) -> None:
    """Remove the files that a killed process left half-written in a folder where nobody else is at work."""
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
