"""Shapes and types are checked while the tests run. Below: toys that every test shares, small enough for one
slow core."""

import hashlib
import os
import resource
import signal
import sys
import types
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, beartype

# A whole number passes for a float, as in every type checker; the hook takes its checker by name only.
sys.modules["checker"] = types.ModuleType("checker")
sys.modules["checker"].check = beartype(conf=BeartypeConf(is_pep484_tower=True))
jaxtyping.install_import_hook("headwater", "checker.check")  # before the first import of headwater

# What numba keeps of a function it knows by that function's file alone: here by all files that may be
# compiled into it.
SOURCES = sorted((Path(__file__).parents[1] / "src" / "headwater" / "patches" / "compiled").glob("*.py"))
STATE = hashlib.blake2b(b"".join(path.read_bytes() for path in SOURCES), digest_size=6).hexdigest()
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / STATE)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from headwater import seeds  # noqa: E402
from headwater.examples import Examples  # noqa: E402

if find_spec("torch"):  # the rooms that look at results are also tested without it
    import torch

    torch.set_num_threads(1)

CONFIG = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "time_embedding_dim": 16,
    "attention_head_dim": 8,
}


@pytest.fixture(scope="session")
def config():
    """Keyword arguments of the smallest UNet2DModel that has every kind of layer: convolutions, norms,
    attention."""
    return dict(CONFIG)


@pytest.fixture(scope="session")
def smallest(config):
    """The same with one level and no attention, for tests that do many steps."""
    one = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return config | one | {"add_attention": False}


@pytest.fixture(scope="session")
def tiny():
    """A tiny Denoiser, in float64 by default; `classes` makes it class-conditional, `changes` another
    network."""
    torch = pytest.importorskip("torch", reason="a model needs torch")
    from headwater.diffusion.schedule import linear
    from headwater.models import unet

    def make(dtype=torch.float64, classes=None, prediction="epsilon", seed=0, **changes):
        labelled = {} if classes is None else {"num_class_embeds": classes}
        model = unet.new(CONFIG | labelled | changes, seed, linear(prediction=prediction))
        # diffusers' own .to() warns
        return unet.of_module(torch.nn.Module.to(model.module, dtype), model.schedule)

    return make


@pytest.fixture(scope="session")
def pictures():
    """Examples of n random pictures, with labels if there are classes."""

    def make(n, seed=0, classes=None, side=8, channels=1, **columns):
        random = seeds.generator(seed, "test pictures")
        images = random.integers(0, 256, size=(n, side, side, channels), dtype=np.uint8)
        labels = {} if classes is None else {"labels": random.integers(0, classes, size=n)}
        return Examples(images, **labels, **columns)

    return make


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs `headwater` in this process, in the test's folder: (exit code, stdout, stderr)."""
    from headwater.cli import commands as cli

    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headwater", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return code, out, err

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def small_files():
    """A block within which no file may grow beyond this many bytes: what a full disk does (errno EFBIG, not
    ENOSPC).

    A block, and not the fixture: pytest's own output may be such a file, and a limit would still hold when
    pytest writes to it."""

    @contextmanager
    def block(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return block


@pytest.fixture(scope="session")
def cut_out():
    """Distances from one patch to all patches of another picture, each cut out; see `_distances`."""
    return _distances


def _cut(picture: np.ndarray, patch: int, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """The padded patch whose window is (row, column), and which of its pixels are inside the picture."""
    pad = (patch - 1) // 2
    around = [(0, 0), (pad, pad), (pad, pad)]
    window = (slice(None), slice(row, row + patch), slice(column, column + patch))
    return np.pad(picture, around)[window], np.pad(np.ones_like(picture[:1]), around)[window]


def _distances(
    x: np.ndarray, picture: np.ndarray, patch: int, coarse: bool, a: tuple[int, int]
) -> list[float]:
    """From the patch of x at window a to every patch that reaches as far over the edges."""
    (query, mask), pad = _cut(x, patch, *a), (patch - 1) // 2
    distances = []
    for b in product(*(range(side + 2 * pad - patch + 1) for side in x.shape[1:])):
        candidate, inside = _cut(picture, patch, *b)
        if np.array_equal(mask, inside):
            difference = query - candidate
            if coarse:
                difference = difference.reshape(len(x), patch // 2, 2, patch // 2, 2).sum((2, 4)) / 2
            distances.append(float(np.square(difference).sum()))
    return sorted(distances)
