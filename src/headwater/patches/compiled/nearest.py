"""The nearest patches of every picture for a patch of another, and what all of them weigh: lists of
distances, searched.

Distances become whole numbers, so that the nearest are separated a bit at a time, in all lanes at once.
"""

import inspect
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from headwater.patches.compiled.displaced import jit
from headwater.patches.compiled.vectors import (
    Lanes,
    fill_lanes,
    less_bits,
    load_lanes,
    lowest_bit,
    smaller,
    store_lanes,
    where_less,
)

# lines that are summed at once: few enough for counts of 16 bits, and for sums in float32 to be precise
RUN = 128
FAR = 1e30  # beyond every distance
EMPTY = 2e30  # marks a place without a distance


class Codes(NamedTuple):
    """Distances as whole numbers of `bits` bits, `per` for a weight's factor of e; all beyond share one code:
    they weigh 0."""

    bits: int
    per: float

    @classmethod
    def of(cls, dtype: np.dtype) -> "Codes":
        """As fine as distances of this type are worth: 36 nats are nothing beside float32's rounding, 700
        beside float64's."""
        return cls(15, 2**15 / 36) if dtype == np.float32 else cls(48, 2**48 / 700)

    @property
    def dtype(self) -> type:
        return np.int16 if self.bits < 16 else np.int64


class Lists(NamedTuple):
    """For each window at work a list in each lane: its near distances, lines in use, places filled in each
    lane, lines already counted, the distance beyond which a lane needs no other, the least so far, and the
    sum of all weights relative to it."""

    near: np.ndarray
    lines: np.ndarray
    filled: np.ndarray
    counted: np.ndarray
    enough: np.ndarray
    least: np.ndarray
    total: np.ndarray


class Desk(NamedTuple):
    """The memory in which one window's list is searched: the settings, its weights and codes, and a few
    numbers for each lane."""

    lanes: Lanes
    scale: float
    top: int
    bits: int
    per: float
    line: np.ndarray
    further: np.ndarray
    weights: np.ndarray
    codes: np.ndarray
    last: np.ndarray
    bound: np.ndarray
    counts: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, dtype: np.dtype, scale: float, top: int, lanes: int, lines: int) -> "Desk":
        """A desk for a list of `lines` lines."""
        bits, per = codes = Codes.of(dtype)
        last, bound, counts = np.empty((3, lanes), codes.dtype)
        further, weights = np.empty((2, lines * lanes), dtype)
        numbers = np.empty(lines * lanes, codes.dtype)
        line, number = np.empty(lanes, dtype), np.empty(lanes, np.int64)
        return cls(
            Lanes(lanes),
            dtype.type(scale),
            top,
            bits,
            per,
            line,
            further,
            weights,
            numbers,
            last,
            bound,
            counts,
            number,
        )


@jit
def keep_near(lanes, fresh, row, places, j, near, filled, w, n, dense, bound, reach):
    """Put the fresh distances of a window into the lists of its lanes, unless too large to count, or further
    than `reach` from the least: lane by lane until most do count; from then on whole lines. Returns the
    number of lines, whether most distances counted, and the bound above which a distance is too large."""
    _, group, nx, number = fresh.shape
    at, apart, to = (row * group * nx + j) * number, nx * number, (w * near.shape[1] + n) * number
    if dense:
        for place in range(places):
            store_lanes(near, to + place * number, load_lanes(lanes, fresh, at + place * apart))
        return n + places, dense, bound
    count = 0
    for place in range(places):
        bits = less_bits(load_lanes(lanes, fresh, at + place * apart), fill_lanes(lanes, bound))
        while bits:
            lane, bits = lowest_bit(bits), bits & (bits - 1)
            distance = fresh[row, place, j, lane]
            if distance < bound:
                bound = min(bound, distance + reach)
                line = filled[w, lane]
                if line == n:
                    near[w, n] = EMPTY
                    n += 1
                near[w, line, lane] = distance
                filled[w, lane] = line + 1
                count += 1
    return n, count > places * number // 2, bound


