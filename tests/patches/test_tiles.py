"""Parts of a picture, and the foremost columns of a table."""

import numpy as np
import pytest

from headwater.patches.tiles import Foremost, edges, mean_tiled, tiled

RANDOM = np.random.Generator(np.random.Philox(23))


def test_parts_are_whole_pixels_and_cover_all():
    assert edges(8, 8).tolist() == list(range(9)) and edges(5, 8).tolist() == list(range(6))
    values = RANDOM.normal(size=(2, 33, 20))
    assert tiled(values, 16).shape == (2, 16, 16)
    np.testing.assert_allclose(tiled(values, 16).sum((1, 2)), values.sum((1, 2)))
    np.testing.assert_allclose(mean_tiled(np.full((33, 20), 3.0), 8), 3)
    assert mean_tiled(values, 8)[1, 0, 7] == pytest.approx(values[1, :4, 17:].mean())


@pytest.mark.parametrize("width", [1, 7, 40])
def test_the_foremost_are_those_of_the_whole_table(width):
    table = RANDOM.random((5, 40))
    foremost = Foremost.none(5, 6)
    for low in range(0, 40, width):
        columns = np.arange(low, min(low + width, 40))
        foremost = foremost.beside(columns, table[:, columns])
    np.testing.assert_array_equal(np.sort(foremost.value, 1), np.sort(table, 1)[:, -6:])
    np.testing.assert_array_equal(np.take_along_axis(table, foremost.column, 1), foremost.value)
