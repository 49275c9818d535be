"""Vectors inside compiled functions, beside numpy."""

import numpy as np
import pytest

from headwater.patches.compiled.displaced import jit
from headwater.patches.compiled.vectors import Lanes, less, load, lowest, smaller, spread, store, where_less

RANDOM = np.random.Generator(np.random.Philox(12))


@jit
def _worked(lanes, a, b, codes, out, at):
    one, two = load(lanes, a, at), load(lanes, b, at)
    store(out, 0, (one + two) * one - smaller(one, two))
    bounds = spread(lanes, codes.dtype.type(3))
    store(out, 16, where_less(load(lanes, codes, at), bounds, one))


@jit
def _places(lanes, a, bound, found):
    bits, n = less(load(lanes, a, 0), spread(lanes, bound)), 0
    while bits:
        found[n], n = lowest(bits), n + 1
        bits &= bits - 1
    return n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [8, 16])
def test_arithmetic_is_numpys_from_any_element(dtype, number):
    a, b = RANDOM.normal(size=(2, 4, 9)).astype(dtype)
    codes, out = RANDOM.integers(0, 6, (4, 9)).astype(np.int16), np.zeros(32, dtype)
    _worked(Lanes(number), a, b, codes, out, 5)
    one, two, code = (each.ravel()[5 : 5 + number] for each in (a, b, codes))
    np.testing.assert_allclose(out[:number], (one + two) * one - np.minimum(one, two), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[16 : 16 + number], np.where(code < 3, one, 0))


@pytest.mark.parametrize("number", [8, 16, 32])
def test_numbers_below_a_bound_are_found_in_order(number):
    a, found = RANDOM.normal(size=number).astype(np.float32), np.zeros(32, np.int64)
    for bound in (np.float32(-9), a[number // 2], np.float32(0), np.float32(9)):
        n = _places(Lanes(number), a, bound, found)
        np.testing.assert_array_equal(found[:n], np.flatnonzero(a < bound))
