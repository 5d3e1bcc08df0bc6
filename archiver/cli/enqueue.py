"""`archiver enqueue`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import click

from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, opened, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.cli.progress import counting
from archiver.cli.session_files import LineError, Record, open_lines, read_records
from archiver.cli.session_records import KINDS, PRIORITIES, Default, Judge
from archiver.cli.spool import Spool
from archiver.config import Settings
from archiver.errors import DatabaseError, UsageError
from archiver.observe.redact import redact
from archiver.postgres.database import Database
from archiver.queue.enqueueing import Preview, enqueue_all
from archiver.queue.sessions import NewSession, Queue

BATCH = 1000

SHOWN = 20
"""Reasons and rejected arguments that are printed; --json lists every line."""

NUMBERS_SHOWN = 10
"""Of the lines that are rejected for one reason."""


Show = Callable[[str, int], None]


@dataclass(frozen=True)
class Rejected:
    """A line that was not enqueued, and why. Line 0: a command-line argument."""

    line: int
    value: str
    why: str


@dataclass
class Group:
    """Lines that are rejected for the same reason: the first of them, some of their numbers, and how many there are."""

    first: Rejected
    lines: list[int] = field(default_factory=list)
    count: int = 0


@dataclass
class Report:
    """What became of every line. new + known + rejected is what was given; `known` includes those raised. `every` has each
    rejected line, if `keep_every` says so: there may be millions.
    """

    keep_every: bool
    new: int = 0
    known: int = 0
    raised: int = 0
    rejected: int = 0
    accepted: int = 0
    every: list[Rejected] = field(default_factory=list)
    groups: dict[object, Group] = field(default_factory=dict)

    def reject(self, line: int, value: str, error: LineError) -> None:
        """Count a line that cannot be enqueued."""
        self.rejected += 1
        rejected = Rejected(line, redact(value)[:200], str(error))
        if self.keep_every:
            self.every.append(rejected)
        # Arguments are few, and have no numbers: each is named.
        group = self.groups.setdefault(error.group if line else self.rejected, Group(rejected))
        group.count += 1
        if len(group.lines) < NUMBERS_SHOWN:
            group.lines.append(line)

    def count(self, given: int, new: int, raised: int) -> None:
        """Count lines that are in the queue, or would be."""
        self.new += new
        self.known += given - new
        self.raised += raised


@dataclass(frozen=True)
class _Way:
    """How to enqueue."""

    dry_run: bool
    all_or_nothing: bool


@click.command(short_help="Add sessions to the queue: arguments, a file, or standard input.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--bot", type=TEXT, help="The bot of these sessions; may be left out where one is configured.")
@click.option("--kind", type=click.Choice(KINDS), default="recording", show_default=True)
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True,
              help="A known session that still waits is raised, never lowered.")  # fmt: skip
@click.option("--file", "file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), metavar="FILE|-",
              help="One ID a line, or CSV with a header that has session_id.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be new, known, raised and rejected.")
@click.option("--all-or-nothing", is_flag=True, help="Enqueue nothing if a line is rejected, or the database fails half-way.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ids: tuple[str, ...],
    bot: str | None,
    kind: str,
    priority: str,
    file: Path | None,
    dry_run: bool,
    all_or_nothing: bool,
    as_json: bool,
) -> None:
    """Add sessions to the queue. Known ones are left as they are.

    A CSV may have the columns session_id, bot, kind, priority, user_id, started_at and ended_at (ISO 8601, UTC if without a
    zone); every other column is kept in the session's metadata. Each record stands on one line; commas, semicolons or tabs
    separate the columns, as the header does. A session whose end is known is asked for when its recording is likely to be ready.

    Exit codes: 0 every line is in the queue; 1 fatal; 2 usage or configuration, or with --all-or-nothing a rejected line: nothing
    was enqueued; 3 some lines were rejected, the others are in.
    """
    settings = settings_of(ctx)
    if not ids and file is None:
        if sys.stdin.isatty():
            raise UsageError("no session named", hint="give IDs, or --file FILE, or --file - for standard input")
        file = Path("-")
    default = Default(_default_bot(settings, bot), kind, priority)
    report, way = Report(keep_every=as_json), _Way(dry_run, all_or_nothing)
    with counting("lines", quiet=as_json) as show:
        run_async(_enqueue(settings, default, ids, file, way, report, show))
    if as_json:
        _print_document(report, way)
    else:
        _print(report, way, priority)
    if report.rejected and all_or_nothing:
        raise UsageError(
            f"nothing was enqueued: {report.rejected:,} of {report.rejected + report.accepted:,} lines cannot be",
            hint="correct or remove them; without --all-or-nothing the others are enqueued",
        )
    if report.rejected:
        raise Incomplete


def _print_document(report: Report, way: _Way) -> None:
    counts = {"new": report.new, "known": report.known, "raised": report.raised}
    if way.dry_run:
        counts = dict.fromkeys(counts, 0) | {f"would_be_{name}": count for name, count in counts.items()}
    print_json({**counts, "rejected": [{"line": r.line or None, "value": r.value, "why": r.why} for r in report.every]})


def _print(report: Report, way: _Way, priority: str) -> None:
    raised = f" ({report.raised} of them raised to {priority})" if report.raised else ""
    counts = f"{report.new} new, {report.known} already known{raised}, {report.rejected} rejected"
    click.echo(f"would be: {counts}; nothing was changed" if way.dry_run else counts)
    groups = list(report.groups.values())
    for group in groups[:SHOWN]:
        why = f'{printable(group.first.why)}: "{printable(group.first.value)}"'
        if group.count == 1:
            click.echo(f"rejected {f'line {group.first.line}' if group.first.line else 'argument'}: {why}", err=True)
        else:
            lines = ", ".join(map(str, group.lines)) + (", ..." if group.count > len(group.lines) else "")
            click.echo(f"rejected {group.count:,} lines ({lines}), such as line {group.first.line}: {why}", err=True)
    if len(groups) > SHOWN:
        more = sum(group.count for group in groups[SHOWN:])
        click.echo(f"... and {more:,} more (--json lists them all)", err=True)
    elif any(group.count > len(group.lines) for group in groups):
        click.echo("(--json lists every line)", err=True)


def _default_bot(settings: Settings, name: str | None) -> str | None:
    """None: only a file's own bot column can say."""
    if name is not None:
        return settings.bot(name).name if settings.bots else name
    return settings.bots[0].name if len(settings.bots) == 1 else None


