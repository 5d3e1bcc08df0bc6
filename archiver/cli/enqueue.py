"""`archiver enqueue`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import select
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click

from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, opened, run_async, settings_of
from archiver.cli.output import json_option, print_json, printable
from archiver.config import Settings
from archiver.errors import UsageError
from archiver.observe.redact import MAX_TEXT, redact, redact_value
from archiver.queue.sessions import NewSession
from archiver.session import MAX_METADATA, MAX_USER_ID, SESSION_ID_ALPHABET

BATCH = 1000
SHOWN = 20
"""Rejected lines that are printed; --json lists them all."""

MAX_LINE = 1_000_000
"""Bytes of a line; a longer one is rejected without being read into memory."""

KINDS = ("recording", "voicemail")
PRIORITIES = ("high", "normal", "low")


@dataclass(frozen=True)
class Rejected:
    """A line that was not enqueued, and why. Line 0: a command-line argument."""

    line: int
    value: str
    why: str


@dataclass
class Report:
    """What became of every line. new + known + rejected is what was given."""

    new: int = 0
    known: int = 0
    raised: int = 0
    rejected: list[Rejected] = field(default_factory=list)


class LineError(ValueError):
    """A line that cannot be enqueued."""


@click.command(short_help="Add sessions to the queue: arguments, a file, or standard input.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--bot", type=TEXT, help="The bot of these sessions; may be left out where one is configured.")
@click.option("--kind", type=click.Choice(KINDS), default="recording", show_default=True)
@click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True,
              help="A known session that still waits is raised, never lowered.")  # fmt: skip
@click.option("--file", "file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False), metavar="FILE|-",
              help="One ID a line, or CSV with a header that has session_id.")  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx: click.Context, ids: tuple[str, ...], bot: str | None, kind: str, priority: str, file: Path | None, as_json: bool
) -> None:
    """Add sessions to the queue. Known ones are left as they are.

    A CSV may have the columns session_id, bot, kind, priority, user_id, started_at and ended_at (ISO 8601, UTC if without a
    zone); every other column is kept in the session's metadata. Each record stands on one line. A session whose end is known is
    asked for when its recording is likely to be ready.

    Exit codes: 0 every line is in the queue; 1 fatal; 2 usage or configuration; 3 some lines were rejected, the others are in.
    """
    settings = settings_of(ctx)
    if not ids and file is None:
        if sys.stdin.isatty():
            raise UsageError("no session named", hint="give IDs, or --file FILE, or --file - for standard input")
        file = Path("-")
    default = _Default(_default_bot(settings, bot), kind, priority)
    report = run_async(_enqueue(settings, default, ids, file))
    if as_json:
        print_json(
            {
                "new": report.new,
                "known": report.known,
                "raised": report.raised,
                "rejected": [{"line": r.line or None, "value": r.value, "why": r.why} for r in report.rejected],
            }
        )
    else:
        raised = f" ({report.raised} of them raised to {priority})" if report.raised else ""
        click.echo(f"{report.new} new, {report.known} already known{raised}, {len(report.rejected)} rejected")
        for rejected in report.rejected[:SHOWN]:
            where = f"line {rejected.line}" if rejected.line else "argument"
            click.echo(f"rejected {where}: {printable(rejected.why)}: {printable(repr(rejected.value))}", err=True)
        if len(report.rejected) > SHOWN:
            click.echo(f"... and {len(report.rejected) - SHOWN} more (--json lists them all)", err=True)
    if report.rejected:
        raise Incomplete


@dataclass(frozen=True)
class _Default:
    bot: str | None
    kind: str
    priority: str


def _default_bot(settings: Settings, name: str | None) -> str | None:
    """None: only a file's own bot column can say."""
    if name is not None:
        return settings.bot(name).name if settings.bots else name
    return settings.bots[0].name if len(settings.bots) == 1 else None


async def _enqueue(settings: Settings, default: _Default, ids: tuple[str, ...], file: Path | None) -> Report:
    report = Report()
    async with opened(settings) as (_, queue):
        with _source(file) as lines:
            records = _accepted(settings, default, ids, lines, report)
            # Off the loop: a producer that is silent must not keep a signal from being heard.
            while batch := await asyncio.to_thread(lambda: list(islice(records, BATCH))):
                new, raised = await queue.enqueue(batch, actor=actor())
                report.new += new
                report.known += len(batch) - new
                report.raised += raised
    return report


class _StandardInput(io.RawIOBase):
    """Standard input that ends when it is left, also for a thread that waits for its next line."""

    def __init__(self) -> None:
        self._left = threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left.is_set():
            if select.select([0], [], [], 0.2)[0]:
                data = os.read(0, len(buffer))
                buffer[: len(data)] = data
                return len(data)
        return 0

    def leave(self) -> None:
        """Have whoever reads see the end."""
        self._left.set()


