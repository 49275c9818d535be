"""What every patch of a picture weighs in a softmax over all patches of other pictures, without cutting one patch out.

D(a, b) = Σ_o (x[a + o] − y[b + o])² over the o of a patch. At one displacement b − a the squared differences of two patches are
mostly those of their neighbours: they are made once, and running sums over windows turn them into D of all patches of any size.
Pictures lie side by side, one a lane, so that every sum is of LANES pictures at once. Sums run in float64, whatever the pictures
are: what a window leaves is taken off exactly as it was put on.

A patch that reaches beyond the picture meets only patches that reach beyond theirs in the same way, and counts the pixels inside.
"""

import inspect
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

LANES = 32
TOGETHER = 8  # lines of lanes that are compared at once
WIDE = TOGETHER * LANES
ROOM = 2**27  # bytes of distances that are held at a time
LINES = 1024  # distances of a window that are held, if there are as many
FAR = 1e30  # a distance that nothing has
EMPTY = 2e30  # what stands where there is no distance


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


class Weighed(NamedTuple):
    """For every window a of the query, over LANES pictures: the least distance, Σ exp(−scale·(D − least)) over all of their
    patches, and that sum over the `top` nearest patches of each picture; which these are, as codes: those less than `last`, and
    of those that equal it a `share`."""

    least: Float[np.ndarray, " a"]
    total: Float[np.ndarray, " a"]
    top: Float[np.ndarray, "a _"]
    last: Int[np.ndarray, "a _"]
    share: Float[np.ndarray, "a _"]


class Codes(NamedTuple):
    """Distances as whole numbers of so many bits, `per` for a weight's factor of e; all beyond count alike: they weigh nothing."""

    bits: int
    per: float

    @classmethod
    def of(cls, dtype: np.dtype) -> "Codes":
        """As fine as distances of this type are worth: 36 nats are nothing beside float32's rounding, 700 beside float64's."""
        return cls(15, 2**15 / 36) if dtype == np.float32 else cls(48, 2**48 / 700)

    @property
    def dtype(self) -> type:
        return np.int16 if self.bits < 16 else np.int64


class Lists(NamedTuple):
    """Of each window at work a list for each lane: its near distances, lines of the list in use, places filled in each lane, lines
    already counted, the least so far, and the sum of all weights relative to it."""

    near: np.ndarray
    lines: np.ndarray
    filled: np.ndarray
    counted: np.ndarray
    least: np.ndarray
    total: np.ndarray


class Desk(NamedTuple):
    """Where one window's list is looked through: what is sought, its weights and codes, and a few numbers for each lane."""

    scale: float
    top: int
    bits: int
    per: float
    weights: np.ndarray
    codes: np.ndarray
    sums: np.ndarray
    last: np.ndarray
    bound: np.ndarray
    slots: np.ndarray
    number: np.ndarray


class Room(NamedTuple):
    """Memory for distances, for one thread: lists of the near ones, and those just made."""

    near: Float[np.ndarray, "w lines _"]
    fresh: Float[np.ndarray, "rows places _"]


