"""The seconds of a method that takes no gradients: timed on a few of the run's own images and queries."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import encoded
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.families.protocol import Method

ENOUGH = 0.5  # seconds of a timing that the clock's noise does not drown
SMALLEST = 16  # training images in the first timing


def sampled_seconds(
    method: Method, model: Denoiser | None, train: Examples, queries: Examples, memory: int
) -> float:
    """Seconds of fit and score for n training images and q queries, s(n, q) = a + bn + cq + dnq, from four
    timings at two sizes of each side; the sizes grow until a timing takes ENOUGH."""
    with TemporaryDirectory() as folder:
        stores = empty_stores(Path(folder), memory)

        def timed(n: int, q: int) -> float:
            store = next(stores)
            sides = train.take(range(n)), queries.take(range(q))
            images, pictures = (encoded(model, side, store) for side in sides)
            start = time.perf_counter()
            for _ in method.score(method.fit(model, images, store), pictures, store):
                pass
            return time.perf_counter() - start

        sizes = (SMALLEST, 1)
        timed(*_within(sizes, train, queries))  # compiles, and loads an embedder
        while timed(*_within(sizes, train, queries)) < ENOUGH and sizes[0] < len(train) // 2:
            sizes = (2 * sizes[0], sizes[1])
        (n, q), (more, most) = (_within((k * sizes[0], k * sizes[1]), train, queries) for k in (1, 2))
        corners = timed(n, q), timed(more, q), timed(n, most), timed(more, most)
    return bilinear(corners, _place(len(train), n, more), _place(len(queries), q, most))


def empty_stores(folder: Path, memory: int = FeatureStore.memory) -> Iterator[FeatureStore]:
    """A new, empty store each time, so that every timing computes."""
    return (FeatureStore(folder / str(place), memory=memory) for place in count())


def bilinear(corners: tuple[float, float, float, float], x: float, y: float) -> float:
    """The value at (x, y) of the function that is linear in both, from its values at (0, 0), (1, 0), (0, 1)
    and (1, 1). No slope is negative: more images never take less time."""
    first, right, up, both = corners
    slopes = ((x, right - first), (y, up - first), (x * y, both - right - up + first))
    return first + sum(place * max(0.0, slope) for place, slope in slopes)


def _within(sizes: tuple[int, int], train: Examples, queries: Examples) -> tuple[int, int]:
    return min(sizes[0], len(train)), min(sizes[1], len(queries))


def _place(size: int, low: int, high: int) -> float:
    """Where a size lies, with low at 0 and high at 1."""
    return (size - low) / (high - low) if high > low else 0.0
