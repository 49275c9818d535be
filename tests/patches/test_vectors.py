"""Vectors inside compiled functions, beside numpy."""

import numpy as np
import pytest

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

RANDOM = np.random.Generator(np.random.Philox(12))


@jit
def _worked(lanes, a, b, codes, out, at):
    one, two = load_lanes(lanes, a, at), load_lanes(lanes, b, at)
    store_lanes(out, 0, (one + two) * one - smaller(one, two))
    bounds = fill_lanes(lanes, codes.dtype.type(3))
    store_lanes(out, 16, where_less(load_lanes(lanes, codes, at), bounds, one))


@jit
def _places(lanes, a, bound, places):
    bits, n = less_bits(load_lanes(lanes, a, 0), fill_lanes(lanes, bound)), 0
    while bits:
        places[n], n = lowest_bit(bits), n + 1
        bits &= bits - 1
    return n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [8, 16])
def test_arithmetic_is_numpys_from_any_element(dtype, number):
    a, b = RANDOM.normal(size=(2, 4, 9)).astype(dtype)
    codes, out = RANDOM.integers(0, 6, (4, 9)).astype(np.int16), np.zeros(32, dtype)
    _worked(Lanes(number), a, b, codes, out, 5)
    one, two, code = (values.ravel()[5 : 5 + number] for values in (a, b, codes))
    np.testing.assert_allclose(out[:number], (one + two) * one - np.minimum(one, two), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[16 : 16 + number], np.where(code < 3, one, 0))


@pytest.mark.parametrize("number", [8, 16, 32])
def test_numbers_below_a_bound_are_found_in_order(number):
    a, places = RANDOM.normal(size=number).astype(np.float32), np.zeros(32, np.int64)
    for bound in (np.float32(-9), a[number // 2], np.float32(0), np.float32(9)):
        n = _places(Lanes(number), a, bound, places)
        np.testing.assert_array_equal(places[:n], np.flatnonzero(a < bound))
