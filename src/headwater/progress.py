"""A progress bar on stderr: how much is done, how fast, how long still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields tick(done, total). The bar appears at the first tick; a new total begins a new bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: list[tuple[int, int]] = []

        def tick(done: int, total: int) -> None:
            if not tasks or tasks[-1][1] != total:
                tasks.append((progress.add_task(title, total=total), total))
            progress.update(progress.task_ids[-1], completed=done)

        yield tick
