"""Weights of patches against every patch cut out, one after the other, in float64."""

from itertools import product

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from headwater.patches.compiled import displaced
from headwater.patches.compiled.displaced import LANES, WIDTHS, cells, side_by_side, windows
from headwater.patches.compiled.nearest import FAR
from headwater.patches.compiled.weights import LINES, ROOM, PatchSoftmax, room, weighed

RANDOM = np.random.Generator(np.random.Philox(11))

SHAPES = [  # height, width, patch, coarse, channels, variants, top
    (8, 8, 3, False, 1, 1, 100),
    (8, 8, 3, False, 3, 1, 5),
    (7, 9, 5, False, 2, 1, 4),
    (8, 8, 4, True, 1, 1, 3),
    (8, 9, 6, True, 3, 2, 7),
    (6, 6, 6, True, 1, 1, 2),
    (5, 5, 5, False, 1, 1, 1),
    (6, 6, 1, False, 1, 2, 10),
    (4, 4, 2, True, 1, 1, 10),
]


def random_maps(height, width, patch, coarse, channels, variants, dtype, pictures=3, widths=WIDTHS):
    x = RANDOM.normal(size=(channels, height, width))
    ys = RANDOM.uniform(-1, 1, (variants, pictures, channels, height, width))
    map_of = cells if coarse else np.asarray
    y = np.stack([side_by_side(map_of(y).astype(dtype), widths) for y in ys])
    down, across = windows(height, patch, coarse=coarse), windows(width, patch, coarse=coarse)
    return x, ys, (map_of(x).astype(dtype), y, down, across)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-11), (np.float32, 2e-5)])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_those_of_patches_cut_out(shape, dtype, close, cut_out):
    height, width, patch, coarse, channels, variants, top = shape
    x, ys, maps = random_maps(height, width, patch, coarse, channels, variants, dtype)
    result = weighed(PatchSoftmax(*maps, 1.5, top))
    _, _, down, across = maps
    for w, a in enumerate(product(range(down.number), range(across.number))):
        distances = [
            sorted(d for y in ys for d in cut_out(x, y[i], patch, coarse, a)) for i in range(ys.shape[1])
        ]
        least = min(d[0] for d in distances)
        assert result.least[w] == pytest.approx(least, rel=1e-5, abs=1e-6)
        relative = np.exp(-1.5 * (result.least[w] - least))
        total = sum(np.exp(-1.5 * (np.array(d) - least)).sum() for d in distances)
        assert result.total[w] * relative == pytest.approx(total, rel=close)
        tops = [np.exp(-1.5 * (np.array(d[:top]) - least)).sum() for d in distances]
        np.testing.assert_allclose(result.top[w, :3] * relative, tops, rtol=close, atol=close * 1e-6)
        assert (result.top[w, 3:] < 1e-30).all()  # empty lanes


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-10), (np.float32, 1e-4)])
@pytest.mark.parametrize("reach", [FAR, 60.0])
@pytest.mark.parametrize(("top", "scale"), [(2, 0.7), (5, 0.7), (5, 30.0)])
def test_lists_that_are_full_and_rows_that_do_not_fit_change_nothing(top, scale, reach, dtype, close):
    _, _, maps = random_maps(12, 12, 3, False, 1, 2, dtype, pictures=20)
    full = weighed(PatchSoftmax(*maps, scale, top), None, reach)
    windows_, patches_ = 144, 2 * 100  # of the query; inside either variant

    def held(memory: np.ndarray, lines: int) -> tuple[int, ...]:
        return room(maps[2], maps[3], 2, 32, top, memory, np.dtype(dtype), lines).near.shape

    wide, narrow = np.empty(ROOM, np.uint8), np.empty(200_000, np.uint8)
    assert held(wide, LINES)[0] == windows_ and held(wide, LINES)[1] >= patches_
    for memory in (wide, narrow):
        assert held(memory, 16)[1] < patches_ and (held(memory, 16)[0] < windows_) == (memory is narrow)
        again = weighed(PatchSoftmax(*maps, scale, top), None, reach, memory, 16)
        for name in ("least", "total", "top", "share"):
            np.testing.assert_allclose(getattr(again, name), getattr(full, name), rtol=close, atol=1e-6)


def test_equal_distances_share_the_last_places():
    # every patch is as far as every other
    x, y = (
        np.zeros((1, 6, 6)),
        side_by_side(np.ones((1, 1, 6, 6)))[None],
    )
    side = windows(6, 3)
    result = weighed(PatchSoftmax(x, y, side, side, 0.3, 7))
    inside = result.top[:, 0].reshape(6, 6)[1:5, 1:5]
    np.testing.assert_allclose(inside, 7)  # of 16, each weighing 1 beside the nearest
    assert result.top[0, 0] == 1  # a corner meets one


