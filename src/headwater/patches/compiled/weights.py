"""The weight of every patch of a picture in a softmax over all patches of other pictures, without cutting one
patch out."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from headwater.patches.compiled.displaced import LANES, Windows, WindowSums, displaced, jit, met
from headwater.patches.compiled.nearest import (
    FAR,
    Desk,
    Lists,
    coded,
    exponentials,
    finish,
    fold,
    keep_near,
    streamed,
)

ROOM = 2**27  # bytes of memory for distances
LINES = 1024  # distances of a window that are held


class Weighed(NamedTuple):
    """For every window a of the query, over the pictures in the lanes: the least distance, Σ exp(−scale·(D −
    least)) over all of their patches, and that sum over the `top` nearest patches of each picture; which
    these are, as codes: all less than `last`, and a `share` of all equal to it."""

    least: Float[np.ndarray, " a"]
    total: Float[np.ndarray, " a"]
    top: Float[np.ndarray, "a _"]
    last: Int[np.ndarray, "a _"]
    share: Float[np.ndarray, "a _"]


class Room(NamedTuple):
    """Memory for distances, for one thread: lists of the near ones, and the newest."""

    near: Float[np.ndarray, "w lines _"]
    fresh: Float[np.ndarray, "rows places nx _"]


def _lines(most: int, top: int, lines: int = LINES) -> int:
    """The number of distances of a window that are held, of `most`: at least 10 times `top`."""
    return min(most, max(10 * top, lines))


def bytes_of_lists(down: Windows, across: Windows, variants: int, top: int) -> int:
    """The least memory that `weighed` needs in float32: lists for one row of windows."""
    most = variants * (down.high - down.low) * (across.high - across.low)
    return across.number * _lines(most, top) * LANES * 4


def room(
    down: Windows,
    across: Windows,
    variants: int,
    lanes: int,
    top: int,
    memory: UInt8[np.ndarray, " bytes"],
    dtype: np.dtype,
    lines: int = LINES,
) -> Room:
    """The room for these windows in `memory`, with `lines` distances of each; memory of its own where a row
    of windows does not fit."""
    line = lanes * dtype.itemsize
    most = variants * (down.high - down.low) * (across.high - across.low)
    lines = _lines(most, top, lines)
    rows = min(down.number, max(1, len(memory) * 8 // 9 // (across.number * lines * line)))
    places = min(
        across.high - across.low,
        lines - 2 * top if lines < most else lines,
        max(1, len(memory) // 9 // (rows * across.number * line)),
    )
    near, fresh = (rows * across.number, lines, lanes), (rows, places, across.number, lanes)
    if (size := (math.prod(near) + math.prod(fresh)) * dtype.itemsize) > len(memory):
        memory = np.empty(size, np.uint8)
    numbers, first = memory[:size].view(dtype), math.prod(near)
    return Room(numbers[:first].reshape(near), numbers[first:].reshape(fresh))


class PatchSoftmax(NamedTuple):
    """exp(−scale·D) between every window of the map x and the patches of pictures, v variants (such as mirror
    images) of each.

    y has its lanes innermost (`side_by_side`); the `top` nearest patches of each picture count.
    """

    x: Float[np.ndarray, "c h w"]
    y: Float[np.ndarray, "v c h wl"]
    down: Windows
    across: Windows
    scale: float
    top: int


def weighed(
    softmax: PatchSoftmax,
    limits: Float[np.ndarray, " a"] | None = None,
    reach: float = FAR,
    memory: UInt8[np.ndarray, " bytes"] | None = None,
    lines: int = LINES,
) -> Weighed:
    """The weights of the pictures' patches for every window.

    Patches further than `limits[a]` from window a, or further than `reach` beyond the nearest, may be left
    out. `memory` to work in: ROOM bytes if None; `lines` distances of a window are held in it."""
    x, y, down, across, scale, top = softmax
    lanes = y.shape[3] // x.shape[2]
    memory = np.empty(ROOM, np.uint8) if memory is None else memory
    near, fresh = room(down, across, len(y), lanes, top, memory, x.dtype, lines)
    if limits is None:
        limits = np.full(down.number * across.number, FAR)
    bounds, sums = np.minimum(limits, FAR).astype(x.dtype), WindowSums.of(down, across, lanes, x.dtype)
    desk = Desk.of(x.dtype, scale, top, lanes, near.shape[1])
    x, reach = np.ascontiguousarray(x), x.dtype.type(min(reach, FAR))
    return Weighed(*_weighed(x, y, tuple(down), tuple(across), bounds, reach, near, fresh, tuple(sums), desk))


@jit
def _weighed(x, y, down, across, limits, reach, near, fresh, sums, desk):
    """`weighed`, as many rows of windows at a time as there is room for.

    Distances at a few displacements along a row come into `fresh`, where windows lie side by side, and from
    there into `near`, a list for each window and lane. Displacements d and d − width, width the number of
    windows inside, concern different windows, and share a place."""
    ny, y_low, y_high, _, _, _ = down
    nx, x_low, x_high, _, _, _ = across
    rows, group, _, lanes = fresh.shape
    lines, counted, filled = (
        np.empty(rows * nx, np.int64),
        np.empty(rows * nx, np.int64),
        np.empty((rows * nx, lanes), np.int32),
    )
    dense, enough = np.empty(rows * nx, np.bool_), np.empty((rows * nx, lanes), x.dtype)
    least, total, tops = (
        np.empty(ny * nx, x.dtype),
        np.zeros(ny * nx, x.dtype),
        np.empty((ny * nx, lanes), x.dtype),
    )
    last, share = np.empty((ny * nx, lanes), desk.codes.dtype), np.empty((ny * nx, lanes), x.dtype)
    least[:] = FAR
    width = x_high - x_low
    for start in range(0, ny, rows):
        stop = min(ny, start + rows)
        block = slice(start * nx, stop * nx)
        lines[:], counted[:], filled[:] = 0, 0, 0
        for w in range((stop - start) * nx):
            dense[w] = min(reach, limits[start * nx + w]) >= FAR
        enough[:] = FAR
        lists = Lists(near, lines, filled, counted, enough, least[block], total[block])
        for variant in range(len(y)):
            for dy in range(1 - (y_high - y_low), y_high - y_low):
                low, high = met(down, dy)
                low, high = max(low, start), min(high, stop)
                for first in range(0, width if low < high else 0, group):
                    stop_at = min(width, first + group)
                    for d in range(first, stop_at):
                        displaced(x, y[variant], down, across, dy, d, low, high, sums, fresh, d - first)
                        if d > 0:
                            displaced(
                                x, y[variant], down, across, dy, d - width, low, high, sums, fresh, d - first
                            )
                    for r in range(low, high):
                        for j in range(nx):
                            inside = x_low <= j < x_high
                            if inside or first == 0:
                                w, places = (r - start) * nx + j, stop_at - first if inside else 1
                                if lines[w] + places > near.shape[1]:
                                    fold(w, lists, desk)
                                a = start * nx + w
                                if dense[w] and enough[w, 0] < FAR:
                                    streamed(fresh, r - low, places, j, w, lists, desk)
                                else:
                                    lines[w], dense[w], limits[a] = keep_near(
                                        sums[0],
                                        fresh,
                                        r - low,
                                        places,
                                        j,
                                        near,
                                        filled,
                                        w,
                                        lines[w],
                                        dense[w],
                                        limits[a],
                                        reach,
                                    )
        for w in range((stop - start) * nx):
            a = start * nx + w
            finish(w, lists, desk, tops[a], last[a], share[a])
    return least, total, tops, last, share


class Traced(NamedTuple):
    """Between the windows a of a query and the windows b of the pictures in the lanes, v variants of each:
    for each b the sum over a of the weights that count; for each a the distance of the nearest b, and its
    `place`, variant · windows + b."""

    image_sums: Float[np.ndarray, "v b _"]
    nearest: Float[np.ndarray, "a _"]
    place: Int[np.ndarray, "a _"]


def traced(softmax: PatchSoftmax, weights: Weighed, factor: Float[np.ndarray, " a"]) -> Traced:
    """The places of the weights of `weighed` in each picture, each times `factor[a]`.

    Patches that share the last code share its weight: all of them, also where a full list had no place for
    some."""
    x, y, down, across, scale, top = softmax
    lanes = y.shape[3] // x.shape[2]
    fresh, sums = (
        np.empty((down.number, 1, across.number, lanes), x.dtype),
        WindowSums.of(down, across, lanes, x.dtype),
    )
    desk, factor = Desk.of(x.dtype, scale, top, lanes, 1), factor.astype(x.dtype)
    return Traced(
        *_traced(
            np.ascontiguousarray(x),
            y,
            tuple(down),
            tuple(across),
            tuple(weights),
            factor,
            fresh,
            tuple(sums),
            desk,
        )
    )


@jit
def _traced(x, y, down, across, weights, factor, fresh, sums, desk):
    ny, y_low, y_high, _, _, _ = down
    nx, x_low, x_high, _, _, _ = across
    lanes = fresh.shape[3]
    image_sums = np.zeros((len(y), ny * nx, lanes), x.dtype)
    nearest, place = np.empty((ny * nx, lanes), x.dtype), np.zeros((ny * nx, lanes), np.int32)
    nearest[:] = FAR
    least, last, share = weights[0], weights[3], weights[4].copy()
    below, equal = np.zeros(last.shape, np.int32), np.zeros(last.shape, np.int32)
    for counting in range(1 if share.min() < 1 else 0, -1, -1):
        for variant in range(len(y)):
            for dy in range(1 - (y_high - y_low), y_high - y_low):
                low, high = met(down, dy)
                for dx in range(1 - (x_high - x_low), x_high - x_low):
                    displaced(x, y[variant], down, across, dy, dx, low, high, sums, fresh, 0)
                    begin, end = met(across, dx)
                    for r in range(low, high):
                        for j in range(begin, end):
                            a, b = r * nx + j, (r + dy) * nx + j + dx
                            distances = fresh[r - low, 0, j]
                            coded(desk.codes, distances, least[a], desk)
                            if counting:
                                _tally(desk.codes, last[a], below[a], equal[a])
                            else:
                                _look(
                                    distances, a, least, last, share, factor[a], image_sums[variant, b], desk
                                )
                                _nearer(distances, variant * ny * nx + b, nearest[a], place[a])
        if counting:
            _shared(share, below, equal, desk.top)
    return image_sums, nearest, place


@jit
def _tally(codes, last, below, equal):
    for lane in range(len(last)):
        below[lane] += codes[lane] < last[lane]
        equal[lane] += codes[lane] == last[lane]


@jit
def _shared(share, below, equal, top):
    """The part that counts of all patches that share the last code."""
    for a in range(len(share)):
        for lane in range(share.shape[1]):
            if share[a, lane] < 1:
                share[a, lane] = (top - below[a, lane]) / max(1, equal[a, lane])


@jit
def _look(distances, a, least, last, share, factor, image_sums, desk):
    """Add the weights that count at these distances from window a to the sums of a window of the pictures."""
    exponentials(desk.weights, distances, least[a], desk.scale)
    for lane in range(len(image_sums)):
        code = desk.codes[lane]
        part = 1 if code < last[a, lane] else share[a, lane] if code == last[a, lane] else 0
        image_sums[lane] += factor * desk.weights[lane] * part


@jit
def _nearer(distances, place, nearest, places):
    for lane in range(len(distances)):
        if distances[lane] < nearest[lane]:
            nearest[lane] = distances[lane]
            places[lane] = place
