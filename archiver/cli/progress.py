"""How far a long command is, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, TextColumn, TimeElapsedColumn


@contextmanager
def counting(what: str, *, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """What is told is shown: what is being counted, and how many of it there are. Nothing where standard error is no terminal."""
    from rich.console import Console

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description} {task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda what, count: progress.update(task, description=what, completed=count)
