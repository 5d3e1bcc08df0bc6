"""How far a long command is, on a terminal, and how one is stopped between what it does in batches."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from archiver.errors import ArchiverError


@contextmanager
def counting(what: str, *, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """What is told is shown: what is being counted, and how many of it there are. Nothing where standard error is no terminal,
    where rich is not even imported.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _what, _count: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description} {task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda what, count: progress.update(task, description=what, completed=count)


class _Stopped(Exception):  # as asked
    pass


async def changed_in_batches(
    work: Callable[[Callable[[Sequence[str]], None]], Coroutine[Any, Any, object]], *, doing: str, done: str, quiet: bool
) -> list[str]:
    """What `work` changed: it is given what to call with the IDs of each batch once that is committed. A signal ends it after
    the batch at hand, and is told how many were `done`; a second one at once.
    """
    changed: list[str] = []
    stopped = False
    with counting(doing, quiet=quiet) as show:

        def on_batch(ids: Sequence[str]) -> None:
            changed.extend(ids)
            show(doing, len(changed))
            if stopped:
                raise _Stopped

        task = asyncio.create_task(work(on_batch))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            stopped = True
            try:
                await task
            except _Stopped:
                pass
            finally:
                click.echo(f"interrupted: {len(changed):,} {done}; the same again goes on with the others", err=True)
            raise
        except ArchiverError as error:
            if changed:
                error.hint = f"{len(changed):,} {done} before; the same again goes on with the others. {error.hint}"
            raise
    return changed