async def _enqueue(
    settings: Settings, default: Default, ids: tuple[str, ...], file: Path | None, way: _Way, report: Report, show: Show
) -> None:
    async with opened(settings, writes=not way.dry_run) as (database, queue):
        judge = Judge(settings, default, await queue.clock())
        with ExitStack() as stack:
            records: Iterator[Record] = iter(())
            if file is not None:
                records = read_records(stack.enter_context(open_lines(file)))
                # Off the loop: a producer that is silent must not keep a signal from being heard. The first one now, so that
                # arguments are not enqueued beside a file that is refused as a whole.
                first = await asyncio.to_thread(lambda: list(islice(records, 1)))
                records = chain(first, records)
            sessions = _accepted(judge, ids, records, report)
            if way.all_or_nothing and not way.dry_run:
                await _enqueue_all(database, sessions, report, show)
            else:
                await _enqueue_each(database, queue, sessions, way, report, show)


async def _enqueue_each(
    database: Database, queue: Queue, sessions: Iterator[NewSession], way: _Way, report: Report, show: Show
) -> None:
    """A batch at a time, each for itself."""
    preview = Preview(database)
    while batch := await asyncio.to_thread(lambda: list(islice(sessions, BATCH))):
        try:
            new, raised = await preview.look(batch) if way.dry_run else await queue.enqueue(batch, actor=actor())
        except asyncio.CancelledError:
            if not way.dry_run and (done := report.new + report.known):
                click.echo(f"interrupted: {done:,} lines are in the queue; the same again goes on with the others", err=True)
            raise
        except DatabaseError as error:
            if not way.dry_run and (done := report.new + report.known):
                error.hint = (
                    f"{done:,} lines are in the queue; run the same again, known sessions are left as they are. {error.hint}"
                )
            raise
        report.count(len(batch), new, raised)
        show("looked at" if way.dry_run else "in the queue", report.new + report.known)


async def _enqueue_all(database: Database, sessions: Iterator[NewSession], report: Report, show: Show) -> None:
    """Everything in one transaction, which is opened only when every line is judged: a slow producer must not keep it open."""
    with Spool() as spool:
        while batch := await asyncio.to_thread(lambda: list(islice(sessions, BATCH))):
            await asyncio.to_thread(spool.keep, batch)
            show("judged", report.accepted)
        if not report.rejected and report.accepted:
            new, raised = await enqueue_all(database, spool.batches, actor=actor())
            report.count(report.accepted, new, raised)


def _accepted(judge: Judge, ids: tuple[str, ...], records: Iterator[Record], report: Report) -> Iterator[NewSession]:
    """What can be enqueued, in order; the rest goes to the report."""
    for record in chain((Record(0, value, {"session_id": value}) for value in ids), records):
        if record.values is None:
            assert record.error is not None
            report.reject(record.line, record.text, record.error)
            continue
        try:
            session = judge.session(record.values, exactly=not record.line)
        except LineError as error:
            report.reject(record.line, record.text, error)
        else:
            report.accepted += 1
            yield session
