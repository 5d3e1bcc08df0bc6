"""The composition root: settings, database, store, clients and worker, built here and passed on. There are no globals."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import click

from archiver import __version__
from archiver.archive import Archive, BotAccess
from archiver.config import Settings, load
from archiver.errors import ConfigError, UsageError
from archiver.kore.client import KoreClient, api_session
from archiver.kore.media import MediaClient, MediaHosts
from archiver.observe import logs
from archiver.queue.database import Database, open_database
from archiver.queue.migrate import check_version, migrate
from archiver.queue.quota import Quota
from archiver.queue.sessions import Queue
from archiver.stores import open_store
from archiver.worker import Tally, Worker

T = TypeVar("T")
log = logs.logger(__name__)


def settings_of(ctx: click.Context) -> Settings:
    """Load the configuration that the command line names, and set up the logs. Raises ConfigError."""
    settings = load(ctx.obj["config"])
    level = ctx.obj["log_level"]
    logs.configure(settings.log.model_copy(update={"level": level} if level else {}))
    if settings.source == "defaults":
        click.echo(
            f"no configuration: using the embedded database in {settings.database.embedded_path} "
            f"and the store {settings.storage.folder} (`archiver init` writes a configuration)",
            err=True,
        )
    return settings


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it, and it cleans up."""
    return asyncio.run(main)


def actor() -> str:
    """Who is doing this, for the history: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def bot_option(settings: Settings, name: str | None) -> str | None:
    """The bot that --bot names, checked against the configuration."""
    if name is not None and settings.bots:
        settings.bot(name)
    return name


@asynccontextmanager
async def opened(settings: Settings, *, pool_size: int = 4) -> AsyncIterator[tuple[Database, Queue]]:
    """The database, at this program's version. An embedded one is ours alone, so it is migrated on the way."""
    async with open_database(settings.database, pool_size=pool_size) as database:
        queue = Queue(database, settings.retry)
        if settings.database.embedded_path is not None:
            await migrate(database)
            await queue.record_bots([bot.name for bot in settings.bots], complete=True)
        else:
            await check_version(database)
        yield database, queue


@asynccontextmanager
async def bot_access(settings: Settings, database: Database) -> AsyncIterator[dict[str, BotAccess]]:
    """What serves each bot. The API's connections and the media's never meet."""
    async with AsyncExitStack() as stack:
        bots = {}
        for bot in settings.bots:
            http = await stack.enter_async_context(api_session())
            media = MediaClient(MediaHosts.of(bot))
            stack.push_async_callback(media.close)
            client = KoreClient(bot, http, max_files=settings.worker.max_files_per_session, on_retry=_tell_of_retry(bot.name))
            bots[bot.name] = BotAccess(bot, client, media, Quota(database, bot, backoff_base=settings.retry.backoff_base))
        yield bots


def _tell_of_retry(bot: str) -> Callable[[Exception, float], None]:
    def tell(error: Exception, wait: float) -> None:
        log.info("api_retry", bot=bot, error=str(error), wait_seconds=round(wait, 2))

    return tell


@asynccontextmanager
async def composed_worker(settings: Settings, database: Database, queue: Queue, tally: Tally) -> AsyncIterator[Worker]:
    """A worker that has everything, and whose store can be written. Raises StoreError, ConfigError."""
    if not settings.bots:
        raise ConfigError("no bot is configured: nothing can be archived", hint="add a [[bots]] block to the configuration")
    store = open_store(settings.storage)
    await store.check()
    async with bot_access(settings, database) as bots:
        archive = Archive(store, settings.storage.path, settings.retry, on_bytes=tally.add_bytes)
        yield Worker(
            settings,
            database,
            queue,
            bots,
            archive,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            tally=tally,
        )


@contextmanager
def stop_on_signals(worker: Worker, *, at_once: bool = False) -> Iterator[list[int]]:
    """SIGTERM and SIGINT stop the worker in order; a second one (`at_once`: the first) hurries it. Yields those received."""
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if at_once or len(received) > 1:
            worker.hurry()
        else:
            worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def given_ids(ids: tuple[str, ...], everything: bool) -> list[str] | None:
    """Session IDs as given, or None for all of them; naming neither is a mistake, not a wish for everything."""
    if ids and everything:
        raise UsageError("session IDs and --all exclude each other")
    if not ids and not everything:
        raise UsageError("no session named", hint="name session IDs, or --all (with --bot, --kind and the like to choose)")
    return list(ids) or None
