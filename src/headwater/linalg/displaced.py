"""The distances between all patches of a picture and all patches of others, at one displacement after the other.

D(a, b) = Σ_o (x[a + o] − y[b + o])² over the o of a patch. At one displacement b − a the squared differences of two patches are
mostly those of their neighbours: they are made once, and running sums over windows turn them into D of all patches of any size.
Pictures lie side by side, one a lane, so that every sum is of all of them at once. Sums run in float64, whatever the pictures
are: what a window leaves is taken off exactly as it was put on.

A patch that reaches beyond the picture meets only patches that reach beyond theirs in the same way, and counts the pixels inside.
"""

import inspect
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numba import njit
from numba.core.caching import FunctionCache

WIDTHS = 8, 16, 32  # how many pictures may lie side by side: the fewest fill a vector
LANES = max(WIDTHS)


class Windows(NamedTuple):
    """The patches along one side of a picture, as windows on a map of it.

    Window w counts the map's elements first + w + step·j, j < elements, those outside as 0. Windows low ≤ w < high lie inside the
    picture and meet each other; every other meets only its own like.
    """

    number: int
    low: int
    high: int
    first: int
    elements: int
    step: int


def windows(size: int, patch: int, *, coarse: bool = False) -> Windows:
    """Patches of `patch` pixels, stride 1, with (patch − 1)//2 pixels of padding at both ends of a side of `size` pixels.

    `coarse`: of an even patch, its 2×2 cells: windows on a map of all cells, the first of which begins one pixel before the side.
    """
    pad = (patch - 1) // 2
    count = size + 2 * pad - patch + 1
    inside = (pad, size - patch + pad + 1)
    if coarse:
        return Windows(count, *inside, 1 - pad, patch // 2, 2)
    return Windows(count, *inside, -pad, patch, 1)


def cells(x: Float[np.ndarray, "*b h w"]) -> Float[np.ndarray, "*b h1 w1"]:
    """½ Σ of every 2×2 cell, those that reach over the edge included: orthonormal where cells do not overlap."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)])
    return (padded[..., :-1, :-1] + padded[..., 1:, :-1] + padded[..., :-1, 1:] + padded[..., 1:, 1:]) / 2


def side_by_side(pictures: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "c h wl"]:
    """Up to LANES pictures with their lanes innermost: the fewest of WIDTHS; empty ones are infinitely far from anything."""
    b, c, h, w = pictures.shape
    lanes = next(width for width in WIDTHS if width >= b)
    out = np.full((c, h, w, lanes), 1e9, pictures.dtype)
    out[..., :b] = np.moveaxis(pictures, 0, -1)
    return out.reshape(c, h, w * lanes)


class Kept(FunctionCache):
    """What numba compiled, kept beside the package for as long as every file here is what it was: numba itself looks at the
    function's own file alone, and an old kernel beside new files would be wrong without a word."""

    files = sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()

    def _index_key(self, sig, codegen):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (*super()._index_key(sig, codegen), self.files)


def jit(function):
    """Compiled when it is first called, and kept; the function itself, not what a type checker wraps it in."""
    compiled = njit(nogil=True, fastmath=True, error_model="numpy")(inspect.unwrap(function))
    compiled._cache = Kept(compiled.py_func)  # pyright: ignore[reportAttributeAccessIssue]
    return compiled


@jit
def room_for_sums(down, across, lanes, dtype):
    """Squares along a row of the map, their sums, windows along every row, and windows running down them."""
    ny, _, _, _, y_elements, y_step = down
    nx, _, _, _, x_elements, x_step = across
    columns, width = nx + x_step * (x_elements - 1), nx * lanes
    squares, sums = np.empty(columns * lanes, dtype), np.zeros((columns + x_step) * lanes)
    rows = np.empty((ny + y_step * (y_elements - 1), width), dtype)
    return squares, sums, rows, np.empty((y_step, width))


@jit
def met(windows, d):
    """The windows that meet one d further on: all their own likes, those inside each other."""
    count, low, high, _, _, _ = windows
    return (0, count) if d == 0 else (max(low, low - d), min(high, high - d))


@jit
def displaced(x, y, down, across, dy, dx, low, high, room, out, place):
    """Distances of the windows in rows low … high, which all meet others dy further on, to those dy, dx further on."""
    squares, sums, rows, running = room
    _, h, wide = x.shape
    lanes = out.shape[3]
    (_, _, _, y_first, y_elements, y_step), (_, _, _, x_first, x_elements, x_step) = down, across
    left, right = met(across, dx)
    reach, begin = y_step * (y_elements - 1), x_first + left
    width, columns = (right - left) * lanes, right - left + x_step * (x_elements - 1)
    inside, beyond = max(0, -begin), min(columns, wide // lanes - begin)  # columns on the map, among those that windows reach
    squares[: columns * lanes] = 0
    ahead = sums[x_elements * x_step * lanes :][:width]
    for r in range(high - low + reach):
        row, windows, down_to = y_first + low + r, rows[r, :width], running[r % y_step, :width]
        if r < y_step:
            down_to[:] = 0
        if 0 <= row < h:
            at, to = (begin + inside) * lanes, (begin + beyond) * lanes
            _squares(squares[inside * lanes : beyond * lanes], x, y, row, row + dy, at, to, dx * lanes)
            _summed(sums, squares[: columns * lanes], x_step * lanes)
            _between(windows, ahead, sums)
        else:
            windows[:] = 0
        if r < reach:
            _add(down_to, windows)
        else:
            _move(down_to, windows, rows[r - reach, :width], out[r - reach, place, left:right].reshape(-1))


@jit
def _squares(out, x, y, row, other, at, to, shift):
    """Σ over channels of (x − y)², along a row of x and one of y that begins `shift` further on."""
    if len(x) == 3:
        x0, x1, x2 = x[0, row, at:to], x[1, row, at:to], x[2, row, at:to]
        y0, y1, y2 = (
            y[0, other, at + shift : to + shift],
            y[1, other, at + shift : to + shift],
            y[2, other, at + shift : to + shift],
        )
        for i in range(len(out)):
            a, b, c = x0[i] - y0[i], x1[i] - y1[i], x2[i] - y2[i]
            out[i] = a * a + b * b + c * c
        return
    out[:] = 0
    for channel in range(len(x)):
        one, two = x[channel, row, at:to], y[channel, other, at + shift : to + shift]
        for i in range(len(out)):
            a = one[i] - two[i]
            out[i] += a * a


@jit
def _summed(sums, squares, apart):
    """sums[c + apart] = squares of columns c, c − apart, c − 2·apart, …: `apart` must be a constant for this to vectorise."""
    if apart == 8:
        for i in range(len(squares)):
            sums[i + 8] = sums[i] + squares[i]
    elif apart == 16:
        for i in range(len(squares)):
            sums[i + 16] = sums[i] + squares[i]
    elif apart == 32:
        for i in range(len(squares)):
            sums[i + 32] = sums[i] + squares[i]
    else:
        for i in range(len(squares)):
            sums[i + 64] = sums[i] + squares[i]


@jit
def _between(out, ahead, behind):
    for i in range(len(out)):
        out[i] = ahead[i] - behind[i]


@jit
def _add(running, row):
    for i in range(len(row)):
        running[i] += row[i]


@jit
def _move(running, row, oldest, whole):
    """A row more, which makes the windows whole; then their oldest row leaves."""
    for i in range(len(row)):
        whole[i] = running[i] + row[i]
        running[i] += row[i] - oldest[i]
