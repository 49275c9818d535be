import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from headwater.data import open_examples
from headwater.data.digits import digits
from headwater.disk.npz import write_examples
from headwater.errors import DataError, OptionError


@pytest.mark.parametrize(
    ("word", "split"), [("digits", "train"), ("digits:val", "val"), ("digits:rest", "rest")]
)
def test_a_built_in_name_opens_its_split(word, split):
    assert open_examples(word).fingerprint == digits(split).fingerprint


def test_an_npz_and_a_folder_of_the_same_pictures_agree(tmp_path, put):
    images = np.array([np.asarray(put(f"folder/{name}.png")) for name in "ab"])
    np.savez(tmp_path / "it.npz", images=images)
    assert open_examples(str(tmp_path / "it.npz")).hashes == open_examples(tmp_path / "folder").hashes


def test_a_built_in_name_wins_over_a_folder_of_the_same_name(tmp_path, put, monkeypatch):
    put("digits/a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_examples("digits")) == 1000
    assert len(open_examples("./digits")) == 1


def test_a_data_set_opens_by_name_and_split(hub_folder):
    where = hub_folder(["a", "b", "a"])
    assert len(open_examples(f"hf:{where}")) == 3
    assert len(open_examples(f"hf:{where}:train[:2]")) == 2


def test_resize_is_the_same_whatever_the_source(tmp_path, put, hub_folder):
    images = np.array([np.asarray(put("folder/a.png", size=(8, 6)))])
    np.savez(tmp_path / "it.npz", images=images)
    examples = open_examples(str(tmp_path / "folder"), resize=4)
    assert examples.images.shape == (1, 4, 4, 3)
    assert open_examples(str(tmp_path / "it.npz"), resize=4).hashes == examples.hashes


def test_resize_keeps_everything_but_the_pixels():
    large, small = open_examples("digits:val"), open_examples("digits:val", resize=4)
    assert small.shape == (1, 4, 4) and small.ids == large.ids
    assert np.array_equal(small.labels, large.labels)


def test_resize_to_the_size_there_is_changes_nothing():
    assert open_examples("digits:val", resize=8).fingerprint == digits("val").fingerprint


@pytest.mark.parametrize("ids", [("x", "x"), (7, 7)])
def test_two_images_of_one_id_are_refused(tmp_path, pictures, ids):
    np.savez(tmp_path / "it.npz", images=pictures(2).images, ids=np.array(ids))
    with pytest.raises(
        DataError, match=rf"it\.npz has 2 images with the id '{ids[0]}'; expected an id of its own"
    ):
        open_examples(tmp_path / "it.npz")


def test_a_warning_points_at_the_line_that_called_the_package(tmp_path, put):
    put("a.png")
    (tmp_path / "film.mov").write_text("x")
    (tmp_path / "mine.py").write_text("import headwater, sys\nheadwater.open_examples(sys.argv[1])\n")
    command = [sys.executable, str(tmp_path / "mine.py"), str(tmp_path)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (
        f"{tmp_path / 'mine.py'}:2: DataWarning: In {tmp_path}, passed over 2 files (.mov, .py)"
        in process.stderr
    )


def test_trajectories_are_not_resized(tmp_path, pictures):
    walked = replace(
        pictures(2), trajectory=np.zeros((2, 1, 1, 8, 8), np.float32), trajectory_timesteps=np.array([0])
    )
    write_examples(tmp_path / "it.npz", walked)
    with pytest.raises(DataError, match=r"holds sampler trajectories.* Leave resize out"):
        open_examples(str(tmp_path / "it.npz"), resize=4)


@pytest.mark.parametrize("resize", [0, -3, 10**5, 10**30])
def test_a_size_below_one_or_beyond_any_picture_is_refused(resize):
    with pytest.raises(OptionError, match=f"resize is {resize}; expected .* from 1 to 16,384"):
        open_examples("digits", resize=resize)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "digit",
            "no built-in source 'digit'. Did you mean 'digits'?.*Nor is there a file or folder of that name",
        ),
        ("cifar-10:train", "Did you mean 'cifar10'?"),
        ("", "no built-in source ''"),
        ("x" * 5000, "no built-in source"),
        ("./pictures", r"There is no file or folder \./pictures; expected"),
        ("train.npz", r"There is no file or folder train\.npz"),
        ("~nobody-here/x", "There is no file or folder ~nobody-here/x"),
        ("user/name", "A data set of the hub is written hf:user/name"),
        ("hf:", "names no data set; expected hf:NAME"),
    ],
)
def test_a_source_that_does_not_exist_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_examples(source)


def test_one_image_file_is_not_a_source(tmp_path, put):
    put("a.png")
    with pytest.raises(DataError, match=r"a\.png is not an \.npz file"):
        open_examples(str(tmp_path / "a.png"))


def test_opening_an_npz_loads_neither_torch_nor_the_libraries_of_other_sources(tmp_path, pictures):
    write_examples(tmp_path / "it.npz", pictures(2))
    code = "import sys, headwater.data; headwater.data.open_examples(sys.argv[1]); print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "it.npz")], check=True, capture_output=True, text=True
    )
    assert not {"torch", "PIL", "datasets", "sklearn"} & set(process.stdout.split())


@pytest.mark.parametrize(
    ("name", "shape"), [("crawl_tiles_32", (3984, 32, 32, 3)), ("emoji_google_64", (3786, 64, 64, 3))]
)
def test_real_archives_open(shared_data, name, shape):
    examples = open_examples(str(shared_data / f"{name}.npz"))
    assert examples.images.shape == shape and examples.labels is not None
