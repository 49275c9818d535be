"""Threads that work on patches, each with memory that is used again: memory is slow when it is touched for
the first time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
from jaxtyping import UInt8

from headwater.patches.compiled.weights import ROOM


class Threads:
    """A pool of threads with ROOM bytes for each, for as long as a `with` block lasts."""

    def __init__(self, number: int):
        self.pool = ThreadPoolExecutor(number)
        self._memory: SimpleQueue[UInt8[np.ndarray, " bytes"]] = SimpleQueue()
        for _ in range(number):
            self._memory.put(np.empty(ROOM, np.uint8))

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    @contextmanager
    def memory(self) -> Iterator[UInt8[np.ndarray, " bytes"]]:
        """ROOM bytes for as long as the block lasts."""
        memory = self._memory.get()
        try:
            yield memory
        finally:
            self._memory.put(memory)
