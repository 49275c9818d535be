"""Run folders without any model, a browser, and the command that credits."""

import json
from pathlib import Path

import numpy as np
import pytest

from headwater import seeds
from headwater.patches.regions import Regions, write_regions
from toy_credit import values_fixture, written_fixture  # noqa: F401

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)

QUIET += ("--disable-component-update", "--disable-sync")


@pytest.fixture
def make(tmp_path):
    """Write a run folder; whatever is not given is drawn at random, the same each time."""

    def write(name="run", q=6, n=40, size=8, channels=1, **changes):
        draw = seeds.generator(0, "test", "report")
        arrays = {
            "train_images": draw.integers(0, 256, (n, size, size, channels), np.uint8),
            "train_rows": np.arange(n),
            "train_ids": np.array([f"image-{i:03d}" for i in range(n)]),
            "train_labels": np.arange(n) % 3,
            "train_groups": None,
            "train_prompts": None,
            "query_images": draw.integers(0, 256, (q, size, size, channels), np.uint8),
            "query_ids": np.array([f"query-{i:03d}" for i in range(q)]),
            "query_labels": np.arange(q) % 3,
            "query_split": np.array(["val"] * (q - q // 2) + ["gen"] * (q // 2)),
            "query_groups": None,
            "query_prompts": None,
        }
        scores = changes.pop("scores", draw.standard_normal((q, n), dtype=np.float32))
        own = changes.pop("own", draw.standard_normal(n, dtype=np.float32) ** 2)
        arrays |= {key: changes.pop(key) for key in list(changes) if key in arrays}
        info = changes.pop(
            "only",
            {"method": "d-trak", "title": "D-TRAK", "seconds": {"fit": 61.2}, "headwater": "0.1.0"} | changes,
        )
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "scores.npy", scores)
        np.save(folder / "self.npy", own)
        np.savez(
            folder / "pictures.npz", **{key: value for key, value in arrays.items() if value is not None}
        )
        (folder / "run.json").write_text(json.dumps(info))
        return folder

    return write


@pytest.fixture
def mapped(make):
    """A run with maps of its first two queries, in which training image 7 leads on the left, and 3, mirrored,
    on the right."""

    def write(**changes):
        folder = make(signed=False, **changes)
        explained = np.full((2, 2, 8, 8), 0.1, np.float32)
        explained[:, 0, :, :4], explained[:, 1, :, 4:] = 0.4, 0.3
        rivals = np.full((2, 8, 8), 0.2, np.float32)
        rivals[1, :, :2] = 0.5
        zeros, mirrored = np.zeros((2, 2, 8, 8), np.int16), np.zeros((2, 2, 8, 8), bool)
        mirrored[:, 1] = True
        row, column = zeros + np.arange(8, dtype=np.int16)[:, None], zeros + np.arange(8, dtype=np.int16)
        maps = Regions(
            queries=np.array([0, 1]),
            sides=np.array([8, 8]),
            images=np.array([[7, 3], [7, 3]]),
            here=explained,
            others=rivals,
            there=np.ones((2, 2, 8, 8), np.float32),
            top=row - 1,
            left=column - 1,
            down=np.minimum(2, 7 - row),
            across=np.maximum(-1, -column),
            size=zeros + 3,
            mirrored=mirrored,
        )
        write_regions(folder / "regions.npz", maps)
        return folder

    return write


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def run_folder(tmp_path, values):
    """A run folder as `attribute` writes it, with whatever columns are given."""

    def write(**columns):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        np.save(folder / "scores.npy", values)
        np.save(folder / "self.npy", np.ones(10, np.float32))
        arrays = {
            "train_images": np.zeros((10, 8, 8, 1), np.uint8),
            "train_rows": np.arange(10),
            "train_ids": np.array([f"image-{i}" for i in range(10)]),
            "query_images": np.zeros((7, 8, 8, 1), np.uint8),
            "query_ids": np.array([f"query-{i}" for i in range(7)]),
        }
        np.savez(folder / "pictures.npz", **arrays, **columns)
        (folder / "run.json").write_text(json.dumps({"method": "d-trak", "title": "D-TRAK", "signed": True}))
        return folder

    return write


@pytest.fixture
def run_credit(command):
    """Runs `headwater credit` in this process: (exit code, stdout, stderr)."""
    return lambda *words: command("credit", *words)
