"""The same function on many inputs, each independent of the others: in processes of this machine or on a Ray cluster.

A crew gives results as they come, in any order. Every job has one thread, so that its last bits do not depend on who does it.
"""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from headwater.errors import OptionError

Function = Callable[[Any, Any], Any]  # (what all jobs share, one job) → its result


@runtime_checkable
class Crew(Protocol):
    """Whoever does the jobs."""

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """(job, function(shared, job)) for every job, as each is done. `function` is a module's own: others import it."""
        ...


@dataclass(frozen=True)
class Here:
    """This process, one job after the other."""

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            yield job, _on_one_thread(function, shared, job)


@dataclass(frozen=True)
class Pool:
    """Processes of this machine, which share its cores. They end when the iteration ends, however that comes."""

    workers: int = 1

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        if not jobs:
            return
        context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
        with ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin, initargs=(function, shared)) as pool:
            futures = {pool.submit(_job, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
                raise


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster (`pip install headwater[ray]`): Ray places the jobs, and does those of a lost node again.

    A job takes a core and `gpus` of a GPU, which may be a fraction: 0.25 lets four jobs share one.
    """

    address: str
    gpus: float = 0

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        ray = _ray(self.address)
        remote = ray.remote(_on_one_thread).options(num_cpus=1, num_gpus=self.gpus, max_retries=-1)
        given = ray.put(shared)
        waiting = {remote.remote(function, given, job): job for job in jobs}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(done), ray.get(done)
        finally:
            for each in waiting:
                ray.cancel(each, force=True)


def _ray(address: str) -> Any:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise OptionError("--ray needs Ray, which is not installed: pip install 'headwater[ray]'.") from error
    if not ray.is_initialized():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise OptionError(f"There is no Ray cluster at {address}: {error}. Start one with `ray start --head`.") from error
    return ray


_work: tuple[Function, Any] | None = None


def _begin(function: Function, shared: Any) -> None:
    """In a new process. Ctrl-C is for the parent, which ends its workers."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = function, shared


def _job(job: Any) -> Any:
    assert _work is not None
    return _on_one_thread(*_work, job)


def _on_one_thread(function: Function, shared: Any, job: Any) -> Any:
    torch = sys.modules.get("torch")  # a function that needs it has imported it
    if torch is None:
        return function(shared, job)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(shared, job)
    finally:
        torch.set_num_threads(before)
