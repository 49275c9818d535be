"""Rows of numbers on disk, addressed by their settings: get or compute; a kill loses at most one shard.

A folder holds the rows of one setting (model, measurement, draws, projector) in one dtype; the key of a row
is its example's content hash. A damaged shard is detected on reading, reported, and computed again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.disk.files import cache_home, expanded, locked, written
from headwater.disk.shards import ENCODINGS, Damaged, Rows, delete_shard, open_shard, shards, write_shard
from headwater.errors import OptionError, StorageError, Warn, to_warnings, unknown
from headwater.workers import Crew


def default_root() -> Path:
    """`$HEADWATER_STORE`, else `headwater` in the user's cache folder; a StorageError where there is none."""
    folder = os.environ.get("HEADWATER_STORE")
    if folder:
        return expanded(folder)
    home = cache_home()
    if home is None:
        raise StorageError(
            "There is no folder to keep features in: this user has no home folder (HOME is not set). Name "
            "one, as store=FeatureStore(Path(FOLDER)) or in HEADWATER_STORE.",
            hint="Here: --store FOLDER.",
        )
    return home / "headwater"


def unheard(count: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class FeatureStore:
    """Feature rows under one root folder, stored as float32, or as float16 in half the space.

    `progress` is called with (rows done, rows to do) while rows are computed, `warn` with a line for each
    damaged shard, and with what methods notice while they compute. `crew` computes missing rows (None: this
    process). `memory` is the budget of an attribution in bytes: what the activations of one pass through a
    model, or a method without one, may hold. `block`: the most images whose features, or parts of a sum, are
    computed and written together (None: as many as suit their kind).
    """

    root: Path
    # named functions, so that the store can be pickled for other processes
    progress: Callable[[int, int], None] = unheard
    warn: Warn = to_warnings
    dtype: str = "float32"
    crew: Crew | None = None
    memory: int = 2**30
    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise OptionError(f"block is {self.block}; expected 1 or more.")
        if not (isinstance(self.memory, int) and self.memory >= 1):
            raise OptionError(f"memory is {self.memory}; expected a whole number of bytes, 1 or more.")
        if self.dtype not in ENCODINGS:
            raise unknown("dtype", self.dtype, ENCODINGS)

    def rows_together(self, usual: int) -> int:
        """The number of images that are computed and written together, where `usual` suit their kind."""
        return usual if self.block is None else min(usual, self.block)

    def rows(
        self,
        settings: Mapping[str, object],
        keys: Sequence[str],
        compute: Callable[[list[int]], Iterable[Rows]],
    ) -> Rows:
        """The float32 rows of `keys`, in order; missing rows come from `compute(positions)`, in blocks.

        Each block is written at once, so a killed run repeats at most one. Equal keys are computed once.
        """
        gathered = _Gathered(keys)
        with self.place("features", settings, f"-{self.dtype}") as folder:
            self._read(folder, gathered)
            missing = gathered.missing()
            if missing:
                self._compute(folder, gathered, [keys[i] for i in missing], compute(missing))
        return gathered.rows

    @contextmanager
    def place(self, kind: str, settings: Mapping[str, object], suffix: str = "") -> Iterator[Path]:
        """The locked folder of these settings, which its `settings.json` records."""
        folder = self.root / kind / f"{_name(settings)}{suffix}"
        with locked(folder):
            if not (folder / "settings.json").exists():
                with written(folder / "settings.json", "w") as file:
                    json.dump(settings, file, indent=1)
            yield folder

    def _read(self, folder: Path, gathered: "_Gathered") -> None:
        """Gather rows from disk. A damaged shard is reported and deleted, so that its rows are computed."""
        for path in shards(folder):
            try:
                shard = open_shard(path)
                if not gathered.places.keys().isdisjoint(shard.keys):
                    gathered.put(shard.keys, shard.rows())
            except Damaged as damage:
                delete_shard(path)
                self.warn(f"{damage} They are computed again.")

    def _compute(self, folder: Path, gathered: "_Gathered", keys: list[str], blocks: Iterable[Rows]) -> None:
        """Write and gather the rows of `keys` as they are computed."""
        count, first = 0, max((_number(path) for path in shards(folder)), default=-1) + 1
        for number, block in enumerate(blocks, first):
            block_keys = keys[count : count + len(block)]
            gathered.put(
                block_keys, write_shard(folder / f"rows-{number:06d}.json", block_keys, block, self.dtype)
            )
            count += len(block)
            self.progress(count, len(keys))
        if count < len(keys):
            raise ValueError(f"There are rows for {count} of {len(keys)} keys; expected one for each.")


class _Gathered:
    """The rows of `keys`, allocated once, when the width is known, and filled shard by shard."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            self.places.setdefault(key, []).append(place)
        self.rows, self.filled = np.empty((len(keys), 0), np.float32), set[str]()

    def put(self, keys: Sequence[str], rows: Rows) -> None:
        """Copy each row to every place of its key."""
        if not self.filled:
            self.rows = np.empty((len(self.rows), rows.shape[1]), np.float32)
        if rows.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"A row of {rows.shape[1]} numbers among rows of {self.rows.shape[1]}: settings must fix the "
                "width."
            )
        pairs = [(place, row) for row, key in enumerate(keys) for place in self.places.get(key, ())]
        to, of = np.array(pairs, np.int64).reshape(-1, 2).T
        self.rows[to] = rows[of]
        self.filled.update(keys)

    def missing(self) -> list[int]:
        """The first place of each key without a row."""
        return [places[0] for key, places in self.places.items() if key not in self.filled]


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("rows-"))


def _name(settings: Mapping[str, object]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12).hexdigest()
