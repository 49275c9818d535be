"""The distances between all patches of a picture and all patches of others, at one displacement after the other.

D(a, b) = Σ_o (x[a + o] − y[b + o])² over the o of a patch. At one displacement b − a the squared differences of two patches are
mostly those of their neighbours: they are made once, and running sums over windows turn them into D of all patches of any size.
Pictures lie side by side, one a lane, so that every sum is of LANES pictures at once. Sums run in float64, whatever the pictures
are: what a window leaves is taken off exactly as it was put on.

A patch that reaches beyond the picture meets only patches that reach beyond theirs in the same way, and counts the pixels inside.
"""

import inspect
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numba import njit

LANES = 32
UNPACKING = 60  # seconds


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
    """Up to LANES pictures with their lanes innermost; empty lanes are infinitely far from anything."""
    b, c, h, w = pictures.shape
    out = np.full((c, h, w, LANES), 1e9, pictures.dtype)
    out[..., :b] = np.moveaxis(pictures, 0, -1)
    return out.reshape(c, h, w * LANES)


def jit(function):
    """Compiled when it is first called, and kept beside the package; the function itself, not what a type checker wraps it in.

    numba looks at the function's own file alone. Where a file that may be compiled into it is newer, by more than unpacking takes,
    nothing is kept: an old kernel beside new files would be wrong without a word.
    """
    own = inspect.unwrap(function)
    newest = max((Path(__file__).parent / name).stat().st_mtime for name in ("displaced.py", "nearest.py"))
    current = newest < Path(inspect.getfile(own)).stat().st_mtime + UNPACKING
    return njit(nogil=True, cache=current, fastmath=True, error_model="numpy")(own)


@jit
def room_for_sums(down, across, dtype):
    """Squares along a row of the map, their sums, windows along every row, and windows running down them."""
    ny, _, _, _, y_elements, y_step = down
    nx, _, _, _, x_elements, x_step = across
    columns, width = nx + x_step * (x_elements - 1), nx * LANES
    squares, sums = np.empty(columns * LANES, dtype), np.zeros((columns + x_step) * LANES)
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
    (_, _, _, y_first, y_elements, y_step), (_, _, _, x_first, x_elements, x_step) = down, across
    left, right = met(across, dx)
    reach, begin = y_step * (y_elements - 1), x_first + left
    width, columns = (right - left) * LANES, right - left + x_step * (x_elements - 1)
    inside, beyond = max(0, -begin), min(columns, wide // LANES - begin)  # columns on the map, among those that windows reach
    squares[: columns * LANES] = 0
    ahead = sums[x_elements * x_step * LANES :][:width]
    for r in range(high - low + reach):
        row, windows, down_to = y_first + low + r, rows[r, :width], running[r % y_step, :width]
        if r < y_step:
            down_to[:] = 0
        if 0 <= row < h:
            at, to = (begin + inside) * LANES, (begin + beyond) * LANES
            _squares(squares[inside * LANES : beyond * LANES], x, y, row, row + dy, at, to, dx * LANES)
            _summed(sums, squares[: columns * LANES], x_step)
            _between(windows, ahead, sums)
        else:
            windows[:] = 0
        if r < reach:
            _add(down_to, windows)
        else:
            _move(down_to, windows, rows[r - reach, :width], out[r - reach, place, left * LANES : right * LANES])


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
def _summed(sums, squares, step):
    """sums[c + step] = squares of columns c, c − step, c − 2·step, …: the distance must be a constant for this to vectorise."""
    if step == 1:
        for i in range(len(squares)):
            sums[i + LANES] = sums[i] + squares[i]
    else:
        for i in range(len(squares)):
            sums[i + 2 * LANES] = sums[i] + squares[i]


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
