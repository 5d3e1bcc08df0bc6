"""What people, and programs, are told of a verify while it runs and at its end."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

import click

from archiver.cli.output import console, printable, safe, size
from archiver.errors import ArchiverError
from archiver.evidence.verify import Verified
from archiver.observe.redact import redact_value
from archiver.queue.findings import NEXT_FOR_DAMAGED, DamagedSessions

if TYPE_CHECKING:  # rich is imported when something is drawn
    from rich.progress import Progress

IN_MEMORY = 8 << 20
"""Bytes of findings that are kept in memory for the document at the end; more go to a temporary file."""

_NO_WRITES = "the database takes no writes from this role"


class Telling:
    """One run. People are told of each finding as it comes; a program gets one document at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.files = self.equal = self.bytes = 0
        self.store_problem = ""
        self.kept = False
        self.news = 0
        """Files that are wrong in a way that was not known before; 0 where nothing is kept."""
        self.damaged: DamagedSessions | None = None
        """What is known to be wrong at the end, of what was chosen; None: nobody could be asked."""
        self._findings = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, mode="w+")  # noqa: SIM115  # __exit__ closes it
        self._progress: Progress | None = None
        self._out = console()

    @property
    def complete(self) -> bool:
        """Nothing that was read, or is known, is wrong, unless somebody accepted it."""
        if self.damaged is None:
            return self.files == self.equal
        return not self.damaged.open and (self.files == self.equal or (self.kept and self.damaged.accepted > 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._findings.close()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Show on a terminal how far it is."""
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        errors = Console(stderr=True)
        columns = TextColumn("{task.description} {task.completed:,} files, {task.fields[read]}"), TimeElapsedColumn()
        quiet = self._as_json or not errors.is_terminal
        with Progress(*columns, console=errors, transient=True, disable=quiet) as progress:
            progress.add_task("verifying", total=None, read="")
            self._progress = None if quiet else progress
            try:
                yield
            finally:
                self._progress = None

    def on_file(self, file: Verified) -> None:
        """It was read."""
        self.files += 1
        self.bytes += file.bytes_read
        if file.verdict == "equal":
            self.equal += 1
        else:
            self._find(file)
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self.files, read=size(self.bytes))

    def _find(self, file: Verified) -> None:
        if self._as_json:
            try:
                self._findings.write(json.dumps(redact_value(asdict(file))) + "\n")
            except OSError as error:
                raise ArchiverError(
                    f"what was found cannot be kept in a temporary file until the end: {error.strerror}",
                    hint="free disk space, set TMPDIR to a folder that has some, or leave out --json",
                ) from None
            return
        if self._progress is not None:
            self._progress.stop()
        why = file.message
        if file.verdict == "missing":  # which is all that its message says; the record tells whoever has a backup
            why = f"recorded {file.bytes_recorded} bytes {file.sha256_recorded}"
        self._out.print(f"{file.verdict}: {safe(file.store_key)}: {safe(why)}", soft_wrap=True)
        if self._progress is not None:
            self._progress.start()

    def end(self, *, stopped: bool = False, goes_on: str | None = None) -> None:
        """That is all. `stopped`: by a signal; `goes_on`: the command that reads the rest."""
        if self._as_json:
            self._print_document(stopped, goes_on)
        else:
            self._out.print(f"{self.equal:,} of {self.files:,} files equal, {size(self.bytes)} read")
            if self.store_problem:
                click.echo(f"warning: {printable(self.store_problem)}", err=True)
        if not self.kept:
            why = "this is not known to be the archive's store" if self.store_problem else _NO_WRITES
            click.echo(f"note: what was found is not kept for `archiver repair`: {why}; nor is when it was read", err=True)
        if stopped and goes_on is not None:
            click.echo(f"stopped: `{printable(goes_on)}` goes on", err=True)
        if not self._as_json:
            self._say_what_is_known()

    def _say_what_is_known(self) -> None:
        if self.damaged is None:
            some = self.kept and self.files != self.equal
        else:
            some = self.damaged.open > 0
            if some:
                new = "nothing new was found; " if self.kept and not self.news else ""
                click.echo(f"{new}{self.damaged.told}", err=True)
            elif self.kept and self.files != self.equal and self.damaged.accepted:
                click.echo("nothing new was found; all of it is accepted", err=True)
        if some:
            click.echo(f"next: {NEXT_FOR_DAMAGED}", err=True)

    def _print_document(self, stopped: bool, goes_on: str | None) -> None:
        head = {
            "files": self.files,
            "equal": self.equal,
            "bytes": self.bytes,
            "store_problem": self.store_problem,
            "findings_kept": self.kept,
            "new": self.news if self.kept else None,
            "damaged": None if self.damaged is None else self.damaged.as_document(),
            "stopped": stopped,
            "goes_on": goes_on,
        }
        text = json.dumps(redact_value(head), indent=2).removesuffix("\n}")
        click.echo(f'{text},\n  "findings": [', nl=False)
        self._findings.seek(0)
        separator = "\n    "
        for line in self._findings:
            click.echo(f"{separator}{line.rstrip()}", nl=False)
            separator = ",\n    "
        click.echo("]\n}" if separator == "\n    " else "\n  ]\n}")
