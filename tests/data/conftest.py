import os
import pickle  # noqa: TID251 - to write what the restricted reader reads, and what it refuses
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater import seeds


@pytest.fixture(scope="session")
def shared_data():
    """The folder of research data: `$HEADWATER_DATA`, else one beside the checkout."""
    folder = Path(os.environ.get("HEADWATER_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (folder / "cifar10_jpeg.npz").exists():
        pytest.skip("no research data: set HEADWATER_DATA to a folder that has cifar10_jpeg.npz")
    return folder


@pytest.fixture
def put(tmp_path):
    """Saves a random picture under the test's folder and returns it."""

    def save(path, mode="RGB", size=(4, 4), **options):
        bands = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
        values = (
            seeds.generator(0, "picture", path).integers(0, 256, (size[1], size[0], bands)).astype("uint8")
        )
        image = Image.fromarray(values[..., 0] if bands == 1 else values).convert(mode)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / path, **options)
        return image

    return save


@pytest.fixture
def python2():
    """A dictionary of words, numbers, lists and byte arrays, pickled as Python 2 and numpy 1 did: CIFAR-10's
    own format."""

    def word(text):
        text = text.encode("latin1") if isinstance(text, str) else text
        return b"T" + struct.pack("<i", len(text)) + text

    def array(numbers):
        shape = b"(" + b"".join(map(value, numbers.shape)) + b"t"
        rebuilt = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word("b") + b"\x87R"
        kind = (
            b"cnumpy\ndtype\n"
            + word("u1")
            + b"K\x00K\x01\x87R(K\x03"
            + word("|")
            + b"NNN"
            + value(-1) * 2
            + b"K\x00tb"
        )
        return rebuilt + b"(K\x01" + shape + kind + b"\x89" + word(numbers.tobytes()) + b"tb"

    def value(content):
        if isinstance(content, np.ndarray):
            return array(content)
        if isinstance(content, list):
            return b"](" + b"".join(map(value, content)) + b"e"
        return b"J" + struct.pack("<i", content) if isinstance(content, int) else word(content)

    def dumps(content):
        return b"\x80\x02}(" + b"".join(word(key) + value(content[key]) for key in content) + b"u."

    return dumps


@pytest.fixture
def batches():
    """Writes a folder of Python batches, `count` images a class in each file; returns images and labels by
    file."""

    def save(folder, classes, count, dumps=pickle.dumps, meta=("batches.meta", "label_names")):
        folder.mkdir(parents=True)
        (folder / meta[0]).write_bytes(dumps({meta[1]: list(classes)}))
        saved = {}
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            random = seeds.generator(0, "batches", name)
            labels = random.permutation(np.repeat(np.arange(len(classes)), count))
            images = random.integers(0, 256, (len(labels), 32, 32, 3)).astype(np.uint8)
            rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            (folder / name).write_bytes(dumps({"data": rows, "labels": labels.tolist()}))
            saved[name] = (images, labels)
        return saved

    return save


@pytest.fixture
def hub_folder(tmp_path, monkeypatch, pictures):
    """A folder that the `datasets` library opens: one random picture for each class name, and further
    columns."""
    datasets = pytest.importorskip(
        "datasets", reason="the `datasets` library (the hub extra) is not installed"
    )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def save(names, features=None, **columns):
        classes = sorted({name for name in names if name})
        rows = {
            "img": [Image.fromarray(image) for image in pictures(len(names), channels=3).images],
            "label": [classes.index(name) if name else None for name in names],
        }
        kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=classes)}
        table = datasets.Dataset.from_dict(rows, datasets.Features(kinds))
        for name, column in columns.items():
            table = table.add_column(name, column, feature=(features or {}).get(name))
        (tmp_path / "hub").mkdir()
        table.to_parquet(tmp_path / "hub" / "train.parquet")
        return tmp_path / "hub"

    return save
