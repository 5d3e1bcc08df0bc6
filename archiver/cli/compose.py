"""The composition root: settings, database and queue, built here and passed on; there are no globals.

What speaks HTTP is built in `serving`, so that the many commands that don't answer sooner.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.cli.output import moment
from archiver.config import Settings, load, parse_duration
from archiver.errors import UsageError
from archiver.observe import logs
from archiver.postgres.database import Database, open_database
from archiver.postgres.migrate import migrate
from archiver.postgres.schema import check_version
from archiver.runtime.event_loop import loop_factory

if TYPE_CHECKING:  # imported when it is made: most commands that a person waits for need none
    from archiver.queue.sessions import Queue

log = logs.logger(__name__)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


NO_BOT = "add a [[bots]] block to the configuration; `archiver init` writes one that has such a block"


def settings_of(ctx: click.Context) -> Settings:
    """Load the configuration that the command line names, and set up the logs. Raises ConfigError."""
    settings = load(ctx.obj["config"])
    level = ctx.obj["log_level"]
    logs.configure(level=level or settings.log.level, form=settings.log.format)
    if settings.source == "defaults":
        click.echo(
            f"no configuration: using the embedded database in {settings.database.embedded_path} "
            f"and the store {settings.storage.folder} (`archiver init` writes a configuration)",
            err=True,
        )
    return settings


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C, SIGTERM and SIGHUP cancel it, and it cleans up: exit codes 130, 143 and 129."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_terminable(main))


_on_ending_signal: ContextVar[Callable[[int], None]] = ContextVar("what such a signal does, unless something else is put there")


_on_hangup: ContextVar[Callable[[], None] | None] = ContextVar("what SIGHUP does, if it ends nothing", default=None)


def reload_on_hangup(reload: Callable[[], None]) -> None:
    """Have SIGHUP call this from now on, and end nothing until the process ends."""
    _on_hangup.set(reload)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def tolerate_hangup() -> None:
    """Have SIGHUP do nothing from now on."""

    def nothing(_number: int, _frame: Any) -> None:
        pass

    signal.signal(signal.SIGHUP, nothing)


def ending_signals() -> list[signal.Signals]:
    """Those that end a command beside SIGINT. A terminal that goes away sends SIGHUP; `nohup` has it ignored."""
    spared = _on_hangup.get() is not None or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if spared else [signal.SIGTERM, signal.SIGHUP]


def restore_signals() -> None:
    """Let signals end the command again, after something else was put in their place."""
    loop = asyncio.get_running_loop()
    loop.remove_signal_handler(signal.SIGINT)
    for number in ending_signals():
        loop.add_signal_handler(number, _on_ending_signal.get(), number)


async def _terminable(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        task.cancel()

    # Process 1 of a container has no default action for it: without this, `docker stop` would wait and then kill.
    _on_ending_signal.set(on_signal)
    restore_signals()
    try:
        return await main
    except asyncio.CancelledError:
        if received:
            raise click.exceptions.Exit(128 + received[0]) from None
        raise
    finally:
        if _on_hangup.get() is not None:  # the loop takes its handlers with it, and the process ends later
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
            tolerate_hangup()


def actor() -> str:
    """Who is doing this, for the history: account and host. Not LOGNAME and the like: anybody can set these to another name.
    A container may run as a number that has no name there.
    """
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = f"uid {os.geteuid()}"
    return f"{user}@{socket.gethostname()}"


class Text(click.ParamType[str]):
    """Text that the database can hold."""

    name = "TEXT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("must be UTF-8", param, ctx)
        return value


TEXT = Text()


class _Duration(click.ParamType[timedelta]):
    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)


DURATION = _Duration()


class _Moment(click.ParamType[datetime]):
    """A moment, of no zone UTC; a date alone is its first moment."""

    name = "TIME"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f'"{value}" must be an ISO 8601 date or date-time, such as 2026-03-31 or 2026-03-31T08:00:00+02:00 (without an '
                "offset it is UTC)",
                param,
                ctx,
            )


MOMENT = _Moment()


def time_options(what: str) -> Callable[[F], F]:
    """--since and --until, of `what`."""

    def add(command: F) -> F:
        until = click.option("--until", type=MOMENT, help=f"Only those {what} before this moment.")
        help_ = f"Only those {what} at this moment or later: ISO 8601, UTC unless it has an offset."
        since = click.option("--since", type=MOMENT, help=help_)
        return since(until(command))

    return add


def check_times(since: datetime | None, until: datetime | None) -> None:
    """A time span that nothing can lie in is a slip. Raises UsageError."""
    if since is not None and until is not None and since >= until:
        raise UsageError(
            f"--until {moment(until)} must be after --since {moment(since)}",
            hint="--until is the first moment that no longer counts: for a whole day, name the next day",
        )


def bot_option(settings: Settings, name: str | None) -> str | None:
    """The bot that --bot names, checked against the configuration. Raises ConfigError."""
    if name is not None and settings.bots:
        settings.bot(name)
    return name


def check_bot_was_meant(settings: Settings, name: str | None, found: int) -> None:
    """Rows may name a bot that no configuration knows (any more): --bot chooses them all the same. If there are none of it, it
    was a slip. Raises ConfigError.
    """
    if not found:
        bot_option(settings, name)


@asynccontextmanager
async def opened_database(settings: Settings, *, pool_size: int = 4, writes: bool = True) -> AsyncIterator[Database]:
    """The database, at a version that this program works with. An embedded one is ours alone, so it is migrated on the way. What
    only reads (not `writes`) takes a standby, too.
    """
    async with open_database(settings.database, pool_size=pool_size, writes=writes) as database:
        if settings.database.embedded_path is not None and await migrate(database):
            # Later on only `migrate` and a worker's start say which bots there are: a look with another file must not.
            await _queue_of(database, settings).record_bots([bot.name for bot in settings.bots], complete=True)
        (await check_version(database)).log()
        if not writes and await database.reads_standby():
            log.warning("standby_read", hint="what it has may be older than what the primary has")
        yield database


@asynccontextmanager
async def opened(settings: Settings, *, pool_size: int = 4, writes: bool = True) -> AsyncIterator[tuple[Database, Queue]]:
    """The same, and the queue in it."""
    async with opened_database(settings, pool_size=pool_size, writes=writes) as database:
        yield database, _queue_of(database, settings)


def _queue_of(database: Database, settings: Settings) -> Queue:
    from archiver.queue.sessions import Queue

    return Queue(database, settings.retry)


def bot_or_all(settings: Settings, name: str | None, everything: bool, *, command: str) -> str | None:
    """The bot that --bot names, or None for --all; naming neither is a mistake, not a wish for all. Raises UsageError or
    ConfigError.
    """
    if name is not None and everything:
        raise UsageError("--bot and --all exclude each other", hint="name one bot with --bot, or all of them with --all")
    if name is None and not everything:
        known = ", ".join(bot.name for bot in settings.bots)
        raise UsageError(
            "no bot named",
            hint=f"archiver {command} --bot NAME" + (f" ({known})" if known else "") + f", or archiver {command} --all",
        )
    return bot_option(settings, name)


def read_session_ids(ids: tuple[str, ...], everything: bool) -> list[str] | None:
    """Session IDs as given, or None for all of them; naming neither is a mistake, not a wish for everything."""
    if ids and everything:
        raise UsageError("session IDs and --all exclude each other")
    if not ids and not everything:
        raise UsageError("no session named", hint="name session IDs, or --all (with --bot, --kind and the like to choose)")
    return list(ids) or None
