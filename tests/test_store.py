"""The feature store: get or compute, shard by shard; killed and resumed is the same as uninterrupted."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from headwater import seeds
from headwater.errors import StorageError
from headwater.store import FeatureStore, default_root, written

SETTINGS = {"model": "m", "k": 3}


class Source:
    """Computes rows: a named random row per key, in blocks, and remembers for which keys it was asked."""

    def __init__(self, keys, block=2, stop_after=None, k=3):
        self.keys, self.block, self.stop_after, self.k = keys, block, stop_after, k
        self.asked: list[str] = []

    def __call__(self, positions):
        for start in range(0, len(positions), self.block):
            if self.stop_after is not None and start >= self.stop_after * self.block:
                raise KeyboardInterrupt
            keys = [self.keys[i] for i in positions[start : start + self.block]]
            self.asked += keys
            yield np.stack([seeds.normal((self.k,), 0, "row", key) for key in keys])


def expected(keys, k=3):
    return np.stack([seeds.normal((k,), 0, "row", key) for key in keys])


def rows(store, keys, **options):
    source = Source(keys, **options)
    return store.rows(SETTINGS, keys, source), source.asked


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_rows_come_in_the_order_of_their_keys_and_are_computed_once(store):
    keys = list("abcde")
    found, asked = rows(store, keys)
    assert found.dtype == np.float32 and np.array_equal(found, expected(keys)) and asked == keys
    again, asked = rows(store, keys)
    assert np.array_equal(again, found) and asked == []
    backwards, asked = rows(store, keys[::-1])
    assert np.array_equal(backwards, found[::-1]) and asked == []


def test_only_what_is_new_is_computed(store):
    rows(store, list("ac"))
    found, asked = rows(store, list("abcd"))
    assert asked == ["b", "d"] and np.array_equal(found, expected("abcd"))


def test_equal_keys_are_computed_once(store):
    found, asked = rows(store, list("abaab"))
    assert asked == ["a", "b"] and np.array_equal(found, expected("abaab"))


def test_other_settings_are_other_rows(store):
    rows(store, list("ab"))
    source = Source(list("ab"))
    store.rows(SETTINGS | {"k": 4}, list("ab"), source)
    assert source.asked == ["a", "b"]


def test_settings_are_equal_whatever_their_order_and_are_kept_readable(store):
    rows(store, list("ab"))
    source = Source(list("ab"))
    store.rows(dict(reversed(SETTINGS.items())), list("ab"), source)
    assert source.asked == []
    (kept,) = store.root.rglob("settings.json")
    assert json.loads(kept.read_text()) == SETTINGS


def test_a_killed_run_goes_on_where_it_stopped_and_ends_the_same_bit_for_bit(store, tmp_path):
    keys = [f"key-{i}" for i in range(9)]
    with pytest.raises(KeyboardInterrupt):
        rows(store, keys, stop_after=2)
    found, asked = rows(store, keys)
    assert asked == keys[4:]
    whole = FeatureStore(tmp_path / "uninterrupted")
    assert np.array_equal(found, rows(whole, keys)[0])
    assert contents(store.root) == contents(whole.root)


@pytest.mark.parametrize("left", ["rows-000001.npy", ".rows-000001.npy.99.part", ".rows-000001.json.99.part"])
def test_what_a_kill_leaves_of_a_shard_does_not_count(store, left):
    rows(store, list("ab"))
    (folder,) = (store.root / "features").iterdir()
    (folder / left).write_bytes(b"half")
    found, asked = rows(store, list("abcd"))
    assert asked == ["c", "d"] and np.array_equal(found, expected("abcd"))


def test_progress_counts_rows_done_of_rows_to_do(tmp_path):
    told = []
    store = FeatureStore(tmp_path, progress=lambda done, total: told.append((done, total)))
    rows(store, list("abc"))
    rows(store, list("abcdefg"), block=3)
    rows(store, list("abc"))
    assert told == [(2, 3), (3, 3), (3, 4), (4, 4)]


# damage


@pytest.fixture
def folder(store):
    """A store of six rows in three shards."""
    rows(store, list("abcdef"))
    (folder,) = (store.root / "features").iterdir()
    return folder


@pytest.mark.parametrize("kept", [0, 5, 60, 140])
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_shard_cut_short_is_told_with_its_path(store, folder, suffix, kept):
    path = folder / f"rows-000001.{suffix}"
    cut = path.read_bytes()[:kept]
    if cut == path.read_bytes():
        pytest.skip("the file is no longer than that")
    path.write_bytes(cut)
    with pytest.raises(StorageError, match=r"rows-000001.*damaged.*Delete"):
        rows(store, list("abcdef"))


def test_a_shard_with_fewer_rows_than_keys_is_told(store, folder):
    np.save(folder / "rows-000001.npy", np.zeros((1, 3), np.float32))
    with pytest.raises(StorageError, match=r"rows-000001.*damaged"):
        rows(store, list("abcdef"))


def test_the_rows_of_a_missing_shard_are_computed_anew(store, folder):
    (folder / "rows-000001.npy").unlink()
    found, asked = rows(store, list("abcdef"))
    assert asked == ["c", "d"] and np.array_equal(found, expected("abcdef"))


def test_the_number_of_a_missing_shard_is_not_used_again(store, folder):
    (folder / "rows-000002.npy").unlink()
    rows(store, list("gh"))
    assert not (folder / "rows-000002.npy").exists()  # its old keys are still there: a kill before the new ones would mix them up
    assert np.array_equal(rows(store, list("abcdefgh"))[0], expected("abcdefgh"))


@pytest.mark.parametrize("gone", ["000000", "000001", "000002"])
def test_after_a_shard_is_deleted_its_rows_are_computed_anew_and_no_others_change(store, folder, gone):
    for path in folder.glob(f"rows-{gone}.*"):
        path.unlink()
    found, asked = rows(store, list("abcdefgh"))
    assert np.array_equal(found, expected("abcdefgh"))
    assert len(asked) == 4
    found, asked = rows(store, list("abcdefgh"))
    assert np.array_equal(found, expected("abcdefgh")) and asked == []


def test_after_the_folder_is_deleted_all_is_computed_anew(store, folder):
    shutil.rmtree(folder)
    found, asked = rows(store, list("abcdef"))
    assert asked == list("abcdef") and np.array_equal(found, expected("abcdef"))


# two at once


def test_two_threads_that_want_the_same_rows_compute_them_once(store):
    keys, asked, found = [f"key-{i}" for i in range(6)], [], []

    def slow(positions):
        for i in positions:
            time.sleep(0.01)
            asked.append(keys[i])
            yield expected([keys[i]])

    threads = [threading.Thread(target=lambda: found.append(store.rows(SETTINGS, keys, slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(asked) == keys
    assert len(found) == 3 and all(np.array_equal(each, expected(keys)) for each in found)


def _in_a_process(root, log):
    keys = list("abcdef")

    def slow(positions):
        for i in positions:
            time.sleep(0.01)
            with Path(log).open("a") as file:
                file.write(keys[i])
            yield expected([keys[i]])

    os._exit(0 if np.array_equal(FeatureStore(root).rows(SETTINGS, keys, slow), expected(keys)) else 1)


def test_two_processes_that_want_the_same_rows_compute_them_once(store, tmp_path):
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_in_a_process, args=(store.root, tmp_path / "log")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted((tmp_path / "log").read_text()) == list("abcdef")


# the disk


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(ZeroDivisionError), written(path, "w") as file:
        file.write("half")
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with written(path, "w") as file:
        file.write("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written(path, "w") as file:
        file.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@contextmanager
def small_files():
    """Within this block no file may grow beyond 4 KiB: what a full disk does, without one (errno EFBIG in place of ENOSPC).

    A block and no fixture: pytest's own output may be such a file, and a fixture would still hold when pytest writes to it.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("save", [np.save, lambda file, a: file.write(a.tobytes()), np.savez_compressed], ids=["npy", "raw", "npz"])
