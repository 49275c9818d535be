import pickle  # noqa: TID251 - to write damaged batches
import sys

import numpy as np
import pytest

from headwater.data import cifar
from headwater.data.cifar import cifar2, cifar10
from headwater.errors import DataError, OptionError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def real(shared_data, monkeypatch):
    monkeypatch.setenv("HEADWATER_DATA", str(shared_data))


@pytest.fixture
def few(shared_data, monkeypatch, tmp_path):
    """Every hundredth picture of the real file, in its format: whole parts are decoded in no time."""
    with np.load(shared_data / "cifar10_jpeg.npz") as file:
        have = dict(file)
    rows, offset = np.arange(0, 60_000, 100), have["offset"]
    pictures = [have["data"][offset[row] : offset[row + 1]] for row in rows]
    have |= {"data": np.concatenate(pictures), "offset": np.cumsum([0, *map(len, pictures)])}
    np.savez(
        tmp_path / "cifar10_jpeg.npz", **have | {name: have[name][rows] for name in ("label", "is_test")}
    )
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))


def test_the_test_part_is_the_pictures_marked_so_in_the_order_of_the_file(few):
    examples = cifar10("test")
    assert examples.images.shape == (100, 32, 32, 3)
    assert examples.labels is not None and np.bincount(examples.labels).tolist() == [10] * 10
    assert examples.groups is not None and examples.groups[::10] == CLASSES
    assert examples.ids[42] == "cifar10-test-00042"


def test_the_train_part_is_the_rest(few):
    examples = cifar10()
    assert len(examples) == 500 and examples.ids[-1] == "cifar10-train-00499"
    assert not set(examples.hashes) & set(cifar10("test").hashes)


@pytest.mark.parametrize(("split", "count"), [("train", 25), ("val", 5), ("test", 5)])
def test_cifar2_has_as_many_automobiles_as_horses(few, split, count):
    examples = cifar2(split)
    assert examples.labels is not None and np.bincount(examples.labels).tolist() == [count, count]
    assert examples.groups == tuple(("automobile", "horse")[label] for label in examples.labels)
    assert 0 < examples.labels[:count].mean() < 1  # shuffled: any stretch holds both
    assert len(set(examples.ids)) == 2 * count


def test_cifar10_val_is_a_tenth_of_each_class_of_the_test_part(few):
    examples, test = cifar10("val"), cifar10("test")
    assert sorted(examples.groups or ()) == sorted(CLASSES)
    assert set(examples.ids) < set(test.ids) and set(examples.hashes) < set(test.hashes)


def test_cifar2_val_and_test_share_no_image(few):
    assert len(set(cifar2("val").ids) | set(cifar2("test").ids)) == 20


def test_the_draw_from_the_whole_file_is_frozen(real):
    examples = cifar2("val")
    assert len(examples) == 1000
    assert examples.ids[:3] == ("cifar10-test-01665", "cifar10-test-07204", "cifar10-test-01270")


def test_an_id_names_the_same_picture_in_cifar2_and_cifar10(few):
    two, ten = cifar2("val"), cifar10("test")
    assert two.hashes == ten.take([ten.ids.index(name) for name in two.ids]).hashes


@pytest.fixture
def python_batches(tmp_path, monkeypatch, batches, python2):
    """CIFAR-10's own format, with four images of count class in a file."""
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    return batches(tmp_path / "cifar-10-batches-py", CLASSES, 4, dumps=python2)


def test_the_python_batches_are_read_in_their_order(python_batches):
    examples = cifar10("train")
    assert np.array_equal(
        examples.images, np.concatenate([python_batches[f"data_batch_{i}"][0] for i in range(1, 6)])
    )
    assert examples.ids[0] == "cifar10-train-00000" and len(examples) == 200
    examples = cifar10("test")
    images, labels = python_batches["test_batch"]
    assert np.array_equal(examples.images, images) and np.array_equal(examples.labels, labels)
    assert examples.groups == tuple(CLASSES[label] for label in labels)


