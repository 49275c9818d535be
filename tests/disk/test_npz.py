import io
import zipfile

import numpy as np
import pytest

from headwater.disk.npz import read_examples, write_examples
from headwater.errors import DataError

IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


@pytest.fixture
def npz(tmp_path):
    """Saves arrays under the test's folder and returns the path."""

    def save(**arrays):
        np.savez_compressed(tmp_path / "it.npz", **arrays)
        return tmp_path / "it.npz"

    return save


def test_examples_are_read_back_as_written(tmp_path, pictures):
    examples = pictures(
        3,
        classes=4,
        ids=("a", "b", "ü"),
        groups=("x", "y", "x"),
        prompts=("a cat", "", "a dog"),
        split=("val", "gen", "gen"),
        trajectory=np.zeros((3, 2, 1, 8, 8), np.float32),
        trajectory_timesteps=np.array([500, -1]),
    )
    write_examples(tmp_path / "it.npz", examples)
    back = read_examples(tmp_path / "it.npz")
    for name in vars(examples).keys() - {"hashes", "keys"}:
        assert np.array_equal(getattr(back, name), getattr(examples, name)), name
    assert back.fingerprint == examples.fingerprint


def test_an_absent_column_stays_absent(tmp_path, pictures):
    write_examples(tmp_path / "it.npz", pictures(2))
    examples = read_examples(tmp_path / "it.npz")
    assert examples.ids == ("0", "1")
    assert (examples.labels, examples.groups, examples.prompts, examples.split, examples.trajectory) == (
        None,
    ) * 5


def test_grey_images_may_lack_the_channel_axis(npz):
    assert np.array_equal(read_examples(npz(images=IMAGES[..., 0])).images, IMAGES[..., :1])


def test_images_in_any_memory_order_hash_equally(npz):
    assert (
        read_examples(npz(images=np.asfortranarray(IMAGES))).hashes
        == read_examples(npz(images=IMAGES)).hashes
    )


def test_other_keys_are_not_even_read(npz):
    assert len(read_examples(npz(images=IMAGES, latents=np.array([{}, None]), seed=3))) == 2


@pytest.mark.parametrize(
    ("ids", "expected"), [([7, 9], ("7", "9")), ([b"a", b"\xff"], ("a", "�")), ([0.5, 1], ("0.5", "1.0"))]
)
def test_ids_of_any_type_become_text(npz, ids, expected):
    assert read_examples(npz(images=IMAGES, ids=np.array(ids))).ids == expected


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1], np.uint8),
        np.array(["3", "1"]),
        np.array([b"3", b"1"]),
        np.array([3.0, 1.0]),
        np.array(["3.0", "1"]),
        np.array([3, 1], np.uint64),
    ],
)
def test_whole_numbers_are_labels_however_they_are_stored(npz, labels):
    examples = read_examples(npz(images=IMAGES, labels=labels))
    assert examples.labels is not None and examples.labels.dtype == np.int64
    assert examples.labels.tolist() == [3, 1] and examples.groups is None


def test_labels_that_are_words_become_groups_and_their_sorted_places(npz):
    examples = read_examples(npz(images=IMAGES, labels=np.array(["dog", "cat"])))
    assert examples.labels is not None and examples.labels.tolist() == [1, 0]
    assert examples.groups == ("dog", "cat")


def test_groups_in_the_file_win_over_labels_that_are_words(npz):
    assert read_examples(
        npz(images=IMAGES, labels=np.array(["dog", "cat"]), groups=np.array(["p", "q"]))
    ).groups == ("p", "q")


