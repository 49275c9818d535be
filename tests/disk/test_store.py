"""The feature store: get or compute, shard by shard; killed and resumed is the same as uninterrupted."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from headwater import seeds
from headwater.disk.files import locked, written
from headwater.disk.store import FeatureStore, default_root
from headwater.errors import DataWarning, NonFiniteError, OptionError, StorageError

SETTINGS = {"model": "m", "k": 3}


class Source:
    """Computes rows: a named random row per key, in blocks, and remembers the keys."""

    def __init__(self, keys, block=2, stop_after=None, k=3):
        self.keys, self.block, self.stop_after, self.k = keys, block, stop_after, k
        self.computed: list[str] = []

    def __call__(self, positions):
        for start in range(0, len(positions), self.block):
            if self.stop_after is not None and start >= self.stop_after * self.block:
                raise KeyboardInterrupt
            keys = [self.keys[i] for i in positions[start : start + self.block]]
            self.computed += keys
            yield np.stack([seeds.normal((self.k,), 0, "row", key) for key in keys])


def expected(keys, k=3):
    return np.stack([seeds.normal((k,), 0, "row", key) for key in keys])


def rows(store, keys, **options):
    source = Source(keys, **options)
    return store.rows(SETTINGS, keys, source), source.computed


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store")


def test_rows_come_in_the_order_of_their_keys_and_are_computed_once(store):
    keys = list("abcde")
    values, computed = rows(store, keys)
    assert values.dtype == np.float32 and np.array_equal(values, expected(keys)) and computed == keys
    again, computed = rows(store, keys)
    assert np.array_equal(again, values) and computed == []
    backwards, computed = rows(store, keys[::-1])
    assert np.array_equal(backwards, values[::-1]) and computed == []


def test_only_new_rows_are_computed(store):
    rows(store, list("ac"))
    values, computed = rows(store, list("abcd"))
    assert computed == ["b", "d"] and np.array_equal(values, expected("abcd"))


def test_rows_are_the_same_bytes_whatever_was_stored_first(tmp_path):
    reference, _ = rows(FeatureStore(tmp_path / "at once"), list("abcdef"))
    for order in (
        ["fb", "abcdef"],
        ["abcdef"],
        ["efcd", "ab"],
        ["a", "ab", "abc", "fedcba"],
        ["abcdefgh", "hg"],
    ):
        store = FeatureStore(tmp_path / "-".join(order))
        computed = [key for keys in order for key in rows(store, list(keys))[1]]
        assert len(computed) == len(set(computed))
        values, computed = rows(store, list("abcdef"))
        assert values.tobytes() == reference.tobytes() and computed == []


def test_no_keys_are_no_rows(store):
    values, computed = rows(store, [])
    assert len(values) == 0 and computed == []


def test_only_the_shards_of_the_rows_are_read_and_each_once(store, monkeypatch):
    rows(store, list("abcdef"))
    read, plain = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or plain(path))
    rows(store, list("fcf"))
    assert [name for name in read if name.endswith(".npy")] == ["rows-000001.npy", "rows-000002.npy"]


def test_reading_many_shards_takes_the_memory_of_the_result_and_of_a_few_shards(store):
    keys, k = [f"key-{i}" for i in range(1024)], 1000
    rows(store, keys, block=16, k=k)
    # A first read: the names of files join the interpreter's own table of words, which may grow by megabytes.
    store.rows(SETTINGS, keys, Source(keys))
    tracemalloc.start()
    values = store.rows(SETTINGS, keys, Source(keys))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values.shape == (1024, k) and peak < 1.25 * values.nbytes


@pytest.mark.parametrize("blocks", [[[1.0]], [[1.0], [2.0], [3.0]]], ids=["too few", "too many"])
def test_another_number_of_rows_is_an_error(store, blocks):
    with pytest.raises(ValueError, match="keys"):
        store.rows(SETTINGS, list("ab"), lambda _: (np.array([row], np.float32) for row in blocks))


def test_rows_of_another_width_are_an_error(store):
    rows(store, list("ab"))
    with pytest.raises(ValueError, match="1 numbers among rows of 3"):
        rows(store, list("abc"), k=1)


def test_equal_keys_are_computed_once(store):
    values, computed = rows(store, list("abaab"))
    assert computed == ["a", "b"] and np.array_equal(values, expected("abaab"))


def test_other_settings_are_other_rows(store):
    rows(store, list("ab"))
    source = Source(list("ab"))
    store.rows(SETTINGS | {"k": 4}, list("ab"), source)
    assert source.computed == ["a", "b"]


def test_settings_are_equal_whatever_their_order_and_are_kept_readable(store):
    rows(store, list("ab"))
    source = Source(list("ab"))
    store.rows(dict(reversed(SETTINGS.items())), list("ab"), source)
    assert source.computed == []
    (file,) = store.root.rglob("settings.json")
    assert json.loads(file.read_text()) == SETTINGS


def test_a_killed_run_goes_on_where_it_stopped_and_ends_the_same_bit_for_bit(store, tmp_path):
    keys = [f"key-{i}" for i in range(9)]
    with pytest.raises(KeyboardInterrupt):
        rows(store, keys, stop_after=2)
    values, computed = rows(store, keys)
    assert computed == keys[4:]
    uninterrupted = FeatureStore(tmp_path / "uninterrupted")
    assert np.array_equal(values, rows(uninterrupted, keys)[0])
    assert contents(store.root) == contents(uninterrupted.root)


@pytest.mark.parametrize("name", ["rows-000001.npy", ".rows-000001.npy.99.part", ".rows-000001.json.99.part"])
def test_the_remains_of_a_killed_write_do_not_count(store, name):
    rows(store, list("ab"))
    (folder,) = (store.root / "features").iterdir()
    (folder / name).write_bytes(b"half")
    values, computed = rows(store, list("abcd"))
    assert computed == ["c", "d"] and np.array_equal(values, expected("abcd"))
    assert not list(folder.glob(".*.part")) and len(list(folder.glob("rows-*"))) == 4


def test_progress_counts_rows_done_of_rows_to_do(tmp_path):
    reports = []
    store = FeatureStore(tmp_path, progress=lambda count, total: reports.append((count, total)))
    rows(store, list("abc"))
    rows(store, list("abcdefg"), block=3)
    rows(store, list("abc"))
    assert reports == [(2, 3), (3, 3), (3, 4), (4, 4)]


# damage


@pytest.fixture
def notes():
    """The store's warnings."""
    return []


