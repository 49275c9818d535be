"""Scores of seven queries and ten training images, and the groups of the images."""

import numpy as np
import pytest

from headwater import seeds

NAMES = ["b", "a", "c", "a", "b", "a", "b", "b", "a", "b"]
SPLIT = np.array(["val"] * 3 + ["gen"] * 4)


@pytest.fixture(name="values")
def values_fixture():
    return seeds.generator(0, "test credit").standard_normal((7, 10), dtype=np.float32)


@pytest.fixture(name="written")
def written_fixture(tmp_path):
    def write(text, name="names.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    return write
