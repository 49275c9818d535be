import os
import pickle  # noqa: TID251 - to write what the restricted reader reads, and what it refuses
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest

from headwater.data.arrays_only_pickle import unpickled
from headwater.errors import DataError

BATCH = {
    "labels": [3, 0],
    "data": np.arange(8, dtype=np.uint8).reshape(2, 4),
    "batch_label": "testing batch 1 of 1",
}


@pytest.fixture
def read(tmp_path):
    def written(content):
        (tmp_path / "batch").write_bytes(content)
        return unpickled(tmp_path / "batch")

    return written


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_dictionary_of_words_numbers_and_arrays_comes_back(read, protocol):
    content = read(pickle.dumps(BATCH, protocol))
    assert (
        content.keys() == BATCH.keys()
        and content["labels"] == [3, 0]
        and content["batch_label"] == "testing batch 1 of 1"
    )
    assert np.array_equal(content["data"], BATCH["data"]) and content["data"].dtype == np.uint8


def test_so_does_one_of_numpy_1(read):
    content = pickle.dumps(BATCH, 2)
    assert b"numpy._core.multiarray" in content
    assert np.array_equal(read(content.replace(b"numpy._core.", b"numpy.core."))["data"], BATCH["data"])


def test_so_does_one_of_python_2(read, python2):
    data = np.arange(256, dtype=np.uint8).reshape(2, 128)
    content = read(python2(BATCH | {"data": data}))
    assert (
        np.array_equal(content["data"], data)
        and content["labels"] == [3, 0]
        and content["batch_label"] == "testing batch 1 of 1"
    )


class Poison:
    """An object whose pickle runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_poisoned_file_is_refused_by_name_and_never_runs(read, tmp_path, protocol):
    poison = Poison(f"touch {tmp_path / 'ran'}")
    content = pickle.dumps(BATCH | {"extra": poison}, protocol)
    with pytest.raises(
        DataError, match=r"batch is refused: it asks for (posix|nt)\.system, which rebuilds no array"
    ):
        read(content)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # an ordinary reader would have run it


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (pickle.dumps({"a": Fraction(1, 2)}), r"fractions\.Fraction"),
        (pickle.dumps(OrderedDict(a=1)), r"collections\.OrderedDict"),
        (pickle.dumps({"a": print}), r"builtins\.print"),
        (b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001+1\x85R.", r"__builtin__\.eval"),
        (b"(S'id'\nios\nsystem\n.", r"os\.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x09dtype.mro\x93.", r"numpy\.dtype\.mro"),
        (b"cnumpy.core.multiarray\nscalar\n.", r"numpy\.core\.multiarray\.scalar"),
    ],
    ids=["Fraction", "OrderedDict", "print", "eval", "INST", "dotted", "scalar"],
)
def test_every_other_name_is_refused(read, content, name):
    with pytest.raises(DataError, match=f"it asks for {name}, which rebuilds no array"):
        read(content)


def test_what_is_admitted_cannot_be_changed_by_a_file(read):
    before = vars(np.ndarray).copy()
    with pytest.raises(DataError, match="it is damaged"):
        read(b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.")
    assert vars(np.ndarray) == before


@pytest.mark.parametrize("stop", [0, 1, 40, -1])
def test_a_cut_or_empty_file_is_damaged(read, stop):
    with pytest.raises(DataError, match=r"Could not read .*batch: it is damaged \(.*Download the file again"):
        read(pickle.dumps(BATCH, 2)[:stop])


def test_a_persistent_object_is_refused(read):
    with pytest.raises(DataError, match="it is damaged"):
        read(b"Pobject\n.")


def test_anything_but_a_dictionary_is_reported(read):
    with pytest.raises(DataError, match="holds a list; expected a dictionary"):
        read(pickle.dumps([1]))


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"Could not open .*nowhere: No such file"):
        unpickled(tmp_path / "nowhere")
