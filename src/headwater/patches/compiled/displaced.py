"""The distances between all patches of a picture and all patches of others, at one displacement after the
other.

D(a, b) = Σ_o (x[a + o] − y[b + o])² over the o of a patch. At one displacement b − a the squared differences
of two patches are mostly shared with their neighbours: they are computed once, and sums over windows turn
them into D of all patches of any size. Along a side, elements lie in blocks as long as a window; sums from
each element to the end of its block, and from the beginning of the next one, give every window by three
additions whatever its size (van Herk 1992, for maxima). Nothing is ever subtracted, so that a small D is as
precise as a large one. Pictures lie side by side, one a lane, so that every sum is taken in all of them at
once.

A patch that reaches beyond its picture meets only patches that reach beyond theirs in the same way, and
counts the pixels inside."""

import inspect
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numba import njit
from numba.core.caching import FunctionCache

from headwater.disk.files import cache_home
from headwater.patches.compiled.vectors import Lanes, fill_lanes, load_lanes, store_lanes

WIDTHS = 8, 16, 32  # how many pictures may lie side by side: the fewest fill a vector
LANES = max(WIDTHS)
# without a home folder numba would make one called `~`
CACHED = (
    bool(os.environ.get("NUMBA_CACHE_DIR"))
    or os.access(Path(__file__).parent, os.W_OK)
    or cache_home() is not None
)


class Windows(NamedTuple):
    """The patches along one side of a picture, as windows on a map of it.

    Window w counts the map's elements first + w + step·j, j < elements, and 0 outside the map. Windows low ≤
    w < high lie inside the picture and meet one another; every other window meets only the one at its own
    place."""

    number: int
    low: int
    high: int
    first: int
    elements: int
    step: int


def windows(size: int, patch: int, *, coarse: bool = False) -> Windows:
    """Patches of `patch` pixels, stride 1, with (patch − 1)//2 pixels of padding at both ends of a side of
    `size` pixels.

    `coarse`: an even patch as its 2×2 cells: windows on a map of all cells, the first of which begins one
    pixel before the side."""
    pad = (patch - 1) // 2
    count = size + 2 * pad - patch + 1
    inside = (pad, size - patch + pad + 1)
    if coarse:
        return Windows(count, *inside, 1 - pad, patch // 2, 2)
    return Windows(count, *inside, -pad, patch, 1)


def cells(x: Float[np.ndarray, "*b h w"]) -> Float[np.ndarray, "*b h1 w1"]:
    """½ Σ of every 2×2 cell, cells over the edge included: orthonormal where cells do not overlap."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)])
    return (padded[..., :-1, :-1] + padded[..., 1:, :-1] + padded[..., :-1, 1:] + padded[..., 1:, 1:]) / 2


def side_by_side(
    pictures: Float[np.ndarray, "b c h w"], widths: Sequence[int] = WIDTHS
) -> Float[np.ndarray, "c h wl"]:
    """Up to LANES pictures with their lanes innermost: the fewest of `widths`; empty ones are infinitely far
    from anything."""
    b, c, h, w = pictures.shape
    lanes = next(width for width in widths if width >= b)
    out = np.full((c, h, w, lanes), 1e9, pictures.dtype)
    out[..., :b] = np.moveaxis(pictures, 0, -1)
    return out.reshape(c, h, w * lanes)


class KernelCache(FunctionCache):
    """A cache of compiled functions that is valid while no file of this folder changes: numba itself looks at
    the function's file alone, and an old kernel beside new files would silently be wrong."""

    files = sha256(
        b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    ).hexdigest()

    def _index_key(self, sig, codegen):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (*super()._index_key(sig, codegen), self.files)


def jit(function):
    """Compile a function on its first call, and cache it; without the wrapper of a type checker.

    Where there is no folder for the cache, it is compiled anew in every process."""
    compiled = njit(nogil=True, fastmath=True, error_model="numpy")(inspect.unwrap(function))
    if CACHED:
        with suppress(RuntimeError):  # no folder that can be written
            compiled._cache = KernelCache(compiled.py_func)  # pyright: ignore[reportAttributeAccessIssue]
    return compiled


class WindowSums(NamedTuple):
    """Memory for the sums of one displacement: the lanes; along a row of the map, squares that become sums to
    the end of their block (`ahead`), and sums from its beginning (`behind`); the latter down the rows of
    windows; and the rows of a block."""

    lanes: Lanes
    ahead: np.ndarray
    behind: np.ndarray
    behind_down: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, down: Windows, across: Windows, lanes: int, dtype: np.dtype) -> "WindowSums":
        """For windows of this kind."""
        columns = across.number + across.step * (across.elements - 1)
        ahead, behind = np.empty((2, columns * lanes), dtype)
        behind_down = np.empty((down.step, across.number * lanes), dtype)
        return cls(
            Lanes(lanes),
            ahead,
            behind,
            behind_down,
            np.empty((down.step, down.elements, *behind_down.shape[1:]), dtype),
        )