def test_a_file_too_large_for_the_disk_is_told_and_leaves_nothing(tmp_path, save):
    random = seeds.normal((50, 50), 0, "incompressible")
    with small_files(), pytest.raises(StorageError, match=r"Could not write .*a\.bin"), written(tmp_path / "a.bin") as file:
        save(file, random)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_too_large_for_the_disk_does_not_exist_and_is_made_when_there_is_room(store):
    keys = list("abcd")
    with small_files(), pytest.raises(StorageError, match="Could not write"):
        rows(store, keys, k=1000)
    assert not list(store.root.rglob("rows-*")) and not list(store.root.rglob("*.part"))
    found, asked = rows(store, keys, k=1000)
    assert np.array_equal(found, expected(keys, k=1000)) and asked == keys


FULL = """
import errno, json, sys
from contextlib import contextmanager
from pathlib import Path
import numpy as np
from headwater.errors import StorageError
from headwater.store import FeatureStore

root, keys = Path(sys.argv[1]), [str(i) for i in range(40)]
def compute(positions):
    for i in positions:
        yield np.full((1, 20_000), float(keys[i]), np.float32)
def said():
    try:
        FeatureStore(root).rows({"k": 20_000}, keys, compute)
    except StorageError as error:
        return str(error)
(root / "ballast").write_bytes(bytes(2_000_000))
first = said()
shards, parts = len(list(root.rglob("rows-*.json"))), len(list(root.rglob("*.part")))
whole = [np.load(path)[0, -1] for path in sorted(root.rglob("rows-*.npy"))]
(root / "ballast").unlink()
rows = FeatureStore(root).rows({"k": 20_000}, keys, compute)
print(json.dumps([first, shards, parts, whole == list(range(len(whole))), rows[:, -1].tolist() == list(range(40))]))
"""


def test_a_really_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m tmpfs {disk}"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]  # gone with the process
    if not shutil.which("unshare") or subprocess.run([*namespace, mount], capture_output=True, check=False).returncode:
        pytest.skip("no private mounts here")
    command = [*namespace, f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL, str(disk)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    first, shards, parts, whole, resumed = json.loads(run.stdout)
    assert first is not None and os.strerror(errno.ENOSPC) in first and "run the same command again" in first
    assert 5 < shards < 40 and parts == 0 and whole and resumed


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_told():
    with pytest.raises(StorageError, match=r"--store"):
        rows(FeatureStore(Path("/proc/headwater")), list("ab"))


def test_a_store_below_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"--store"):
        rows(FeatureStore(tmp_path / "file" / "store"), list("ab"))


def test_the_store_is_where_the_environment_says_else_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path / "a"))
    assert default_root() == tmp_path / "a"
    monkeypatch.delenv("HEADWATER_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_root() == tmp_path / "b" / "headwater"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "headwater"
