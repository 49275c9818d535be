import os
from pathlib import Path

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
    """Saves a random picture under the test's folder and gives it back."""

    def save(path, mode="RGB", size=(4, 4), **options):
        bands = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
        values = seeds.stream(0, "picture", path).integers(0, 256, (size[1], size[0], bands)).astype("uint8")
        image = Image.fromarray(values[..., 0] if bands == 1 else values).convert(mode)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / path, **options)
        return image

    return save


@pytest.fixture
def hub_folder(tmp_path, monkeypatch, pictures):
    """A folder that the `datasets` library opens: one random picture for each class name given, and further columns."""
    datasets = pytest.importorskip("datasets", reason="the `datasets` library (the hub extra) is not installed")
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