@contextmanager
def _source(file: Path | None) -> Iterator[Iterable[bytes | None]]:
    if file is None:
        yield ()
    elif str(file) == "-":
        source = _StandardInput()
        try:
            yield _lines(io.BufferedReader(source))
        finally:
            source.leave()
    else:
        try:
            with file.open("rb") as opened_file:
                yield _lines(opened_file)
        except OSError as error:
            raise UsageError(f"--file {file}: {error.strerror}", hint="name a readable file, or - for standard input") from None


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines of bounded length, None in place of a longer one: a line of a gigabyte must not fill the memory."""
    while line := stream.readline(MAX_LINE):
        whole = line
        while not line.endswith(b"\n") and len(line) == MAX_LINE:
            line = stream.readline(MAX_LINE)
        yield whole if line is whole else None


def _accepted(
    settings: Settings, default: _Default, ids: tuple[str, ...], lines: Iterable[bytes | None], report: Report
) -> Iterator[NewSession]:
    """What can be enqueued, in order; the rest goes to the report."""
    for value in ids:
        try:
            yield _session(settings, default, {"session_id": value}, exactly=True)
        except LineError as error:
            report.rejected.append(Rejected(0, redact(value)[:200], str(error)))
    header: list[str] | None = None
    first = True
    for number, raw in enumerate(lines, 1):
        if raw is None:
            first = False
            report.rejected.append(Rejected(number, "", f"longer than {MAX_LINE:,} bytes"))
            continue
        text = raw.rstrip(b"\r\n")
        line = ""
        try:
            line = text.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if first:
                first = False
                header = _header(_fields(line), number)
                if header is not None:
                    continue
            record = {"session_id": line.strip()} if header is None else _record(header, _fields(line))
            yield _session(settings, default, record)
        except UnicodeDecodeError:
            report.rejected.append(Rejected(number, redact(text.decode("utf-8", "replace"))[:200], "not UTF-8"))
        except LineError as error:
            report.rejected.append(Rejected(number, redact(line)[:200], str(error)))


def _header(fields: list[str], number: int) -> list[str] | None:
    """The columns of a CSV, or None for a first line that is no header. Raises UsageError."""
    # The platform's own exports spell it sessionId.
    spelt = {"sessionid": "session_id", "session id": "session_id"}
    names = [spelt.get(name.strip().lower(), name.strip().lower()) for name in fields]
    if "session_id" not in names:
        return None
    if len(set(names)) != len(names):
        raise UsageError(f"line {number}: the CSV's header has a column twice", hint="rename one of them")
    return names


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line), strict=True))
    except (csv.Error, StopIteration) as error:
        raise LineError(f"broken CSV: {error}") from None


def _record(header: list[str], values: list[str]) -> dict[str, str]:
    if len(values) != len(header):
        raise LineError(f"{len(values)} fields, the header has {len(header)}")
    return dict(zip(header, values, strict=True))


def _session(settings: Settings, default: _Default, record: dict[str, str], *, exactly: bool = False) -> NewSession:
    values = {key: value.strip() for key, value in record.items()}
    stripped = values.pop("session_id")
    session_id = record["session_id"] if exactly else stripped
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", session_id):
        raise LineError(f"not a session ID ({SESSION_ID_ALPHABET})")
    bot = values.pop("bot", "") or default.bot
    if bot is None and "bot" in record:
        raise LineError("no bot, and several are configured" if settings.bots else "no bot")
    if bot is None:
        known = ", ".join(b.name for b in settings.bots)
        raise UsageError(
            "which bot?",
            hint=f"name it with --bot: {known}" if known else "no bot is configured: name it with --bot, or configure it",
        )
    if settings.bots and bot not in {b.name for b in settings.bots}:
        raise LineError(f"unknown bot {redact(bot)[:100]!r}")
    kind = values.pop("kind", "") or default.kind
    if kind not in KINDS:
        raise LineError(f"unknown kind {redact(kind)[:100]!r} (recording or voicemail)")
    priority = values.pop("priority", "") or default.priority
    if priority not in PRIORITIES:
        raise LineError(f"unknown priority {redact(priority)[:100]!r} (high, normal or low)")
    user_id = values.pop("user_id", "") or None
    if user_id is not None and (len(user_id) > MAX_USER_ID or not user_id.isprintable()):
        raise LineError(f"a user_id of more than {MAX_USER_ID} or of unprintable characters")
    started_at, ended_at = (_instant(key, values.pop(key, "")) for key in ("started_at", "ended_at"))
    metadata = {key: value for key, value in values.items() if key and value}
    if (size := len(json.dumps(metadata, ensure_ascii=False).encode())) > MAX_METADATA:
        raise LineError(f"metadata (all other columns) of {size:,} bytes, at most {MAX_METADATA:,}")
    if (longest := max(map(len, metadata.values()), default=0)) > MAX_TEXT:
        raise LineError(f"a column of {longest:,} characters, at most {MAX_TEXT:,}")
    # The platform's own exports may hold signed URLs.
    return NewSession(bot, session_id, kind, priority, user_id, started_at, ended_at, redact_value(metadata))


def _instant(key: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise LineError(f"{key} {redact(text)[:100]!r} is not ISO 8601") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if not 1 < found.year < 9999:  # at the ends of time another zone's instant cannot be told
        raise LineError(f"{key} {redact(text)[:100]!r} is no time of a call")
    return found
