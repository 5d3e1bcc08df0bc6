"""`archiver sums`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import click

from archiver.archive.copies import is_within
from archiver.cli.compose import check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.exporting import choice_of, selection_options
from archiver.cli.output import printable
from archiver.config import Settings
from archiver.errors import UsageError
from archiver.evidence.bag.choosing import Choice, recorded_files
from archiver.evidence.bag.folder import NewFile, writing


@click.command(short_help="Print SHA256SUMS of what is recorded, as sha256sum checks it.")
@selection_options
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="A new file. Default: print it.")
@click.pass_context
def command(ctx: click.Context, /, output: Path | None, **options: Any) -> None:
    """Print a line for each recorded file, its recorded SHA-256 and its key in the store: in the root folder of the store, or of
    a copy of it, `sha256sum --check` holds the files against them. Without options of all that is recorded.

    It is as the database has it: `audit` and `export` prove it.

    Exit codes: 0 printed; 1 fatal; 2 usage or configuration.
    """
    settings = settings_of(ctx)
    choice = choice_of(settings, options)
    if output is not None and settings.storage.url.startswith("file:") and is_within(output, settings.storage.folder):
        raise UsageError(
            f"{output} lies in the archive's own store", hint="choose a place elsewhere: `sha256sum` finds it there, too"
        )
    with lines_to(output) as write:
        lines = run_async(_sums(settings, choice, write))
    if not lines:
        for bot in choice.chosen.bots:
            check_bot_was_meant(settings, bot, 0)


async def _sums(settings: Settings, choice: Choice, write: Callable[[bytes], object]) -> int:
    lines = 0
    async with opened_database(settings, writes=False) as database, aclosing(recorded_files(database, choice)) as pages:
        async for page in pages:
            write(b"".join(sum_line(file.sha256, file.store_key) for file in page))
            lines += len(page)
    return lines


def sum_line(sha256: str, name: str) -> bytes:
    """As `sha256sum` writes it: a line with a backslash or an end of line in its name begins with a backslash."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return os.fsencode(f"{'' if escaped == name else chr(92)}{sha256}  {escaped}\n")


@contextmanager
def lines_to(output: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Where lines go: to a new file, or standard output."""
    if output is None:
        if sys.stdout.isatty():  # keys may come from rows that others wrote
            yield lambda lines: click.echo(printable(lines.decode(errors="replace"), keep="\n"), nl=False)
        else:
            yield lambda lines: click.echo(lines, nl=False)
        return
    with writing(output):
        file = NewFile(output)
        try:
            yield file.write
            file.save()
        except BaseException:  # a part of it would look like all of it
            output.unlink(missing_ok=True)
            raise
        finally:
            file.close()
