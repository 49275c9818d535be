"""A progress bar on stderr: how much is done, how fast, how long still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as Left
from rich.text import Text


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """The rate in words; nothing until it is known."""
        return Text(f"{task.speed:.3g}/s" if task.speed else "")


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Left(),
    )


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields tick(finished, total). The bar appears at the first tick; a new total begins a new bar."""
    console = Console(stderr=True)
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as progress:
        tasks: list[tuple[int, int]] = []

        def tick(finished: int, total: int) -> None:
            if not tasks or tasks[-1][1] != total:
                tasks.append((progress.add_task(title, total=total), total))
            progress.update(progress.task_ids[-1], completed=finished)

        yield tick