def test_cifar2_comes_from_the_python_batches_too(python_batches):
    examples, test = cifar2("val"), cifar10("test")
    assert examples.labels is not None and np.bincount(examples.labels).tolist() == [2, 2]
    assert examples.hashes == test.take([test.ids.index(name) for name in examples.ids]).hashes


def test_the_jpeg_file_comes_before_the_python_batches(few, tmp_path, batches):
    before = cifar10("test").fingerprint
    batches(tmp_path / "cifar-10-batches-py", CLASSES, 1)
    assert cifar10("test").fingerprint == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("batches.meta", {"label_names": "cat"}, r"`label_names` in .*batches\.meta is not a list of words"),
        ("batches.meta", {}, "is not a list of words; expected the names of the classes"),
        (
            "batches.meta",
            {"label_names": [f"c{i}" for i in range(10)]},
            r"is of class 'c\d'; expected one of airplane",
        ),
        ("test_batch", {"labels": []}, "`data` in .*test_batch is NoneType; expected uint8"),
        (
            "test_batch",
            {"data": np.zeros((1, 9), np.uint8)},
            r"is uint8 \[1, 9\]; expected uint8 \[n, 3072\]",
        ),
        ("test_batch", {"data": np.zeros((1, 3072)), "labels": [0]}, r"is float64 \[1, 3072\]"),
        (
            "test_batch",
            {"data": np.zeros((1, 3072), np.uint8), "labels": [10]},
            "are not 1 numbers from 0 to 9",
        ),
        (
            "test_batch",
            {"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]},
            "are not 1 numbers from 0 to 9",
        ),
    ],
)
def test_a_batch_of_another_kind_is_reported(python_batches, tmp_path, name, content, message):
    (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        cifar10("test")


def test_a_missing_batch_is_named(python_batches, tmp_path):
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"Could not open .*data_batch_3: No such file"):
        cifar10("train")


@pytest.mark.parametrize("open_part", [cifar10, cifar2])
def test_an_unknown_split_is_reported(open_part):
    with pytest.raises(OptionError, match=r"no split of cifar.* 'tset'\. Did you mean 'test'\?"):
        open_part("tset")


@pytest.mark.parametrize("folder", [None, "empty"])
def test_without_file_and_hub_both_ways_are_reported(monkeypatch, tmp_path, folder):
    monkeypatch.setitem(sys.modules, "datasets", None)
    if folder:
        monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    else:
        monkeypatch.delenv("HEADWATER_DATA", raising=False)
    with pytest.raises(
        DataError,
        match=r"a folder that has cifar10_jpeg\.npz or cifar-10-batches-py.*pip install 'headwater\[hub\]'",
    ):
        cifar10()


def test_a_file_without_its_arrays_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    np.savez(tmp_path / "cifar10_jpeg.npz", data=[0], offset=[0, 1])
    with pytest.raises(DataError, match="has no label, is_test, classes; expected data, offset"):
        cifar2()


def test_a_damaged_picture_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    columns = {
        "data": np.zeros(9, np.uint8),
        "offset": [0, 9],
        "label": [0],
        "is_test": [False],
        "classes": ["airplane"],
    }
    np.savez(tmp_path / "cifar10_jpeg.npz", **columns)
    with pytest.raises(DataError, match=r"Could not read image 0 of .*cifar10_jpeg\.npz as a picture"):
        cifar10()


def test_the_hub_serves_where_there_is_not_a_file(monkeypatch, hub_folder):
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    monkeypatch.setattr(cifar, "HUB_NAME", str(hub_folder(["automobile", "bird", "horse"] * 4)))
    assert cifar10("train").groups == ("automobile", "bird", "horse") * 4
    examples = cifar2("train")
    assert examples.labels is not None and sorted(examples.labels) == [0, 0, 1, 1]
    assert all(
        cifar10("train").ids.index(name) % 3 == 2 * label
        for name, label in zip(examples.ids, examples.labels, strict=True)
    )
