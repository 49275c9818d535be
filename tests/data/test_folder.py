import os

import numpy as np
import pytest
from PIL import Image

from headwater.data.folder import folder
from headwater.errors import DataError, DataWarning


def test_images_come_in_the_order_of_their_relative_paths_which_are_their_ids(tmp_path, put):
    saved = {name: np.asarray(put(name)) for name in ("b.png", "sub/a.png", "a.PNG", "sub/deep/c.bmp")}
    examples = folder(tmp_path)
    assert examples.ids == ("a.PNG", "b.png", "sub/a.png", "sub/deep/c.bmp")
    assert np.array_equal(examples.images, [saved[name] for name in examples.ids])
    assert examples.labels is None and examples.groups is None


def test_outermost_subfolders_are_classes_when_every_image_is_in_one(tmp_path, put):
    for name in ("dog/1.png", "cat/old/2.png", "cat/1.png"):
        put(name)
    examples = folder(tmp_path)
    assert examples.ids == ("cat/1.png", "cat/old/2.png", "dog/1.png")
    assert examples.groups == ("cat", "cat", "dog")
    assert examples.labels is not None and examples.labels.tolist() == [0, 0, 1]


def test_hidden_files_and_other_kinds_of_file_are_skipped(tmp_path, put):
    for name in ("a.png", ".b.png", ".thumbs/c.png"):
        put(name)
    (tmp_path / "notes.txt").write_text("a note")
    with pytest.warns(DataWarning, match=r"passed over 1 file \(\.txt\)"):
        assert folder(tmp_path).ids == ("a.png",)


def test_files_that_are_passed_over_are_counted_with_their_suffixes(tmp_path, put):
    put("a.png")
    for name in ("film.MOV", "b.heic", "c.heic", "sub/LICENSE", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    notes = []
    assert folder(tmp_path, warn=notes.append).prompts == ("x",)
    assert notes == [f"In {tmp_path}, passed over 4 files (.heic, .mov, LICENSE)."]


def test_a_drawing_that_an_interpreter_would_run_is_passed_over(tmp_path, put):
    put("a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.eps")
    with pytest.warns(DataWarning, match=r"passed over 1 file \(\.eps\)"):
        assert len(folder(tmp_path)) == 1


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.avif", "a.jp2", "a.ppm", "a.dib", "a.apng"])
def test_every_kind_of_picture_that_this_pillow_reads_is_one(tmp_path, put, name):
    try:
        image = put(name, size=(16, 16))
    except (OSError, ValueError, KeyError):
        pytest.skip("this Pillow writes no such file")
    found = folder(tmp_path).images[0].astype(int)
    assert found.shape == (16, 16, 3)
    if not name.endswith(("jfif", "jpe", "avif", "jp2")):
        assert np.array_equal(found, np.asarray(image))


def test_names_that_are_not_text_and_print_alike_are_refused(tmp_path, put):
    for byte in (b"\xff", b"\xfe"):
        put("a.png")
        try:
            os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/" + byte + b".png")  # noqa: PTH104
        except OSError:
            pytest.skip("names on this disk are text")
    with pytest.raises(DataError, match="not text and differ only in what cannot be printed"):
        folder(tmp_path)


def test_links_are_followed_and_a_link_to_its_own_parent_ends(tmp_path, put):
    put("elsewhere/a.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root)
    assert folder(root).ids == ("cat/a.png",)


def test_two_folders_with_links_to_each_other_end(tmp_path, put):
    put("x/a.png")
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "on").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "back").symlink_to(tmp_path / "x")
    assert folder(tmp_path).ids == ("x/a.png", "y/back/a.png")


def test_grey_images_keep_one_channel(tmp_path, put):
    grey = put("a.png", "L")
    put("b.png", "1")
    put("c.png", "LA")
    examples = folder(tmp_path)
    assert examples.images.shape == (3, 4, 4, 1)
    assert np.array_equal(examples.images[0, ..., 0], np.asarray(grey))


@pytest.mark.parametrize("colour", ["a.png", "z.png"])
def test_one_colour_image_makes_all_of_them_rgb(tmp_path, put, colour):
    grey, rgb = put("k.png", "L"), put(colour)
    examples = folder(tmp_path)
    assert examples.images.shape == (2, 4, 4, 3)
    assert np.array_equal(examples.images[examples.ids.index(colour)], np.asarray(rgb))
    assert np.array_equal(
        examples.images[examples.ids.index("k.png")], np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    )


def test_images_of_different_sizes_are_named_with_their_sizes(tmp_path, put):
    put("a.png", size=(8, 6))
    put("b.png", size=(5, 4))
    with pytest.raises(DataError, match=r"a\.png is 8×6, b\.png is 5×4 .* resize=4\."):
        folder(tmp_path)


def test_resize_brings_different_sizes_to_one_square(tmp_path, put):
    put("a.png", size=(8, 6))
    put("b.png", size=(5, 9), mode="L")
    assert folder(tmp_path, resize=4).images.shape == (2, 4, 4, 3)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"Could not list the folder .*nowhere: No such file"):
        folder(tmp_path / "nowhere")


def test_an_empty_folder_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"is empty; expected images \(\.png"):
        folder(tmp_path)


def test_a_folder_of_other_files_is_reported(tmp_path):
    (tmp_path / "train.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 1 files .*\(e\.g\. train\.npz\)"):
        folder(tmp_path)


def test_a_file_that_is_not_a_image_is_named(tmp_path, put):
    put("a.png")
    (tmp_path / "b.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"Could not read .*b\.jpg as a picture"):
        folder(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tif"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])
def test_a_truncated_image_is_named(tmp_path, put, name, share):
    put(name, size=(64, 64))
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"Could not read .*{name} as a picture"):
        folder(tmp_path)


def test_a_postscript_file_called_png_is_never_interpreted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png as a picture"):
        folder(tmp_path)