@jit
def streamed(fresh, row, places, j, w, lists, desk):
    """`keep_near` after a window's lists were full: lines in which no lane is nearer than `enough` count only
    in the total."""
    _, group, nx, number = fresh.shape
    at, apart, near = (row * group * nx + j) * number, nx * number, w * lists.near.shape[1] * number
    lanes, n, further = desk.lanes, lists.lines[w] * number, 0
    enough = load_lanes(lanes, lists.enough, w * number)
    for place in range(places):
        line = load_lanes(lanes, fresh, at + place * apart)
        if less_bits(line, enough):
            store_lanes(lists.near, near + n, line)
            n += number
        else:
            store_lanes(desk.further, further, line)
            further += number
    exponentials(desk.weights[:further], desk.further[:further], lists.least[w], desk.scale)
    lists.total[w] += _sum(desk.weights[:further])
    lists.lines[w], lists.filled[w, :] = n // number, n // number


@jit
def finish(w, lists, desk, out, last, share):
    """The sum of the `top` largest weights of every lane, and which these are."""
    out[:], last[:], share[:] = 0, 2**desk.bits - 2, 1
    if lists.lines[w] == 0:
        return
    weights, codes = _counted(w, lists, desk)
    _find(codes, desk.top if lists.lines[w] > desk.top else len(codes), desk)
    bound, number = desk.bound, desk.number
    bound[:] = desk.last + 1
    _below(codes, bound, desk)
    for lane in range(len(number)):  # equal codes count one by one where not all of them count
        last[lane] = desk.last[lane]
        if number[lane] > desk.top and last[lane] < 2**desk.bits - 2:
            bound[lane] = last[lane]
            equal = np.sort(_equal(weights[lane :: len(number)], codes[lane :: len(number)], last[lane]))
            few = desk.top - (number[lane] - len(equal))
            out[lane], share[lane] = equal[len(equal) - few :].sum(), few / len(equal)
    _sum_below(weights, codes, bound, desk)
    for lane in range(len(number)):
        out[lane] += desk.line[lane]


@jit
def fold(w, lists, desk):
    """Shorten full lists to the `top` nearest, and as many with the last one's code: the others count only in
    the total."""
    _, codes = _counted(w, lists, desk)
    _find(codes, desk.top, desk)
    _below(codes, desk.last, desk)
    nearest, most = lists.near[w], 0
    lanes = len(desk.number)
    for lane in range(lanes):
        last, ties, n = desk.last[lane], 2 * desk.top - desk.number[lane], 0
        for i in range(lists.lines[w]):
            code = codes[i * lanes + lane]
            if code < last or (code == last and ties > 0):
                ties -= code == last
                nearest[n, lane] = nearest[i, lane]
                n += 1
        nearest[n : 2 * desk.top, lane] = EMPTY
        most = max(most, n)
        lists.enough[w, lane] = lists.least[w] + (last + 2) / (desk.scale * desk.per)
    lists.lines[w], lists.counted[w], lists.filled[w, :] = most, most, most


@jit
def _counted(w, lists, desk):
    """Add the lines that were not counted yet to a window's total. Returns weights, relative to the least,
    and codes."""
    lanes = len(desk.number)
    n = lists.lines[w] * lanes
    distances = lists.near[w].reshape(-1)[:n]
    least = min(lists.least[w], _smallest(distances, desk))
    lists.total[w] *= np.exp(desk.scale * (least - lists.least[w]))
    lists.least[w] = least
    weights, codes = desk.weights[:n], desk.codes[:n]
    exponentials(weights, distances, least, desk.scale)
    coded(codes, distances, least, desk)
    lists.total[w] += _sum(weights[lists.counted[w] * lanes :])
    return weights, codes


