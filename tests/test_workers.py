"""Crews: every job once, wherever it runs; failures are reported, and no process is left behind."""

import multiprocessing
import operator
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from headwater.errors import DataError, OptionError, WorkerError
from headwater.retraining.recipe import first
from headwater.workers import Cluster, Crew, Here, Pool, ahead, in_order


def test_jobs_here_have_one_thread_and_restore_the_number_afterwards(monkeypatch):
    torch.set_num_threads(2)
    try:
        results = list(Here().work(lambda shared, job: (shared, job, torch.get_num_threads()), "s", [1, 2]))
        assert results == [(1, ("s", 1, 1)), (2, ("s", 2, 1))] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_pool_does_every_job_once_in_other_processes():
    results = dict(Pool(2).work(np.multiply, 3, list(range(20))))
    assert results == {job: 3 * job for job in range(20)}
    assert list(Pool(1).work(np.multiply, 3, [])) == []


@pytest.mark.parametrize("end", ["an error", "a caller who has seen enough"])
def test_a_pool_ends_with_the_iteration(end):
    before = set(multiprocessing.active_children())
    if end == "an error":
        with pytest.raises(IndexError):
            list(Pool(2).work(operator.getitem, [1, 2, 3], [0, 1, 7]))
    else:
        going = Pool(2).work(operator.getitem, [1, 2, 3], [0, 1, 2])
        next(going)
        going.close()
    until = time.monotonic() + 20
    while not set(multiprocessing.active_children()) <= before:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_ray_a_cluster_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"pip install 'headwater\[ray\]'"):
        list(Cluster("auto").work(np.multiply, 3, [1]))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:port", "no.such.host.invalid:1"]
)
def test_a_cluster_that_is_not_there_is_reported_at_once(address):
    pytest.importorskip("ray")
    start = time.monotonic()
    with pytest.raises(OptionError, match=r"no Ray cluster at .*Start one with"):
        Cluster(address).check()
    assert time.monotonic() - start < 30


def test_results_are_put_in_order_as_soon_as_they_can_be():
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]
    rows = {part.start: np.full((part.stop - part.start, 1), part.start, np.float32) for part in parts}
    started = []

    def results():
        for start in (2, 0, 4):
            started.append(start)
            yield next(part for part in parts if part.start == start), rows[start]

    blocks = []
    for block in in_order(results(), parts):
        blocks.append((int(block[0, 0]), list(started)))
    assert blocks == [(0, [2, 0]), (2, [2, 0]), (4, [2, 0, 4])]


def test_a_user_error_passes_through_a_pool(pictures):
    with pytest.raises(DataError, match="There are 3 images; expected at least 5"):
        list(Pool(1).work(first, pictures(3), [5]))


def test_a_worker_that_dies_is_reported():
    with pytest.raises(WorkerError, match=r"died.*second run goes on"):
        list(Pool(1).work(operator.call, os._exit, [3]))


def test_workers_end_with_their_parent_even_if_it_is_killed():
    """A process with two workers that sleep is killed -9; its workers are gone soon after."""
    script = (
        "import operator, time, sys; from headwater.workers import Pool\n"
        "if __name__ == '__main__':\n"
        "    import threading, multiprocessing\n"
        "    threading.Timer(2, lambda: print(*[c.pid for c in multiprocessing.active_children()], "
        "flush=True)).start()\n"
        "    list(Pool(2).work(operator.call, time.sleep, [60, 60]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 30
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert len(pids) == 2


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_crew_is_a_crew():
    assert all(isinstance(crew, Crew) for crew in (Here(), Pool(2), Cluster("auto")))


def test_the_next_item_is_made_ahead_on_a_thread_and_no_further():
    threads, made_ahead = set(), []

    def squares():
        for number in range(5):
            threads.add(threading.current_thread())
            made_ahead.append(number)
            yield number**2

    assert list(ahead(squares())) == [0, 1, 4, 9, 16] and list(ahead([])) == []
    assert len(threads) == 1 and threading.current_thread() not in threads
    items = ahead(squares())
    made_ahead.clear()
    next(items)
    items.close()  # returns when the thread has ended
    assert made_ahead == [0, 1] and not threads & set(threading.enumerate())


def test_an_error_comes_in_the_place_of_its_item():
    items = ahead(1 // (2 - number) for number in range(4))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)
    with pytest.raises(StopIteration):
        next(items)