@pytest.fixture
def noting_store(tmp_path, notes):
    return FeatureStore(tmp_path / "store", warn=notes.append)


@pytest.fixture
def folder(store):
    """A store of six rows in three shards."""
    rows(store, list("abcdef"))
    (folder,) = (store.root / "features").iterdir()
    return folder


def mended(store, notes, path):
    """Assert that the second of three shards is found damaged: one line with its path, its rows computed,
    then all is well."""
    values, computed = rows(store, list("abcdef"))
    assert computed == ["c", "d"] and np.array_equal(values, expected("abcdef"))
    assert len(notes) == 1 and str(path) in notes[0] and "computed again" in notes[0] and "\n" not in notes[0]
    again, computed = rows(store, list("fedcba"))
    assert np.array_equal(again, values[::-1]) and computed == [] and len(notes) == 1
    notes.clear()


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_flipped_bit_anywhere_in_a_shard_is_found_and_its_rows_are_computed_again(
    folder, noting_store, notes, suffix
):
    shard, bits = folder / f"rows-000001.{suffix}", seeds.generator(0, "bits")
    for place in range(0, shard.stat().st_size, 3):
        path = next(
            path
            for path in folder.glob(f"rows-*.{suffix}")
            if json.loads(path.with_suffix(".json").read_text())["keys"] == ["c", "d"]
        )
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 1 << int(bits.integers(8))
        path.write_bytes(damaged)
        mended(noting_store, notes, path)


@pytest.mark.parametrize("length", [0, 5, 60, 140])
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_shard_cut_short_is_computed_again(folder, noting_store, notes, suffix, length):
    path = folder / f"rows-000001.{suffix}"
    path.write_bytes(path.read_bytes()[:length])
    mended(noting_store, notes, path)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '["c", "d"]', '{"json": 1}', '{"keys": ["c", "d"], "json": ""}']
)
def test_a_json_of_something_else_is_damage(folder, noting_store, notes, text):
    path = folder / "rows-000001.json"
    path.write_text(text)
    mended(noting_store, notes, path)


def test_a_shard_with_other_rows_than_were_written_is_computed_again(folder, noting_store, notes):
    path = folder / "rows-000001.npy"
    np.save(path, np.zeros((1, 3), np.float32))
    mended(noting_store, notes, path)


def test_a_shard_that_was_replaced_by_another_is_computed_again(folder, noting_store, notes):
    path = folder / "rows-000001.npy"
    shutil.copy(folder / "rows-000000.npy", path)
    mended(noting_store, notes, path)