def test_what_lies_beyond_the_limits_alone_is_left_out():
    _, _, maps = random_maps(10, 10, 3, False, 1, 1, np.float64, pictures=20)
    full = weighed(PatchSoftmax(*maps, 4.0, 8))
    far = (30 - (np.log(full.total) - 4.0 * full.least)) / 4.0  # weights below e⁻³⁰ of the whole
    limited = weighed(PatchSoftmax(*maps, 4.0, 8), far)
    np.testing.assert_allclose(limited.top, full.top, rtol=1e-6, atol=1e-11)
    np.testing.assert_allclose(limited.total, full.total, rtol=1e-9)
    none = weighed(PatchSoftmax(*maps, 4.0, 8), np.full(100, -1.0))
    assert not none.total.any() and not none.top.any() and (none.least == np.float64(FAR)).all()


def test_cells_are_sums_of_four_and_keep_the_variance_of_noise():
    x = np.arange(16.0).reshape(4, 4)
    sums = cells(x)
    assert sums.shape == (5, 5)
    assert sums[1, 1] == (0 + 1 + 4 + 5) / 2 and sums[0, 0] == 0 and sums[4, 4] == 15 / 2
    assert cells(RANDOM.normal(size=(200, 200)))[1:-1, 1:-1].std() == pytest.approx(1, abs=0.02)


def test_windows_inside_meet_each_other():
    assert windows(32, 7)[:4] == (32, 3, 29, -3)
    assert windows(32, 14, coarse=True) == (31, 6, 25, -5, 7, 2)
    assert windows(8, 8, coarse=True)[:3] == (7, 3, 4)  # the whole side once


def test_a_distance_of_an_empty_place_counts_nowhere():
    """Lists of lanes that are not filled alike: of the second picture the patches with the bright pixel are
    beyond the limit."""
    pictures = np.zeros((2, 1, 6, 6), np.float32)
    pictures[1, 0, 2, 2] = 10
    x, side = np.zeros((1, 6, 6), np.float32), windows(6, 3)
    result = weighed(PatchSoftmax(x, side_by_side(pictures)[None], side, side, 1.0, 100), np.ones(36))
    inside = np.add.outer(6 * np.arange(1, 5), np.arange(1, 5)).ravel()
    # 9 of the 16 patches inside have the pixel
    np.testing.assert_allclose(result.top[inside, :2], [[16, 7]] * 16)
    np.testing.assert_allclose(result.total[inside], 23)
    assert not result.least[inside].any() and (result.top[:, 2:] < 1e-30).all()


@pytest.mark.parametrize("pictures", [3, 9, 20, 32])
def test_as_few_lanes_as_hold_the_pictures_and_no_other_answer(pictures):
    state = RANDOM.bit_generator.state
    _, _, few = random_maps(9, 9, 3, False, 3, 2, np.float64, pictures=pictures)
    RANDOM.bit_generator.state = state
    _, _, full = random_maps(9, 9, 3, False, 3, 2, np.float64, pictures=pictures, widths=(LANES,))
    lanes = few[1].shape[-1] // 9
    assert lanes == min(width for width in WIDTHS if width >= pictures) and full[1].shape[-1] == LANES * 9
    narrow, wide = (weighed(PatchSoftmax(*maps, 1.5, 5)) for maps in (few, full))
    np.testing.assert_allclose(narrow.top, wide.top[:, :lanes], rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(narrow.total, wide.total, rtol=1e-12)


def test_what_was_compiled_of_other_files_is_not_taken():
    """numba's own mark of a kernel is the text of its one file; ours has that of all files beside it."""
    kernel = displaced.met
    kernel((6, 1, 5, -1, 3, 1), 1)
    sig, target = kernel.signatures[0], kernel.targetctx.codegen()
    key = kernel._cache._index_key(sig, target)
    assert displaced.KernelCache.files in key
    cache = displaced.KernelCache(kernel.py_func)
    cache.files = "another day's"
    assert cache._index_key(sig, target) != key


def test_lists_have_room_for_what_is_left_of_full_ones():
    """Up to twice `top` distances stay in a list that was full; as many as come next must fit beside them."""
    side = windows(3000, 3)
    near, fresh = room(side, side, 1, 32, 300, np.empty(ROOM, np.uint8), np.dtype(np.float32))
    assert fresh.shape[1] <= near.shape[1] - 600


@pytest.mark.parametrize("patch", [3, 7])
def test_a_small_distance_among_large_ones_is_as_precise(patch):
    """A patch that is there itself, a thousandth off, in float32: what lies beside it is ten million times as
    far."""
    x = RANDOM.normal(0, 10, (3, 16, 16))
    y = RANDOM.normal(0, 10, (3, 16, 16))
    y[:, 5 : 5 + patch, 6 : 6 + patch] = x[:, 4 : 4 + patch, 4 : 4 + patch] + 2.0**-10
    x, y = x.astype(np.float32), y.astype(np.float32)
    true = (
        (x[:, 4 : 4 + patch, 4 : 4 + patch] - y[:, 5 : 5 + patch, 6 : 6 + patch]).astype(np.float64) ** 2
    ).sum()
    side = windows(16, patch)
    result = weighed(PatchSoftmax(x, side_by_side(y[None])[None], side, side, 1.0, 5))
    middle = 4 + side.low
    assert result.least[middle * side.number + middle] == pytest.approx(true, rel=2e-6)


def test_pictures_in_lanes_are_four_dimensional():
    with pytest.raises(TypeCheckError):
        side_by_side(np.zeros((2, 3)))
