import numpy as np
import pytest

from headwater.data import open_examples
from headwater.data.artbench import STYLES, artbench
from headwater.errors import DataError, OptionError


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """The ImageFolder copy with twenty training and ten test images a style, 8×8 pixels."""
    from PIL import Image

    from headwater import seeds

    root = tmp_path_factory.mktemp("artbench")
    for part, count in (("train", 20), ("test", 10)):
        for style in STYLES:
            folder = root / "artbench-10-imagefolder-split" / part / style
            folder.mkdir(parents=True)
            pixels = seeds.generator(0, part, style).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
            for i, image in enumerate(pixels):
                Image.fromarray(image).save(folder / f"painter-{i % 3}_{i}.jpg")
            (folder / "._hidden.jpg").write_bytes(b"a file of macOS")
    return root


@pytest.fixture
def at_hand(copy, monkeypatch):
    monkeypatch.setenv("HEADWATER_DATA", str(copy))


@pytest.mark.parametrize(
    ("name", "split", "classes", "count"),
    [
        ("artbench2", "train", ("post_impressionism", "ukiyo_e"), 10),
        ("artbench2", "val", ("post_impressionism", "ukiyo_e"), 5),
        ("artbench2", "test", ("post_impressionism", "ukiyo_e"), 5),
        (
            "artbench5",
            "train",
            ("post_impressionism", "ukiyo_e", "romanticism", "renaissance", "baroque"),
            10,
        ),
        ("artbench5", "val", ("post_impressionism", "ukiyo_e", "romanticism", "renaissance", "baroque"), 2),
        ("artbench5", "test", ("post_impressionism", "ukiyo_e", "romanticism", "renaissance", "baroque"), 8),
        ("artbench10", "train", STYLES, 20),
        ("artbench10", "val", STYLES, 1),
        ("artbench10", "test", STYLES, 10),
    ],
)
def test_a_split_takes_its_share_of_each_style(at_hand, name, split, classes, count):
    examples = artbench(name, split)
    assert examples.labels is not None and np.bincount(examples.labels).tolist() == [count] * len(classes)
    assert examples.groups == tuple(classes[label] for label in examples.labels)
    assert all(id.partition("/")[0] == group for id, group in zip(examples.ids, examples.groups, strict=True))
    assert len(set(examples.ids)) == len(examples)


@pytest.mark.parametrize("name", ["artbench2", "artbench5"])
def test_val_and_test_make_up_the_test_images_of_their_styles(at_hand, name):
    val, test = artbench(name, "val"), artbench(name, "test")
    assert not set(val.ids) & set(test.ids)
    assert set(val.ids) | set(test.ids) == {
        id for id in artbench("artbench10", "test").ids if id.split("/")[0] in val.groups
    }


def test_prompts_name_the_style_in_words(at_hand):
    examples = artbench("artbench2")
    assert {"a post impressionism painting", "a ukiyo e painting"} == set(examples.prompts or ())
    assert examples.prompts == tuple(
        f"a {group.replace('_', ' ')} painting" for group in examples.groups or ()
    )


def test_an_id_is_the_path_of_the_picture(at_hand, copy):
    from PIL import Image

    examples = artbench("artbench5", "val")
    for image, id in zip(examples.images, examples.ids, strict=True):
        assert np.array_equal(
            image, np.asarray(Image.open(copy / "artbench-10-imagefolder-split" / "test" / id))
        )


def test_only_the_pictures_of_the_split_are_decoded(copy, tmp_path, monkeypatch):
    root = tmp_path / "artbench-10-imagefolder-split"
    root.mkdir()
    drawn = set(artbench_ids(copy, monkeypatch))
    for path in (copy / root.name).glob("test/*/p*.jpg"):
        target = root / path.relative_to(copy / root.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() if f"{path.parent.name}/{path.name}" in drawn else b"no picture")
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    assert set(artbench("artbench2", "val").ids) == drawn


def artbench_ids(copy, monkeypatch):
    monkeypatch.setenv("HEADWATER_DATA", str(copy))
    return artbench("artbench2", "val").ids


def test_resize_applies_as_pictures_are_read(at_hand):
    assert open_examples("artbench2:val", resize=4).images.shape == (10, 4, 4, 3)
    assert open_examples("artbench2:val").images.shape == (10, 8, 8, 3)


def test_the_python_batches_are_read_only_under_their_own_name(tmp_path, monkeypatch, batches):
    folder = tmp_path / "artbench-10-python" / "artbench-10-batches-py"
    saved = batches(folder, STYLES, 4, meta=("meta", "styles"))
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    examples = open_examples("artbench10-32:test")
    assert np.array_equal(examples.images, saved["test_batch"][0]) and np.array_equal(
        examples.labels, saved["test_batch"][1]
    )
    assert examples.ids[3] == "artbench10-test-00003"
    assert np.bincount(open_examples("artbench2-32").labels).tolist() == [10, 10]
    with pytest.raises(DataError, match="a folder that has artbench-10-imagefolder-split/train"):
        open_examples("artbench2")


@pytest.mark.parametrize("name", ["artbench2", "artbench5-32"])
def test_without_a_copy_the_folder_is_named(monkeypatch, name):
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"was not found\. HEADWATER_DATA is not set: name a folder that has artbench-10-"
    ):
        open_examples(name)


def test_a_style_without_images_is_named(tmp_path, monkeypatch):
    (tmp_path / "artbench-10-imagefolder-split" / "train").mkdir(parents=True)
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no images in .*art_nouveau; expected ArtBench-10's ten styles"):
        artbench("artbench2")


def test_an_unknown_split_is_reported(at_hand):
    with pytest.raises(OptionError, match=r"no split of artbench5 'valid'\. Did you mean 'val'\?"):
        artbench("artbench5", "valid")
