"""Rows of numbers on disk, found by what they were computed from: get or compute, shard by shard, resumable.

A folder holds the rows of one setting (model, measurement, draws, projector); a row is found by its example's content hash.
A shard is `rows-<i>.npy` with `rows-<i>.json` (its keys) written after it: a shard without its keys does not exist.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32

from headwater.errors import StorageError

Rows = Float32[np.ndarray, "n k"]
FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR)


def default_root() -> Path:
    """`$HEADWATER_STORE`, else `headwater` in the user's cache folder."""
    named = os.environ.get("HEADWATER_STORE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"


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


@dataclass(frozen=True)
class FeatureStore:
    """Feature rows under one root folder. `progress` is told (rows done, rows to do) while rows are computed."""

    root: Path
    progress: Callable[[int, int], None] = lambda done, total: None

    def rows(
        self,
        settings: Mapping[str, object],
        keys: Sequence[str],
        compute: Callable[[list[int]], Iterable[Rows]],
    ) -> Rows:
        """The rows of `keys`, in that order; those not on disk come from `compute(positions)`, a block of rows at a time.

        Each block is kept as soon as it exists, so a killed run repeats at most one. Equal keys are computed once.
        """
        folder = self.root / "features" / _name(settings)
        with _locked(folder):
            if not (folder / "settings.json").exists():
                with written(folder / "settings.json", "w") as file:
                    json.dump(settings, file, indent=1)
            known = self._known(folder)
            first: dict[str, int] = {}
            for position, key in enumerate(keys):
                if key not in known:
                    first.setdefault(key, position)
            missing = list(first.values())
            done, shard = 0, max((_number(path) for path in folder.glob("rows-*")), default=-1) + 1
            for block in compute(missing) if missing else ():
                block_keys = [keys[i] for i in missing[done : done + len(block)]]
                with written(folder / f"rows-{shard:06d}.npy") as file:
                    np.save(file, block)
                with written(folder / f"rows-{shard:06d}.json", "w") as file:
                    json.dump(block_keys, file)
                known.update({key: (shard, i) for i, key in enumerate(block_keys)})
                done, shard = done + len(block), shard + 1
                self.progress(done, len(missing))
        return self._read(folder, [known[key] for key in keys])

    def _known(self, folder: Path) -> dict[str, tuple[int, int]]:
        """Where each stored key's row is: (shard, row)."""
        known: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.glob("rows-*.json")):
            shard = _number(path)
            try:
                keys = list(json.loads(path.read_text()))
            except ValueError as error:
                raise _damaged(path) from error
            if path.with_suffix(".npy").exists():
                known.update({key: (shard, i) for i, key in enumerate(keys)})
        return known

    def _read(self, folder: Path, places: list[tuple[int, int]]) -> Rows:
        shards = np.array([shard for shard, _ in places])
        within = np.array([row for _, row in places])
        out: Rows | None = None
        for shard in np.unique(shards):
            path = folder / f"rows-{shard:06d}.npy"
            here = shards == shard
            try:
                block = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise _damaged(path) from error
            if within[here].max() >= len(block):
                raise _damaged(path)
            if out is None:
                out = np.empty((len(places), block.shape[1]), np.float32)
            out[here] = block[within[here]]
        assert out is not None
        return out


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("rows-"))


def _damaged(path: Path) -> StorageError:
    return StorageError(f"The stored features in {path} are damaged. Delete the folder {path.parent}: they are computed anew.")


def _name(settings: Mapping[str, object]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12).hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time; another process waits, and then finds the rows there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise StorageError(f"Could not open the feature store at {folder}: {error.strerror}. Name another with --store.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
