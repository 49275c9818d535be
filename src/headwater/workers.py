"""One function on many independent inputs, in this process, in processes of this machine or on a Ray cluster.

A crew yields results as they arrive, in any order. Every job has one thread, so that its last bits do not
depend on where it runs.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from headwater.errors import OptionError, UserError, WorkerError

Function = Callable[[Any, Any], Any]  # (data shared by all jobs, one job) → result


@runtime_checkable
class Crew(Protocol):
    """The workers that run the jobs."""

    def check(self) -> None:
        """Raise an OptionError if no worker can be reached."""
        ...

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """(job, function(shared, job)) for every job, in order of completion; workers import `function`."""
        ...


@dataclass(frozen=True)
class Here:
    """This process, one job after the other."""

    def check(self) -> None:
        pass

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            yield job, on_one_thread(function, shared, job)


@dataclass(frozen=True)
class Pool:
    """Processes of this machine, which share its cores. They end with the iteration, also after an error."""

    workers: int = 1

    def check(self) -> None:
        pass

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        if not jobs:
            return
        context, existing = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_begin, initargs=(function, shared)
        ) as pool:
            with _deaf_to_interrupts():
                futures = {pool.submit(_job, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise WorkerError(
                    "A process that did a part of the work died: it was killed, or there was too little "
                    "memory. A second run goes on where this one stopped; use fewer workers if memory is "
                    "short.",
                    hint="Run the same command again, if memory is short with fewer --workers.",
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in set(multiprocessing.active_children()) - existing:
                    worker.terminate()
                raise


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster (`pip install headwater[ray]`): Ray places the jobs, and repeats the jobs of a lost node.

    A job takes a core and `gpus` of a GPU, which may be a fraction: 0.25 lets four jobs share one.
    """

    address: str
    gpus: float = 0

    def check(self) -> None:
        _ray(self.address)

    def work(self, function: Function, shared: Any, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        ray = _ray(self.address)
        remote = ray.remote(on_one_thread).options(num_cpus=1, num_gpus=self.gpus, max_retries=-1)
        reference = ray.put(shared)
        waiting = {remote.remote(function, reference, job): job for job in jobs}
        try:
            while waiting:
                (finished,), _ = ray.wait(list(waiting), num_returns=1)
                try:
                    result = ray.get(finished)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, UserError) else error) from None
                yield waiting.pop(finished), result
        finally:
            for future in waiting:
                ray.cancel(future, force=True)


def _ray(address: str) -> Any:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError as error:
        raise OptionError(
            "A cluster needs Ray, which is not installed: pip install 'headwater[ray]'."
        ) from error
    if not ray.is_initialized():
        try:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise OptionError(
                f"There is no Ray cluster at {address}: {error}. Start one with `ray start --head`."
            ) from error
    return ray


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, which is for their parent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _knock(address: str) -> None:
    """Raise a ConnectionError if nothing answers at host:port; Ray itself would wait many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    if not port.isdigit():
        raise ConnectionError("expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(str(error)) from error


Result = TypeVar("Result")

_work: tuple[Function, Any] | None = None


def _begin(function: Function, shared: Any) -> None:
    """Set up a new process, which ends with its parent, also if that is killed."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _work = function, shared


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _job(job: Any) -> Any:
    assert _work is not None
    return on_one_thread(*_work, job)


def on_one_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)` with one torch thread: its last bits do not depend on the number of cores."""
    torch = sys.modules.get("torch")  # a function that needs it has imported it
    if torch is None:
        return function(*arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(before)


def ahead(items: Iterable[Result]) -> Iterator[Result]:
    """The items in order, the next of which a thread makes while the last is used.

    An error is raised in the place of the item that it prevented. The thread ends with the iteration."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, iterator, end)
            yield item  # pyright: ignore[reportReturnType]


def in_order(results: Iterable[tuple[slice, Result]], parts: Sequence[slice]) -> Iterator[Result]:
    """The results in the order of `parts`, whatever the order in which they arrive."""
    waiting: dict[int, Result] = {}
    following = 0
    for part, result in results:
        waiting[part.start] = result
        while following < len(parts) and parts[following].start in waiting:
            yield waiting.pop(parts[following].start)
            following += 1