@jit
def _smallest(distances, desk):
    lanes, n = desk.lanes, len(desk.number)
    low = load_lanes(lanes, distances, 0)
    for at in range(n, len(distances), n):
        low = smaller(low, load_lanes(lanes, distances, at))
    store_lanes(desk.line, 0, low)
    return desk.line.min()


@jit
def _sum(weights):
    total = np.float64(0)
    for i in range(len(weights)):
        total += weights[i]
    return total


@jit
def coded(codes, distances, least, desk):
    """Distances as `Codes`, from 0 for the least."""
    per, most = distances.dtype.type(desk.scale * desk.per), distances.dtype.type(2**desk.bits - 2)
    for i in range(len(codes)):
        code = (distances[i] - least) * per
        codes[i] = code if code < most else most


@jit
def _find(codes, top, desk):
    """The `last` code of every lane: fewer than `top` lie below it, and `top` or more do not exceed it; a bit
    at a time.

    The largest code where a lane may have fewer.
    """
    last, trial = desk.last, desk.bound
    last[:] = 2**desk.bits - 2 if top >= len(codes) else 0
    for bit in range(desk.bits - 1 if top < len(codes) else -1, -1, -1):
        for lane in range(len(last)):
            trial[lane] = last[lane] | (1 << bit)
        _below(codes, trial, desk)
        for lane in range(len(last)):
            last[lane] = trial[lane] if desk.number[lane] < top else last[lane]


@jit
def _below(codes, bound, desk):
    """The `number` of codes of each lane that are less than its bound."""
    lanes, n = desk.lanes, len(desk.number)
    bounds, one = load_lanes(lanes, bound, 0), fill_lanes(lanes, codes.dtype.type(1))
    desk.number[:] = 0
    for start in range(0, len(codes), RUN * n):
        count = one - one
        for at in range(start, min(start + RUN * n, len(codes)), n):
            count = count + where_less(load_lanes(lanes, codes, at), bounds, one)
        store_lanes(desk.counts, 0, count)
        for lane in range(n):
            desk.number[lane] += desk.counts[lane]


@jit
def _equal(weights, codes, code):
    """The weights that have this code."""
    equal = np.empty(len(codes), weights.dtype)
    n = 0
    for i in range(len(codes)):
        if codes[i] == code:
            equal[n] = weights[i]
            n += 1
    return equal[:n]


@jit
def _sum_below(weights, codes, bound, desk):
    """In `line`, the sum of the weights in each lane whose codes are less than its bound."""
    lanes, n = desk.lanes, len(desk.number)
    bounds = load_lanes(lanes, bound, 0)
    total = fill_lanes(lanes, weights.dtype.type(0))
    for start in range(0, len(codes), RUN * n):
        run = fill_lanes(lanes, weights.dtype.type(0))
        for at in range(start, min(start + RUN * n, len(codes)), n):
            run = run + where_less(load_lanes(lanes, codes, at), bounds, load_lanes(lanes, weights, at))
        total = total + run
    store_lanes(desk.line, 0, total)


def exponentials(out, d, least, scale):
    """exp(−scale·(d − least)). In float32 by 2^n times a polynomial of 2^f, |f| ≤ ½, which vectorises and is
    right to 2e-7."""


@overload(exponentials)
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
        out[i] = ((p * f + one) * f + one) * _two_to_the(n)  # pyright: ignore[reportCallIssue]: numba passes the context


@intrinsic
def _two_to_the(_, n):
    """2^n for a whole number −127 < n < 128 in float32: n in the place of the exponent."""

    def code(context, builder, signature, arguments):
        integer = builder.fptosi(arguments[0], ir.IntType(32))
        return builder.bitcast(
            builder.shl(
                builder.add(integer, ir.Constant(ir.IntType(32), 127)), ir.Constant(ir.IntType(32), 23)
            ),
            ir.FloatType(),
        )

    return types.float32(types.float32), code