def room(down: Windows, across: Windows, variants: int, top: int, memory: UInt8[np.ndarray, " bytes"], dtype: np.dtype) -> Room:
    """That for windows of this kind, in `memory` of ROOM bytes: touched for the first time memory is slow, so it is used again."""
    line = LANES * dtype.itemsize
    most = variants * (down.high - down.low) * (across.high - across.low)
    lines = -(-min(most, max(10 * top, LINES)) // TOGETHER) * TOGETHER
    rows = min(down.number, max(1, ROOM * 8 // 9 // (across.number * lines * line)))
    places = min(
        across.high - across.low, lines - top if lines < most else lines, max(1, ROOM // 9 // (rows * across.number * line))
    )
    near, fresh = (rows * across.number, lines, LANES), (rows, places, across.number * LANES)
    if (size := (math.prod(near) + math.prod(fresh)) * dtype.itemsize) > len(memory):
        memory = np.empty(size, np.uint8)
    numbers, first = memory[:size].view(dtype), math.prod(near)
    return Room(numbers[:first].reshape(near), numbers[first:].reshape(fresh))


def weighed(
    x: Float[np.ndarray, "c h w"],
    y: Float[np.ndarray, "v c h wl"],
    down: Windows,
    across: Windows,
    scale: float,
    top: int,
    limits: Float[np.ndarray, " a"] | None = None,
    reach: float = FAR,
    memory: UInt8[np.ndarray, " bytes"] | None = None,
) -> Weighed:
    """The weights of the patches of LANES pictures (v variants of each, such as mirror images) for every window of the map x.

    y has its lanes innermost (`side_by_side`). Patches further than `limits[a]` from window a, or further than
    `reach` beyond the nearest, may be left out. `memory` is ROOM bytes to work in.
    """
    near, fresh = room(down, across, len(y), top, np.empty(ROOM, np.uint8) if memory is None else memory, x.dtype)
    if limits is None:
        limits = np.full(down.number * across.number, FAR)
    wide, bounds, codes = np.repeat(x, LANES, axis=2), np.minimum(limits, FAR).astype(x.dtype), Codes.of(x.dtype)
    places = near.shape[1] * LANES
    weights, sums, slots = np.empty(places, x.dtype), np.empty(WIDE, x.dtype), np.empty((3, WIDE), codes.dtype)
    number = np.empty(LANES, np.int64)
    desk = Desk(x.dtype.type(scale), top, *codes, weights, np.empty(places, codes.dtype), sums, *slots, number)
    return Weighed(*_weighed(wide, y, tuple(down), tuple(across), bounds, x.dtype.type(min(reach, FAR)), near, fresh, desk))


def side_by_side(pictures: Float[np.ndarray, "b c h w"]) -> Float[np.ndarray, "c h wl"]:
    """Up to LANES pictures with their lanes innermost; empty lanes are infinitely far from anything."""
    b, c, h, w = pictures.shape
    out = np.full((c, h, w, LANES), 1e9, pictures.dtype)
    out[..., :b] = np.moveaxis(pictures, 0, -1)
    return out.reshape(c, h, w * LANES)


def _jit(function):
    """Compiled when it is first called, and kept beside the package; the function itself, not what a type checker wraps it in."""
    return njit(nogil=True, cache=True, fastmath=True, error_model="numpy")(inspect.unwrap(function))


@_jit
def _weighed(x, y, down, across, limits, reach, near, fresh, desk):
    """`weighed`, as many rows of windows at a time as there is room for.

    Distances at a few displacements along a row come into `fresh`, where windows lie side by side, and from there into `near`, a
    list for each window and lane. Displacements d and d − width, width the number of windows inside, concern different windows,
    and share a place.
    """
    ny, y_low, y_high, _, _, _ = down
    nx, x_low, x_high, _, _, _ = across
    rows, group, _ = fresh.shape
    lines, counted, filled = np.empty(rows * nx, np.int64), np.empty(rows * nx, np.int64), np.empty((rows * nx, LANES), np.int32)
    dense = np.empty(rows * nx, np.bool_)
    least, total, tops = np.empty(ny * nx, x.dtype), np.zeros(ny * nx, x.dtype), np.empty((ny * nx, LANES), x.dtype)
    last, share = np.empty((ny * nx, LANES), desk.codes.dtype), np.empty((ny * nx, LANES), x.dtype)
    least[:] = FAR
    width, sums = x_high - x_low, _room_for_sums(down, across, x.dtype)
    for start in range(0, ny, rows):
        stop = min(ny, start + rows)
        here = slice(start * nx, stop * nx)
        lines[:], counted[:], filled[:] = 0, 0, 0
        for w in range((stop - start) * nx):
            dense[w] = min(reach, limits[start * nx + w]) >= FAR
        lists = Lists(near, lines, filled, counted, least[here], total[here])
        for variant in range(len(y)):
            for dy in range(1 - (y_high - y_low), y_high - y_low):
                low, high = _met(down, dy)
                low, high = max(low, start), min(high, stop)
                for first in range(0, width if low < high else 0, group):
                    stop_at = min(width, first + group)
                    for d in range(first, stop_at):
                        _displaced(x, y[variant], down, across, dy, d, low, high, sums, fresh, d - first)
                        if d > 0:
                            _displaced(x, y[variant], down, across, dy, d - width, low, high, sums, fresh, d - first)
                    for r in range(low, high):
                        for j in range(nx):
                            inside = x_low <= j < x_high
                            if inside or first == 0:
                                w, places = (r - start) * nx + j, stop_at - first if inside else 1
                                if lines[w] + places > near.shape[1]:
                                    _fold(w, lists, desk)
                                a = start * nx + w
                                lines[w], dense[w], limits[a] = _kept(
                                    fresh, r - low, places, j, near[w], filled[w], lines[w], dense[w], limits[a], reach
                                )
        for w in range((stop - start) * nx):
            a = start * nx + w
            _finish(w, lists, desk, tops[a], last[a], share[a])
    return least, total, tops, last, share


@_jit
def _room_for_sums(down, across, dtype):
    """Squares along a row of the map, their sums, windows along every row, and windows running down them."""
    ny, _, _, _, y_elements, y_step = down
    nx, _, _, _, x_elements, x_step = across
    columns, width = nx + x_step * (x_elements - 1), nx * LANES
    squares, sums = np.empty(columns * LANES, dtype), np.zeros((columns + x_step) * LANES)
    rows = np.empty((ny + y_step * (y_elements - 1), width), dtype)
    return squares, sums, rows, np.empty((y_step, width))


@_jit
def _met(windows, d):
    """The windows that meet one d further on: all their own likes, those inside each other."""
    count, low, high, _, _, _ = windows
    return (0, count) if d == 0 else (max(low, low - d), min(high, high - d))


@_jit
def _displaced(x, y, down, across, dy, dx, low, high, room, out, place):
    """Distances of the windows in rows low … high, which all meet others dy further on, to those dy, dx further on."""
    squares, sums, rows, running = room
    _, h, wide = x.shape
    (_, _, _, y_first, y_elements, y_step), (_, _, _, x_first, x_elements, x_step) = down, across
    left, right = _met(across, dx)
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


@_jit
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


@_jit
def _summed(sums, squares, step):
    """sums[c + step] = squares of columns c, c − step, c − 2·step, …: the distance must be a constant for this to vectorise."""
    if step == 1:
        for i in range(len(squares)):
            sums[i + LANES] = sums[i] + squares[i]
    else:
        for i in range(len(squares)):
            sums[i + 2 * LANES] = sums[i] + squares[i]


@_jit
def _between(out, ahead, behind):
    for i in range(len(out)):
        out[i] = ahead[i] - behind[i]


@_jit
def _add(running, row):
    for i in range(len(row)):
        running[i] += row[i]


@_jit
def _move(running, row, oldest, whole):
    """A row more, which makes the windows whole; then their oldest row leaves."""
    for i in range(len(row)):
        whole[i] = running[i] + row[i]
        running[i] += row[i] - oldest[i]


@_jit
def _kept(fresh, row, places, j, near, filled, n, dense, bound, reach):
    """Put the fresh distances of a window into the lists of its lanes, but for those too large to count, or further than `reach`
    from the least: lane by lane, until most do count; from then on whole lines. How many lines there are then, whether most
    counted, and from where a distance is too large.
    """
    if dense:
        for place in range(places):
            _copy(near[n], fresh[row, place, j * LANES : (j + 1) * LANES])
            n += 1
        return n, dense, bound
    before = filled.sum()
    for place in range(places):
        line = fresh[row, place, j * LANES : (j + 1) * LANES]
        if _how_many_upto(line, bound) > 0:
            for lane in range(LANES):
                if line[lane] <= bound:
                    bound = min(bound, line[lane] + reach)
                    at = filled[lane]
                    if at == n:
                        near[n] = EMPTY
                        n += 1
                    near[at, lane] = line[lane]
                    filled[lane] = at + 1
    return n, filled.sum() - before > places * LANES // 2, bound


@_jit
def _copy(to, of):
    for i in range(len(to)):
        to[i] = of[i]


@_jit
def _how_many_upto(line, bound):
    found = 0
    for i in range(len(line)):
        found += line[i] <= bound
    return found


@_jit
def _smallest(distances, low):
    """By place in a WIDE stretch first: a minimum of floats vectorises element by element alone."""
    low[:] = FAR
    for i in range(0, len(distances), WIDE):
        d = distances[i : i + WIDE]
        for j in range(WIDE):
            low[j] = d[j] if d[j] < low[j] else low[j]
    found = low[0]
    for j in range(WIDE):
        found = min(found, low[j])
    return found


@_jit
def _counted(w, lists, desk):
    """Add what was not counted yet of a window's lists to its total; their weights, relative to the least so far, and codes.

    They are filled up to a whole number of TOGETHER lines, with distances that weigh nothing.
    """
    n = lists.lines[w] * LANES
    whole = -(-n // WIDE) * WIDE
    distances = lists.near[w].reshape(-1)[:whole]
    distances[n:] = EMPTY
    least = min(lists.least[w], _smallest(distances, desk.sums))
    lists.total[w] *= np.exp(desk.scale * (least - lists.least[w]))
    lists.least[w] = least
    weights, codes = desk.weights[:whole], desk.codes[:whole]
    _exponentials(weights, distances, least, desk.scale)
    _coded(codes, distances, least, desk)
    lists.total[w] += _sum(weights[lists.counted[w] * LANES : n])
    return weights, codes


@_jit
def _sum(weights):
    found = np.float64(0)
    for i in range(len(weights)):
        found += weights[i]
    return found


@_jit
def _coded(codes, distances, least, desk):
    """Distances as `Codes`, from 0 for the least."""
    per, most = distances.dtype.type(desk.scale * desk.per), distances.dtype.type(2**desk.bits - 2)
    for i in range(len(codes)):
        code = (distances[i] - least) * per
        codes[i] = code if code < most else most


@_jit
def _finish(w, lists, desk, out, last, share):
    """The sum of the `top` largest weights of every lane, and which these are."""
    out[:], last[:], share[:] = 0, 2**desk.bits - 2, 1
    if lists.lines[w] == 0:
        return
    weights, codes = _counted(w, lists, desk)
    _find(codes, desk.top if lists.lines[w] > desk.top else len(codes), desk)
    bound, number = desk.bound, desk.number
    for j in range(WIDE):
        bound[j] = desk.last[j] + 1
    _below(codes, bound, desk)
    for lane in range(LANES):  # those that share the last code count one by one where not all of them do
        last[lane] = desk.last[lane]
        if number[lane] > desk.top and last[lane] < 2**desk.bits - 2:
            bound[lane] = last[lane]
            equal = np.sort(_equal(weights, codes, last[lane], lane))
            few = desk.top - (number[lane] - len(equal))
            out[lane], share[lane] = equal[len(equal) - few :].sum(), few / len(equal)
    _repeat(bound)
    _sum_below(weights, codes, bound, desk.sums)
    out += desk.sums[:LANES]


@_jit
def _equal(weights, codes, code, lane):
    """The weights of a lane that have this code."""
    found = np.empty(len(codes) // LANES, weights.dtype)
    n = 0
    for i in range(lane, len(codes), LANES):
        if codes[i] == code:
            found[n] = weights[i]
            n += 1
    return found[:n]


@_jit
def _find(codes, top, desk):
    """Of every lane the `last` code, that fewer than `top` lie below, and as many or more do not exceed; a bit at a time.

    The largest of all where a lane may have fewer.
    """
    last, trial = desk.last, desk.bound
    last[:] = 2**desk.bits - 2 if top >= len(codes) else 0
    for bit in range(desk.bits - 1 if top < len(codes) else -1, -1, -1):
        for j in range(WIDE):
            trial[j] = last[j] | (1 << bit)
        _below(codes, trial, desk)
        for lane in range(LANES):
            if desk.number[lane] < top:
                last[lane] = trial[lane]
        _repeat(last)


@_jit
def _below(codes, bound, desk):
    """The `number` of codes of each lane that are less than its bound."""
    slots, number = desk.slots, desk.number
    slots[:] = 0
    for i in range(0, len(codes) // (4 * WIDE) * 4 * WIDE, 4 * WIDE):
        a, b = codes[i : i + WIDE], codes[i + WIDE : i + 2 * WIDE]
        c, d = codes[i + 2 * WIDE : i + 3 * WIDE], codes[i + 3 * WIDE : i + 4 * WIDE]
        for j in range(WIDE):
            slots[j] += (a[j] < bound[j]) + (b[j] < bound[j]) + (c[j] < bound[j]) + (d[j] < bound[j])
    for i in range(len(codes) // (4 * WIDE) * 4 * WIDE, len(codes), WIDE):
        a = codes[i : i + WIDE]
        for j in range(WIDE):
            slots[j] += a[j] < bound[j]
    for lane in range(LANES):
        number[lane] = slots[lane]
        for i in range(1, TOGETHER):
            number[lane] += slots[i * LANES + lane]


@_jit
def _sum_below(weights, codes, bound, sums):
    """In the first LANES slots, what the codes of each lane weigh that are less than its bound."""
    sums[:] = 0
    for i in range(0, len(codes) // (2 * WIDE) * 2 * WIDE, 2 * WIDE):
        a, b, u, v = codes[i : i + WIDE], codes[i + WIDE : i + 2 * WIDE], weights[i : i + WIDE], weights[i + WIDE : i + 2 * WIDE]
        for j in range(WIDE):
            sums[j] += (u[j] if a[j] < bound[j] else 0) + (v[j] if b[j] < bound[j] else 0)
    for i in range(len(codes) // (2 * WIDE) * 2 * WIDE, len(codes), WIDE):
        a, u = codes[i : i + WIDE], weights[i : i + WIDE]
        for j in range(WIDE):
            sums[j] += u[j] if a[j] < bound[j] else 0
    _first_of_each_lane(sums)


@_jit
def _first_of_each_lane(values):
    """Add up what TOGETHER lines have for a lane, in its first slot."""
    for i in range(1, TOGETHER):
        for lane in range(LANES):
            values[lane] += values[i * LANES + lane]


@_jit
def _repeat(values):
    for i in range(1, TOGETHER):
        for lane in range(LANES):
            values[i * LANES + lane] = values[lane]


@_jit
def _fold(w, lists, desk):
    """Shorten full lists to the `top` nearest, and as many with the last one's code: of the others only the total is wanted."""
    _, codes = _counted(w, lists, desk)
    _find(codes, desk.top, desk)
    _below(codes, desk.last, desk)
    mine, most = lists.near[w], 0
    for lane in range(LANES):
        last, ties, n = desk.last[lane], 2 * desk.top - desk.number[lane], 0
        for i in range(lists.lines[w]):
            code = codes[i * LANES + lane]
            if code < last or (code == last and ties > 0):
                ties -= code == last
                mine[n, lane] = mine[i, lane]
                n += 1
        mine[n : 2 * desk.top, lane] = EMPTY
        most = max(most, n)
    lists.lines[w], lists.counted[w], lists.filled[w, :] = most, most, most


def _exponentials(out, d, least, scale):
    """exp(−scale·(d − least)). In float32 by 2^n times a polynomial of 2^f, |f| ≤ ½, which vectorises and is right to 2e-7."""


@overload(_exponentials)
def _exponentials_of(out, d, least, scale):
    return inspect.unwrap(_fast if out.dtype == types.float32 else _library)


def _library(out, d, least, scale):
    for i in range(len(out)):
        out[i] = np.exp(scale * (least - d[i]))


def _fast(out, d, least, scale):
    per = scale * np.float32(1.4426950408889634)
    one = np.float32(1)
    for i in range(len(out)):
        z = max((least - d[i]) * per, np.float32(-126))
        n = np.floor(z + np.float32(0.5))
        f = (z - n) * np.float32(0.6931471805599453)
        p = f * np.float32(1 / 5040) + np.float32(1 / 720)
        p = p * f + np.float32(1 / 120)
        p = p * f + np.float32(1 / 24)
        p = p * f + np.float32(1 / 6)
        p = p * f + np.float32(0.5)
        out[i] = ((p * f + one) * f + one) * _two_to_the(n)


@intrinsic
def _two_to_the(_, n):
    """2^n for a whole number −127 < n < 128 in float32: n in the place of the exponent."""

    def code(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], ir.IntType(32))
        return builder.bitcast(
            builder.shl(builder.add(whole, ir.Constant(ir.IntType(32), 127)), ir.Constant(ir.IntType(32), 23)), ir.FloatType()
        )

    return types.float32(types.float32), code