def test_a_missing_shard_is_computed_again(folder, noting_store, notes):
    path = folder / "rows-000001.npy"
    path.unlink()
    mended(noting_store, notes, path)


@pytest.mark.parametrize("failure", [errno.EIO, errno.EACCES])
def test_a_shard_that_the_disk_cannot_read_is_computed_again(
    folder, noting_store, notes, monkeypatch, failure
):
    path, plain = folder / "rows-000001.npy", Path.read_bytes

    def read(file):
        if file == path and not notes:
            raise OSError(failure, os.strerror(failure))
        return plain(file)

    monkeypatch.setattr(Path, "read_bytes", read)
    mended(noting_store, notes, path)


def test_a_shard_that_cannot_be_read_just_now_is_left_alone(store, folder, monkeypatch):
    before = contents(store.root)

    def read(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with (
        monkeypatch.context() as patch,
        pytest.raises(StorageError, match=r"Could not read .*rows-000000.*again"),
    ):
        patch.setattr(Path, "read_bytes", read)
        rows(store, list("abcdef"))
    assert contents(store.root) == before


def test_damage_in_every_shard_is_reported_and_all_rows_are_computed_in_one_go(folder, noting_store, notes):
    for path in folder.glob("rows-*.npy"):
        path.write_bytes(b"")
    values, computed = rows(noting_store, list("abcdef"))
    assert np.array_equal(values, expected("abcdef")) and computed == list("abcdef") and len(notes) == 3


@pytest.mark.parametrize("memory", [0, -1])
def test_a_memory_below_one_byte_is_refused(tmp_path, memory):
    with pytest.raises(OptionError, match=f"memory is {memory}; expected a whole number of bytes"):
        FeatureStore(tmp_path, memory=memory)


def test_damage_is_a_warning_by_default(store, folder):
    (folder / "rows-000001.npy").write_bytes(b"")
    with pytest.warns(DataWarning, match=r"rows-000001\.npy") as heard:
        rows(store, list("abcdef"))
    assert len(heard) == 1


def test_the_number_of_a_missing_shard_is_not_used_again(store, folder):
    (folder / "rows-000002.npy").unlink()
    rows(store, list("gh"))
    assert not (
        folder / "rows-000002.npy"
    ).exists()  # its keys are still there, and are not those of other rows
    with pytest.warns(DataWarning, match=r"rows-000002\.npy"):
        assert np.array_equal(rows(store, list("abcdefgh"))[0], expected("abcdefgh"))


@pytest.mark.parametrize("gone", ["000000", "000001", "000002"])
def test_after_a_shard_is_deleted_its_rows_are_computed_again_and_no_others_change(store, folder, gone):
    for path in folder.glob(f"rows-{gone}.*"):
        path.unlink()
    values, computed = rows(store, list("abcdefgh"))
    assert np.array_equal(values, expected("abcdefgh"))
    assert len(computed) == 4
    values, computed = rows(store, list("abcdefgh"))
    assert np.array_equal(values, expected("abcdefgh")) and computed == []


def test_after_the_folder_is_deleted_all_is_computed_again(store, folder):
    shutil.rmtree(folder)
    values, computed = rows(store, list("abcdef"))
    assert computed == list("abcdef") and np.array_equal(values, expected("abcdef"))


# float16


@pytest.fixture
def half(tmp_path):
    return FeatureStore(tmp_path / "store", dtype="float16")


def test_float16_rows_come_back_as_float32_within_the_error_that_the_shard_records(half):
    keys = list("abcd")
    values, _ = rows(half, keys, k=500)
    again, computed = rows(half, keys, k=500)
    assert (
        values.dtype == again.dtype == np.float32 and values.tobytes() == again.tobytes() and computed == []
    )
    exact = expected(keys, k=500)
    for path, part in zip(sorted(half.root.rglob("rows-*.json")), ([0, 1], [2, 3]), strict=True):
        error = np.linalg.norm(values[part] - exact[part]) / np.linalg.norm(exact[part])
        assert json.loads(path.read_text())["relative_error"] == pytest.approx(error, rel=1e-3)
        assert 1e-5 < error < 2**-11


def test_float16_takes_half_the_disk(half, store):
    keys = list("ab")
    for a_store in (half, store):
        rows(a_store, keys, k=5000)
    sizes = sorted(path.stat().st_size for path in store.root.rglob("rows-*.npy"))
    assert sizes == [128 + 2 * 5000 * 2, 128 + 2 * 5000 * 4]


def test_float16_and_float32_rows_of_the_same_settings_do_not_meet(half, store):
    exact, _ = rows(store, list("ab"))
    rounded, computed = rows(half, list("ab"))
    assert computed == ["a", "b"] and not np.array_equal(rounded, exact)
    assert np.array_equal(rows(store, list("ab"))[0], exact)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-10, 1.0, 1e10, 3e38])
