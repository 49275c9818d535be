"""Examples: hashes by content, rows by place, exact pixels; errors that name what was seen."""

import numpy as np
import pytest

from headwater.errors import DataError, NonFiniteError, unknown
from headwater.examples import Examples, to_uint8


def test_equal_pixels_have_equal_hashes_and_others_do_not(pictures):
    images = pictures(3).images.copy()
    images[2] = images[0]
    a, b, c = Examples(images).hashes
    assert a == c != b


def test_a_hash_depends_on_pixels_alone(pictures):
    plain = pictures(2)
    named = Examples(plain.images, ids=("x", "y"), labels=np.array([1, 2]), groups=("g", "h"))
    assert named.hashes == plain.hashes
    assert plain.take([1]).hashes == plain.hashes[1:]
    assert Examples(np.asfortranarray(plain.images)).hashes == plain.hashes


def test_the_same_bytes_in_another_shape_have_another_hash():
    line = np.arange(16, dtype=np.uint8)
    shapes = [(1, 4, 4, 1), (1, 2, 8, 1), (1, 4, 2, 2), (1, 2, 2, 4)]
    assert len({Examples(line.reshape(shape)).hashes for shape in shapes}) == len(shapes)


def test_keys_differ_by_label(pictures):
    image = pictures(1).images.repeat(3, axis=0)
    a, b, c = Examples(image, labels=np.array([0, 1, 0])).keys
    assert a == c != b
    assert Examples(image).keys == Examples(image).hashes


def test_the_fingerprint_depends_on_order_and_labels(pictures):
    examples = pictures(3)
    prints = {
        examples.fingerprint,
        examples.take([1, 0, 2]).fingerprint,
        examples.take([0, 1]).fingerprint,
        Examples(examples.images, labels=np.arange(3)).fingerprint,
    }
    assert len(prints) == 4
    assert examples.take([0, 1, 2]).fingerprint == examples.fingerprint


def test_all_256_levels_survive_model_units_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    pixels = Examples(levels).pixels()
    assert pixels.dtype == np.float32
    assert np.array_equal(to_uint8(pixels), levels)


def test_pixels_are_channels_first_and_fill_minus_1_to_1():
    images = np.zeros((1, 2, 3, 3), np.uint8)
    images[0, 1, 2, 0] = 255
    pixels = Examples(images).pixels()
    assert pixels.shape == (1, *Examples(images).shape) == (1, 3, 2, 3)
    assert pixels.min() == -1 and pixels.max() == 1 == pixels[0, 0, 1, 2]


def test_to_uint8_clips_and_rounds_to_the_nearest_level():
    pixels = np.array([-7, -1, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1, 7], np.float32).reshape(1, 1, 1, 6)
    assert to_uint8(pixels).ravel().tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(
    "rows", [[2, 0], np.array([2, 0]), np.array([True, False, True, False]), [-1]], ids=str
)
def test_take_picks_the_same_rows_of_every_column(pictures, rows):
    plain = pictures(4)
    columns = {
        "ids": tuple("abcd"),
        "groups": tuple("ghij"),
        "prompts": tuple("pqrs"),
        "split": ("val", "val", "gen", "gen"),
        "labels": np.arange(4),
        "trajectory": np.arange(4 * 2 * 64, dtype=np.float32).reshape(4, 2, 1, 8, 8),
    }
    times = np.array([0, -1])
    taken = Examples(plain.images, **columns, trajectory_timesteps=times).take(rows)
    index = np.arange(4)[rows]
    assert np.array_equal(taken.images, plain.images[index])
    for name, column in columns.items():
        assert np.array_equal(np.asarray(getattr(taken, name)), np.asarray(column)[index]), name
    assert taken.trajectory_timesteps is times


def test_take_does_not_keep_old_hashes(pictures):
    examples = pictures(3)
    assert examples.hashes  # cached
    assert examples.take([2]).hashes == (examples.hashes[2],)


def test_ids_are_places_unless_given(pictures):
    assert pictures(3).ids == ("0", "1", "2")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"ids": ("a",)}, "1 ids for 2 images"),
        ({"groups": ()}, "0 groups for 2 images"),
        ({"split": ("val",) * 5}, "5 split for 2 images"),
    ],
)
def test_a_column_of_the_wrong_length_is_refused(pictures, columns, said):
    with pytest.raises(DataError, match=said):
        Examples(pictures(2).images, **columns)


def test_no_images_are_an_error():
    with pytest.raises(DataError, match="no images"):
        Examples(np.zeros((0, 8, 8, 1), np.uint8))


def test_an_unknown_name_is_answered_with_the_nearest_one():
    error = str(unknown("measurement", "sqare", ["simple", "square"]))
    assert "sqare" in error and "Did you mean 'square'?" in error and "Known: simple, square." in error
    assert "Did you mean" not in str(unknown("measurement", "zzz", ["simple", "square"]))


def test_a_picture_with_nan_is_named():
    pixels = np.zeros((3, 1, 2, 2), np.float32)
    pixels[1, 0, 0, 1] = np.nan
    with pytest.raises(NonFiniteError, match="Picture 1 holds NaN"):
        to_uint8(pixels)
    pixels[1, 0, 0, 1] = np.inf
    assert to_uint8(pixels)[1, 0, 1, 0] == 255