@jit
def met(windows, d):
    """The windows that meet another d further on: all at d = 0, else the ones inside."""
    count, low, high, _, _, _ = windows
    return (0, count) if d == 0 else (max(low, low - d), min(high, high - d))


@jit
def displaced(x, y, down, across, dy, dx, low, high, sums, out, place):
    """Distances of the windows in rows low … high, which all meet others dy further on, to those dy, dx
    further on.

    Along the rows, and then down them, a window reaches from within one block of as many elements as it has
    into the next: it is the end of the first and the beginning of the second. Three additions give it,
    however large it is."""
    (_, _, _, first, elements, step), (start, stop) = down, met(across, dx)
    _, places, nx, lanes = out.shape
    reach, block, part = step * (elements - 1), 0, 0
    for r in range(high - low + reach):
        row = first + low + r
        outside = not 0 <= row < x.shape[1]
        if not outside:
            _along(x, y, across, row, row + dy, start, stop, dx, sums)
        to = (((r - reach) * places + place) * nx + start) * lanes if r >= reach else -1
        _down(across, stop - start, block, part, outside, sums, out, to)
        part += 1
        if part == step:
            part, block = 0, block + 1
            if block == elements:
                block = 0
                _left_down((stop - start) * lanes, lanes, sums)


@jit
def _along(x, y, across, row, y_row, start, stop, dx, sums):
    """Squares along a row of x and a row of y that begins dx further on, and their sums within blocks."""
    lanes, ahead, behind, _, _ = sums
    _, _, _, first, elements, step = across
    channels, h, w = x.shape
    n, block, part, begin = y.shape[2] // w, 0, 0, first + start
    for c in range(stop - start + step * (elements - 1)):
        square = fill_lanes(lanes, x.dtype.type(0))
        if 0 <= begin + c < w:
            for channel in range(channels):
                at = (channel * h + y_row) * w + begin + c + dx
                apart = fill_lanes(lanes, x[channel, row, begin + c]) - load_lanes(lanes, y, at * n)
                square = square + apart * apart
        store_lanes(ahead, c * n, square)
        store_lanes(
            behind, c * n, square if block == 0 else load_lanes(lanes, behind, (c - step) * n) + square
        )
        if block == elements - 1:
            left_over = square
            for back in range(1, elements - 1):
                at = (c - back * step) * n
                left_over = left_over + load_lanes(lanes, ahead, at)
                store_lanes(ahead, at, left_over)
        part += 1
        if part == step:
            part, block = 0, block + 1
            if block == elements:
                block = 0


@jit
def _down(across, windows, block, part, outside, sums, out, to):
    """Sums of windows along the row and down to it; with the end of the block before, the distances, written
    from `to` in out."""
    lanes, ahead, behind, behind_down, rows = sums
    _, _, _, _, elements, step = across
    _, tall, width = rows.shape
    n, reach = out.shape[3], step * (elements - 1)
    along, turn = 0, 0
    for c in range(windows):
        value = fill_lanes(lanes, out.dtype.type(0))
        if not outside:
            value = load_lanes(lanes, behind, (c + reach) * n)
            if along > 0:
                value = value + load_lanes(lanes, ahead, c * n)
        store_lanes(rows, (part * tall + block) * width + c * n, value)
        if block > 0:
            value = value + load_lanes(lanes, behind_down, part * width + c * n)
        store_lanes(behind_down, part * width + c * n, value)
        if to >= 0:
            if block < tall - 1:
                value = value + load_lanes(lanes, rows, (part * tall + block + 1) * width + c * n)
            store_lanes(out, to + c * n, value)
        turn += 1
        if turn == step:
            turn, along = 0, along + 1
            if along == elements:
                along = 0


@jit
def _left_down(width, n, sums):
    """In a complete block of rows, the sums from each row to its end."""
    lanes, _, _, _, rows = sums
    step, tall, apart = rows.shape
    for part in range(step):
        for c in range(0, width, n):
            at = (part * tall + tall - 1) * apart + c
            left_over = load_lanes(lanes, rows, at)
            for _ in range(tall - 2):
                at -= apart
                left_over = left_over + load_lanes(lanes, rows, at)
                store_lanes(rows, at, left_over)
