import io
import sys

import numpy as np
import pytest
from PIL import Image

from headwater.data.hub import from_hub
from headwater.errors import DataError, DataWarning


def test_images_labels_and_class_names_come_from_the_columns_of_those_types(hub_folder, pictures):
    examples = from_hub(str(hub_folder(["dog", "cat", "dog"])))
    assert np.array_equal(examples.images, pictures(3, channels=3).images)
    assert examples.labels is not None and examples.labels.tolist() == [1, 0, 1]
    assert examples.groups == ("dog", "cat", "dog") and examples.prompts is None


def test_a_text_column_called_caption_becomes_the_prompts(hub_folder):
    with pytest.warns(DataWarning, match=r"1 of the 2 captions of hf:.* are missing: left empty"):
        examples = from_hub(str(hub_folder(["a", "a"], caption=["a red car", None], note=["x", "y"])))
    assert examples.prompts == ("a red car", "")


def test_a_column_of_numbers_called_text_is_not_a_prompt(hub_folder):
    assert from_hub(str(hub_folder(["a", "a"], text=[1, 2]))).prompts is None


def test_an_image_without_label_gets_minus_one(hub_folder):
    examples = from_hub(str(hub_folder(["dog", None])))
    assert examples.labels is not None and examples.labels.tolist() == [0, -1]
    assert examples.groups == ("dog", "")


@pytest.mark.parametrize(
    ("cells", "labels", "groups"),
    [
        ([7, 3, None], [7, 3, -1], None),
        ([7.0, 3.0, 0.0], [7, 3, 0], None),
        (["7", "3", "12"], [7, 3, 12], None),
        (["dog", "cat", None], [1, 0, -1], ("dog", "cat", "")),
    ],
)
def test_a_column_label_that_is_no_class_is_read_too(hub_folder, tmp_path, cells, labels, groups):
    datasets = pytest.importorskip("datasets")
    hub_folder(["a"])
    table = datasets.Dataset.from_dict({"image": [png((4, 4))] * 3, "label": cells})
    (tmp_path / "rows").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "rows" / "train.parquet")
    examples = from_hub(str(tmp_path / "rows"))
    assert examples.labels.tolist() == labels and examples.groups == groups


def test_a_label_beyond_int64_is_refused(hub_folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    hub_folder(["a"])
    label = np.array([2**64 - 1], np.uint64)
    table = datasets.Dataset.from_dict({"image": [png((4, 4))], "label": label})
    (tmp_path / "rows").mkdir()
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "rows" / "train.parquet")
    with pytest.raises(DataError, match=r"of hf:.* holds 18446744073709551615; expected whole numbers"):
        from_hub(str(tmp_path / "rows"))


def test_a_slice_of_a_split_is_a_split(hub_folder):
    assert from_hub(str(hub_folder(["a"] * 5)), "train[1:4]").images.shape == (3, 8, 8, 3)


def test_resize_applies(hub_folder):
    assert from_hub(str(hub_folder(["a"])), resize=5).images.shape == (1, 5, 5, 3)


def test_a_folder_of_image_files_opens(hub_folder, tmp_path, put):
    hub_folder(["a"])  # for its offline settings
    for name in ("files/train/cat/1.png", "files/train/dog/1.png"):
        put(name)
    assert from_hub(str(tmp_path / "files")).groups == ("cat", "dog")


def png(size):
    file = io.BytesIO()
    Image.new("L", size).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([None], "row 0 has no image; expected one in column image"),
        ([{"bytes": b"no picture", "path": None}], "the image of row 0 cannot be read"),
        ([png((4, 4)), png((4, 5))], r"Images differ in size: row 0 is 4×4, row 1 is 4×5"),
    ],
)
def test_unusable_images_are_named_by_row(hub_folder, tmp_path, cells, message):
    datasets = pytest.importorskip("datasets")
    hub_folder(["a"])
    table = datasets.Dataset.from_dict({"image": cells}, datasets.Features({"image": datasets.Image()}))
    (tmp_path / "rows").mkdir()
    table.to_parquet(tmp_path / "rows" / "train.parquet")
    with pytest.raises(DataError, match=f"hf:.*rows: {message}"):
        from_hub(str(tmp_path / "rows"))


def test_several_image_columns_are_listed(hub_folder):
    datasets = pytest.importorskip("datasets")
    where = hub_folder(["a"], features={"mask": datasets.Image()}, mask=[png((4, 4))])
    with pytest.raises(
        DataError,
        match=r"2 columns of type Image; expected one. It has: img \(Image\), label \(ClassLabel\), mask",
    ):
        from_hub(str(where))


def test_a_table_without_images_is_reported(hub_folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    hub_folder(["a"])
    (tmp_path / "numbers").mkdir()
    datasets.Dataset.from_dict({"x": [1]}).to_parquet(tmp_path / "numbers" / "train.parquet")
    with pytest.raises(DataError, match=r"no columns of type Image; expected one. It has: x \(Value\)"):
        from_hub(str(tmp_path / "numbers"))


def test_an_unknown_split_is_reported_with_those_there_are(hub_folder):
    with pytest.raises(DataError, match=r"split tset: Unknown split \"tset\"\. Should be one of \['train'\]"):
        from_hub(str(hub_folder(["a"])), "tset")


def test_a_data_set_that_cannot_be_reached_is_reported_in_one_line(hub_folder):
    hub_folder(["a"])
    with pytest.raises(DataError, match="Could not open hf:nobody/nothing, split train: ") as caught:
        from_hub("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_without_the_library_the_way_to_install_it_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'headwater\[hub\]'"):
        from_hub("cifar10")


def test_of_several_columns_of_captions_one_is_read_and_lists_of_captions_are_skipped(hub_folder):
    assert from_hub(str(hub_folder(["a"], caption=[["one", "two"]], prompt=["p"], text=["t"]))).prompts == (
        "p",
    )