def test_float16_keeps_rows_of_any_size(half, scale):
    block = np.array([[1, -0.5, 0.25, 0], [0.75, 1e-3, 3e-7, 1]]) * scale
    exact = block.astype(np.float32)
    values = half.rows(SETTINGS, list("ab"), lambda _: [exact])
    np.testing.assert_allclose(values, exact, rtol=2**-11, atol=2e-45)


def test_float16_keeps_zeros_and_powers_of_two_exactly(half):
    exact = np.stack([np.zeros(8), 2.0 ** np.arange(-20, -12)]).astype(np.float32)
    assert np.array_equal(half.rows(SETTINGS, list("ab"), lambda _: [exact]), exact)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_float16_refuses_numbers_that_are_not_finite(half, bad):
    with pytest.raises(NonFiniteError, match="float16"):
        half.rows(SETTINGS, ["a"], lambda _: [np.array([[1, bad]], np.float32)])
    assert not list(half.root.rglob("rows-*"))


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_flipped_bit_in_a_float16_shard_is_found(half, suffix):
    reference, _ = rows(half, list("abcdef"))
    (path,) = half.root.rglob(f"rows-000001.{suffix}")
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 4
    path.write_bytes(damaged)
    with pytest.warns(DataWarning, match=path.name):
        values, computed = rows(half, list("abcdef"))
    assert values.tobytes() == reference.tobytes() and computed == ["c", "d"]


def test_another_dtype_is_refused(tmp_path):
    with pytest.raises(OptionError, match="float16"):
        FeatureStore(tmp_path, dtype="float8")


# killed

LIFE = """
import sys
from pathlib import Path
import numpy as np
from headwater import seeds
from headwater.disk.store import FeatureStore

root, life, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
keys = [f"key-{i}" for i in range(n)]
def compute(positions):
    for start in range(0, len(positions), 4):
        block = [keys[i] for i in positions[start : start + 4]]
        with (root / "log").open("a") as log:
            log.write(" ".join([life, *block]) + chr(10))
        yield np.stack([seeds.normal((500,), 0, "row", key) for key in block])
print("begun", flush=True)
np.save(root / "values.npy", FeatureStore(root / "store").rows({"model": "m"}, keys, compute))
"""


