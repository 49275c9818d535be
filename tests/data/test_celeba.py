import os
import sys

import numpy as np
import pytest
from PIL import Image

from headwater import seeds
from headwater.data import celeba as module
from headwater.data import open_examples
from headwater.data.celeba import celeba
from headwater.errors import DataError, OptionError

FROZEN = {"val": ("180736.jpg", "171966.jpg", "167134.jpg"), "train": "136016.jpg"}


def face(i):
    """One of eight random pictures with fine patterns."""
    blocks = seeds.generator(0, "face", i).integers(0, 256, (109, 89, 3)).astype(np.uint8)
    return Image.fromarray(blocks.repeat(2, 0).repeat(2, 1))


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """All 1,000 files of `val`, named as in CelebA, with eight pictures among them: links, which are quick to
    write."""
    root = tmp_path_factory.mktemp("celeba") / "celeba"
    images = root / "img_align_celeba"
    images.mkdir(parents=True)
    for i in range(8):
        face(i).save(root / f"{i}.jpg")
    drawn = seeds.generator(0, "celeba", "val").permutation(np.arange(182_637 - 162_770))[:1000] + 162_771
    for number in drawn.tolist():
        os.link(root / f"{number % 8}.jpg", images / f"{number:06d}.jpg")
    return root


@pytest.fixture
def at_hand(copy, monkeypatch):
    monkeypatch.setenv("HEADWATER_DATA", str(copy.parent))


@pytest.fixture
def labelled(copy, at_hand):
    lines = (f"{number:06d}.jpg {'1' if number % 3 else '-1':>2} -1" for number in range(1, 202_600))
    path = copy / "list_attr_celeba.txt"
    path.write_text("\n".join(["202599", "Male Young", *lines]) + "\n")
    yield path
    path.unlink()


def test_val_is_a_thousand_of_the_validation_part(at_hand):
    examples = celeba("val")
    assert examples.images.shape == (1000, 64, 64, 3) and len(set(examples.ids)) == 1000
    assert all("162771.jpg" <= name <= "182637.jpg" for name in examples.ids)
    assert examples.labels is None and examples.groups is None
    assert examples.ids[:3] == FROZEN["val"]


def test_a_face_is_its_central_140_pixels_scaled_to_64(at_hand, copy):
    examples = celeba("val")
    for row in range(8):
        image = Image.open(copy / f"{int(examples.ids[row][:6]) % 8}.jpg")
        assert np.abs(examples.images[row] - averaged(np.asarray(image, float)[39:179, 19:159])).max() <= 1


def averaged(crop):
    """Antialiased bilinear resizing, as the weighted mean it is: a tent of half-width 140/64 around each new
    pixel's centre."""
    scale = 140 / 64
    centres, places = (np.arange(64) + 0.5) * scale, np.arange(140) + 0.5
    tent = np.maximum(0, 1 - np.abs(centres[:, None] - places) / scale)
    tent /= tent.sum(1, keepdims=True)
    return np.einsum("ai,ijc,bj->abc", tent, crop, tent, optimize=True)


def test_female_is_0_and_male_is_1(labelled):
    examples = celeba("val")
    male = [int(name[:6]) % 3 != 0 for name in examples.ids]
    assert examples.labels is not None and examples.labels.tolist() == male
    assert examples.groups == tuple("male" if yes else "female" for yes in male)


def test_train_is_drawn_from_the_training_part_and_a_missing_file_is_an_error(at_hand):
    with pytest.raises(
        DataError, match=rf"lacks 5000 of the 5000 images of celeba:train \(e\.g\. {FROZEN['train']}\)"
    ):
        celeba("train")


def test_all_lists_every_image(at_hand):
    with pytest.raises(
        DataError, match=r"lacks 201599 of the 202599 images of celeba:all \(e\.g\. 000001\.jpg\)"
    ):
        celeba("all")


def test_resize_applies_to_the_crop(at_hand, monkeypatch):
    monkeypatch.setattr(module, "COUNTS", {"val": 10})
    assert open_examples("celeba:val", resize=32).images.shape == (10, 32, 32, 3)
    assert open_examples("celeba:val").ids == open_examples("celeba:val", resize=32).ids


def test_a_picture_of_another_size_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "COUNTS", {"val": 1})
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path))
    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "celeba" / "img_align_celeba" / FROZEN["val"][0])
    with pytest.raises(DataError, match=rf"{FROZEN['val'][0]} is 64×64; expected 178×218"):
        celeba("val")


@pytest.mark.parametrize(
    "text",
    ["", "1\nYoung\n", "1\nMale\n000001.jpg 1\n", "1\nMale\n000001.jpg x\n", "1\nYoung Male\n1.jpg 1\n"],
)
def test_a_list_of_attributes_of_another_kind_is_reported(labelled, text):
    labelled.write_text(text)
    with pytest.raises(
        DataError, match=r"Could not read .*list_attr_celeba\.txt .*expected CelebA's list of attributes"
    ):
        celeba("val")


def test_the_hub_serves_where_there_is_not_a_folder(monkeypatch, tmp_path):
    datasets = pytest.importorskip(
        "datasets", reason="the `datasets` library (the hub extra) is not installed"
    )
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    rows = {
        "image": [face(i) for i in range(4)],
        "celeb_id": [1, 2, 3, 4],
        "Male": [True, False, False, True],
    }
    table = datasets.Dataset.from_dict(
        rows,
        datasets.Features(
            {"image": datasets.Image(), "celeb_id": datasets.Value("int64"), "Male": datasets.Value("bool")}
        ),
    )
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    monkeypatch.setattr(module, "HUB_NAME", str(tmp_path / "hub"))
    examples = celeba("train")
    assert examples.images.shape == (4, 64, 64, 3) and sorted(examples.ids) == [
        f"celeba-train-{i:06d}" for i in range(4)
    ]
    assert dict(zip(examples.ids, examples.groups or (), strict=True))["celeba-train-000003"] == "male"


def test_without_folder_and_hub_both_ways_are_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"a folder that has celeba/img_align_celeba.*pip install 'headwater\[hub\]'"
    ):
        celeba()


def test_an_unknown_split_is_reported():
    with pytest.raises(OptionError, match=r"no split of celeba 'valid'\. Did you mean 'val'\?"):
        celeba("valid")
