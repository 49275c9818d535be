"""Examples: hashes by content, rows by place, exact pixels; errors that name what was seen."""

from dataclasses import replace

import numpy as np
import pytest

from headwater.errors import DataError, DataWarning, NonFiniteError, unknown
from headwater.examples import (
    Examples,
    alike,
    are_numbers,
    labelled_like,
    labels_of,
    to_uint8,
    with_channels,
)
from headwater.words import Names


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


@pytest.mark.parametrize(
    "values", [[7, 0, -1], ["7", "0", "-1"], [7.0, "0.0", None], ["7.", "+0", ""], [7, False, float("nan")]]
)
def test_whole_numbers_are_labels_in_any_spelling(values):
    assert are_numbers(values) and labels_of(values, "it").tolist() == [7, 0, -1]


@pytest.mark.parametrize(
    "value", [0.5, "7.5", -2, 2**63, "1" * 50, "1e400", float("inf"), "seven", "1_0", [1]]
)
def test_other_values_are_no_labels(value):
    with pytest.raises(DataError, match=r"^`label` in x holds .*; expected whole numbers from 0 to"):
        labels_of([0, value], "`label` in x")


@pytest.mark.parametrize("values", [[None, ""], ["cat", "7"], ["1_0"], [[1]], [], ["nan"]])
def test_words_and_blanks_are_no_numbers(values):
    assert not are_numbers(values)


def grouped(pictures, groups, labels):
    return replace(pictures(len(groups)), groups=tuple(groups), labels=np.array(labels))


def test_queries_get_the_labels_of_the_training_images_of_their_group(pictures):
    train = grouped(pictures, ("cat", "dog"), (0, 1))
    assert labelled_like(grouped(pictures, ("dog",), (0,)), train).labels.tolist() == [1]
    assert labelled_like(grouped(pictures, ("owl",), (0,)), train).labels.tolist() == [-1]


def test_a_group_is_found_in_another_unicode_form(pictures):
    train = grouped(pictures, ("Cafe\u0301", "Bar"), (1, 0))
    assert labelled_like(grouped(pictures, ("Caf\u00e9",), (0,)), train).labels.tolist() == [1]


@pytest.mark.parametrize("side", ["train", "queries"])
def test_labels_that_groups_do_not_decide_are_left_as_they_are(pictures, side):
    mixed, plain = grouped(pictures, ("x", "x"), (7, 3)), grouped(pictures, ("x", "y"), (0, 1))
    train, queries = (mixed, plain) if side == "train" else (plain, mixed)
    assert labelled_like(queries, train, pytest.fail) is queries


def test_labels_of_the_queries_own_that_change_are_said(pictures):
    train = grouped(pictures, ("cat", "dog"), (4, 2))
    with pytest.warns(DataWarning, match=r"those of 'dog' 2, and not 9"):
        queries = labelled_like(grouped(pictures, ("dog", "cat"), (9, 4)), train)
    assert queries.labels.tolist() == [2, 4]


def test_grey_becomes_rgb_and_back_and_colour_stays(pictures):
    grey, colour = pictures(2), pictures(2, channels=3)
    rgb = with_channels(grey, 3)
    assert rgb.shape == (3, 8, 8) and (rgb.images == grey.images).all()
    assert with_channels(rgb, 1).hashes == grey.hashes
    assert with_channels(colour, 1) is colour and with_channels(grey, 1) is grey
    assert [side.shape[0] for side in alike(grey, colour)] == [3, 3]
    assert [side.shape[0] for side in alike(grey, rgb)] == [1, 1]
    assert [side.shape[0] for side in alike(colour, grey)] == [3, 3]
    pair = pictures(2, channels=2)
    assert with_channels(pair, 3) is pair


def test_names_are_found_as_written_or_else_in_another_unicode_form():
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    assert Names([apart, "Tea"]).find(composed) == apart and Names([composed]).find(apart) == composed
    assert Names(["Tea"]).find(composed) is None
    both = Names([composed, apart])
    assert (both.find(composed), both.find(apart)) == (composed, apart)
    ohm = Names(["\u00c5", "A\u030a"])  # a third form of Å, the Ångström sign
    with pytest.raises(DataError, match="stands for 2 names that differ only in the Unicode form"):
        ohm.find("\u212b")