def killed_and_restarted(root, kills, n):
    """Kill -9 a run of n rows at random moments, restart it each time, and let it end; the blocks that each
    life computed."""
    root.mkdir()
    random, log = seeds.generator(0, "kills"), root / "log"
    log.touch()
    for life in range(kills + 1):
        with subprocess.Popen(
            [sys.executable, "-c", LIFE, root, str(life), str(n)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            if life < kills:
                until = log.read_bytes().count(b"\n") + int(random.integers(6))
                while log.read_bytes().count(b"\n") < until and process.poll() is None:
                    time.sleep(2e-4)
                time.sleep(random.uniform(0, 0.01))
                process.kill()
        assert process.returncode == (-9 if life < kills else 0)
    lines = [line.split() for line in log.read_text().splitlines()]
    return [[line[1:] for line in lines if int(line[0]) == life] for life in range(kills + 1)]


@pytest.mark.parametrize(("kills", "n"), [(5, 200), pytest.param(50, 2000, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_repeats_at_most_one_shard_a_kill_and_ends_the_same_bit_for_bit(
    tmp_path, kills, n
):
    lives = killed_and_restarted(tmp_path / "killed", kills, n)
    for life in range(1, kills + 1):
        before = [block for earlier in lives[:life] for block in earlier]
        assert all(block not in before for block in lives[life][1:])
        assert not lives[life] or lives[life][0] not in before or lives[life][0] == before[-1]
    keys = [f"key-{i}" for i in range(n)]
    uninterrupted = FeatureStore(tmp_path / "uninterrupted")
    values = uninterrupted.rows({"model": "m"}, keys, Source(keys, block=4, k=500))
    assert (
        np.load(tmp_path / "killed" / "values.npy").tobytes()
        == values.tobytes()
        == expected(keys, k=500).tobytes()
    )
    assert contents(tmp_path / "killed" / "store") == contents(uninterrupted.root)


# two at once


def test_two_threads_that_want_the_same_rows_compute_them_once(store):
    keys, computed, results = [f"key-{i}" for i in range(6)], [], []

    def slow(positions):
        for i in positions:
            time.sleep(0.01)
            computed.append(keys[i])
            yield expected([keys[i]])

    threads = [
        threading.Thread(target=lambda: results.append(store.rows(SETTINGS, keys, slow))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(computed) == keys
    assert len(results) == 3 and all(np.array_equal(result, expected(keys)) for result in results)


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


def _at_work(folder, begun):
    with locked(folder):
        (folder / ".half.99.part").write_bytes(b"half")
        begun.set()
        time.sleep(60)


def test_a_locked_folder_is_refused_without_waiting_until_its_process_is_killed(tmp_path):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    process = fork.Process(target=_at_work, args=(tmp_path, begun))
    process.start()
    try:
        assert begun.wait(30)
        with (
            pytest.raises(StorageError, match=f"Another process is at work in {tmp_path}.*again"),
            locked(tmp_path, wait=False),
        ):
            pass
        assert (tmp_path / ".half.99.part").exists()
    finally:
        process.kill()
        process.join(30)
    with locked(tmp_path, wait=False):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with locked(tmp_path, wait=False):
        pass


@pytest.mark.parametrize("failure", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_reported(store, monkeypatch, failure):
    def flock(*_):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match=rf"Could not lock .*{os.strerror(failure)}.*local disk"):
        rows(store, list("ab"))


def test_an_error_within_a_lock_is_raised_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError, match="mine"), locked(tmp_path):
        raise FileNotFoundError("mine")
    with locked(tmp_path, wait=False):
        pass


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


@pytest.mark.parametrize(
    "save", [np.save, lambda file, a: file.write(a.tobytes()), np.savez_compressed], ids=["npy", "raw", "npz"]
)
def test_a_file_too_large_for_the_disk_is_reported_and_leaves_nothing(tmp_path, save, small_files):
    random = seeds.normal((50, 50), 0, "incompressible")
    with (
        small_files(4096),
        pytest.raises(StorageError, match=r"Could not write .*a\.bin"),
        written(tmp_path / "a.bin") as file,
    ):
        save(file, random)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_too_large_for_the_disk_does_not_exist_and_is_made_when_there_is_room(store, small_files):
    keys = list("abcd")
    with small_files(4096), pytest.raises(StorageError, match="Could not write"):
        rows(store, keys, k=1000)
    assert not list(store.root.rglob("rows-*")) and not list(store.root.rglob("*.part"))
    values, computed = rows(store, keys, k=1000)
    assert np.array_equal(values, expected(keys, k=1000)) and computed == keys


FULL = """
import errno, json, sys
from contextlib import contextmanager
from pathlib import Path
import numpy as np
from headwater.errors import DataWarning, StorageError
from headwater.disk.store import FeatureStore

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
in_order = whole == list(range(len(whole))), rows[:, -1].tolist() == list(range(40))
print(json.dumps([first, shards, parts, *in_order]))
"""


def test_a_really_full_disk_is_reported_and_the_run_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4m tmpfs {disk}"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]  # gone with the process
    if (
        not shutil.which("unshare")
        or subprocess.run([*namespace, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no private mounts here")
    command = [*namespace, f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL, str(disk)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    first, shards, parts, intact, resumed = json.loads(run.stdout)
    assert first is not None and os.strerror(errno.ENOSPC) in first and "a second run goes on" in first
    assert 5 < shards < 40 and parts == 0 and intact and resumed


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_reported():
    with pytest.raises(StorageError, match="Use a folder on a local disk"):
        rows(FeatureStore(Path("/proc/headwater")), list("ab"))


def test_a_store_below_a_file_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Use a folder on a local disk"):
        rows(FeatureStore(tmp_path / "file" / "store"), list("ab"))


def test_the_store_is_in_the_folder_of_the_environment_else_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path / "a"))
    assert default_root() == tmp_path / "a"
    monkeypatch.delenv("HEADWATER_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_root() == tmp_path / "b" / "headwater"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "headwater"


def test_a_block_bounds_what_is_computed_together(tmp_path):
    assert FeatureStore(tmp_path).rows_together(128) == 128
    assert [FeatureStore(tmp_path, block=4).rows_together(usual) for usual in (128, 2)] == [4, 2]
    with pytest.raises(OptionError, match="block is 0; expected 1 or more"):
        FeatureStore(tmp_path, block=0)