def test_a_half_precision_trajectory_is_widened(npz):
    states = np.full((2, 3, 3, 4, 4), 0.1, np.float16)
    examples = read_examples(
        npz(images=IMAGES, trajectory=states, trajectory_timesteps=np.array([9, 5, -1], np.int16))
    )
    assert examples.trajectory is not None and examples.trajectory.dtype == np.float32
    assert examples.trajectory_timesteps is not None and examples.trajectory_timesteps.tolist() == [9, 5, -1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "no array `images`; expected uint8"),
        (
            {"images": IMAGES / 255},
            r"float64 \[2, 4, 4, 3\] between 0 and 0\.37\d+; expected uint8. Scale them to 0…255",
        ),
        ({"images": IMAGES.astype(np.int64)}, "int64 .* between 0 and 95; expected uint8"),
        (
            {"images": IMAGES[0, 0]},
            r"uint8 \[4, 3\]; expected at least one, as \[n, height, width, channels\]",
        ),
        ({"images": IMAGES[:0]}, r"uint8 \[0, 4, 4, 3\]; expected at least one"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"8 channels; expected 1 to 4. Put the channels last"),
        ({"images": np.zeros((2, 8, 8, 9), np.uint8)}, "9 channels; expected 1 to 4"),
        ({"images": np.array([None])}, "`images` in .* holds Python objects; loading never unpickles"),
        ({"images": IMAGES, "labels": np.array([{}, None])}, "`labels` in .* holds Python objects"),
        ({"images": IMAGES, "labels": [1, 2, 3]}, r"`labels` in .* has shape \[3\]; expected \[2\]"),
        ({"images": IMAGES, "labels": [[1], [2]]}, r"`labels` in .* has shape \[2, 1\]; expected \[2\]"),
        (
            {"images": IMAGES, "labels": [0.5, 1.0]},
            r"`labels` in .* holds 0\.5; expected whole numbers from 0 to .* or words",
        ),
        (
            {"images": IMAGES, "labels": [1j, 2j]},
            "`labels` in .* are complex128; expected whole numbers or words",
        ),
        (
            {"images": IMAGES, "labels": np.array([0, 2**64 - 1], np.uint64)},
            "holds 18446744073709551615; expected",
        ),
        ({"images": IMAGES, "labels": ["0", str(2**63)]}, "holds 9223372036854775808; expected"),
        ({"images": IMAGES, "labels": [0, -2]}, "holds -2; expected whole numbers from 0 to .* no label"),
        ({"images": IMAGES, "ids": "one"}, r"`ids` in .* has shape \[\]; expected \[2\]"),
        (
            {"images": IMAGES, "trajectory": np.zeros((2, 1, 3, 4, 4))},
            "no `trajectory_timesteps`; expected .* both, or neither",
        ),
        ({"images": IMAGES, "trajectory_timesteps": [1]}, "no `trajectory`; expected"),
        (
            {"images": IMAGES, "trajectory": np.zeros((2, 3, 4, 4)), "trajectory_timesteps": [1]},
            r"expected floats \[2, s, c, h, w\]",
        ),
        (
            {"images": IMAGES, "trajectory": np.zeros((2, 2, 3, 4, 4)), "trajectory_timesteps": [1]},
            r"int64 \[1\]; expected whole numbers \[2\]",
        ),
    ],
)
def test_an_unusable_file_is_reported_in_one_paragraph(npz, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        read_examples(npz(**arrays))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"Could not open .*no\.npz: No such file"):
        read_examples(tmp_path / "no.npz")


def test_a_file_of_another_kind_is_reported(tmp_path):
    np.save(tmp_path / "it.npy", IMAGES)
    with pytest.raises(DataError, match=r"it\.npy is not an \.npz file.*numpy\.savez"):
        read_examples(tmp_path / "it.npy")


def test_a_zip_of_other_things_is_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "it.npz", "w") as file:
        file.writestr("images", "not an array")
    with pytest.raises(DataError, match=r"`images` in .* is not an array"):
        read_examples(tmp_path / "it.npz")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_reported(npz, share):
    path = npz(images=IMAGES, ids=["a", "b"])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"is not an \.npz file, or is cut short"):
        read_examples(path)


def test_a_changed_byte_is_reported_or_harmless(npz):
    path = npz(images=IMAGES)
    content, original = path.read_bytes(), read_examples(path).images
    errors = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            assert np.array_equal(read_examples(path).images, original)
        except DataError:
            errors += 1
    assert errors > len(content) / 2


def test_an_absurd_header_is_reported(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**4, 10**4, 3)}
    )
    with zipfile.ZipFile(tmp_path / "it.npz", "w") as file:
        file.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match=r"Could not read .*: images is damaged"):
        read_examples(tmp_path / "it.npz")
