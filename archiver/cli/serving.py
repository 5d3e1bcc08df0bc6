"""The composition root's other half: store, clients and worker, for the commands that speak to the platform."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext

from archiver import __version__
from archiver.archive.context import Archive
from archiver.archive.store_identity import ADOPT, TAKEN, Recognised, claim_store
from archiver.cli.access import serving_bots
from archiver.cli.compose import NO_BOT, ending_signals, restore_signals
from archiver.cli.monitor import Monitor
from archiver.cli.reloading import Reloading
from archiver.cli.sealing import sealer_beside
from archiver.cli.shares import fitted
from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.notify.notifier import Notifier
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.sessions import Queue
from archiver.queue.sql import sql
from archiver.runtime.buffers import Buffers
from archiver.runtime.garbage import spare_what_stays
from archiver.runtime.network import UNCHECKED, Network
from archiver.stores.open import open_store
from archiver.worker.bots import Bots
from archiver.worker.loop import Worker

log = logger(__name__)


@asynccontextmanager
async def bot_access(settings: Settings, database: Database, tally: Tally | None = None) -> AsyncIterator[Bots]:
    """What serves each bot. The API's connections and the media's never meet. The `tally` counts the calls."""
    async with serving_bots(settings, database, tally) as access:
        yield access.bots


@asynccontextmanager
async def composed_worker(
    settings: Settings,
    database: Database,
    queue: Queue,
    tally: Tally,
    *,
    monitor: Monitor | None = None,
    reloading: Reloading | None = None,
) -> AsyncIterator[Worker]:
    """A worker that has everything, and whose store can be written; the `monitor` shows how it is, and `reloading` may change
    what can change while it works.

    Raises StoreError (WrongStore: it is not this archive's), ConfigError.
    """
    if not settings.bots:
        raise ConfigError("no bot is configured: nothing can be archived", hint=NO_BOT)
    settings = fitted(settings)
    sql.load()  # later on there may be no file to open them with
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    if network.proxy is not None:
        log.info("proxy_configured", proxy=network.proxy.url, named_by=network.proxy.named_by, hint=UNCHECKED)
    async with open_store(settings.storage, buffers, network) as store, serving_bots(settings, database, tally) as access:
        found = await claim_store(database, store, settings.storage.url, adopt_known=False)
        _log_identity(found, settings.storage.url)
        await store.check()
        if settings.storage.url.startswith("file:"):  # of a bucket `doctor` alone asks that: it takes rights of its own
            for seen, hint in await store.advice():
                log.warning("store_advice_given", message=seen, hint=hint)
        bots = access.bots
        for bot in bots.values():
            # A key that cannot sign is found here, not by every session in turn.
            bot.client.signer.token()
        longest = await store.longest_name()
        archive = Archive(store, settings.storage.path, settings.retry, settings.transfer, tally.transfers, longest)
        worker = Worker(
            settings,
            database,
            queue,
            bots,
            archive,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            tally=tally,
            sealer=sealer_beside(settings, database, store),
            notifier=Notifier(settings.notify, database, network) if settings.notify.on else None,
        )
        async with nullcontext() if monitor is None else monitor.watching(worker, store):
            spare_what_stays()
            tally.config_reload_successful, tally.config_reloaded_at = True, time.time()
            if reloading is not None:
                reloading.begin(worker, access, monitor)
            yield worker


def _log_identity(found: Recognised, url: str) -> None:
    archive = str(found.identity.archive_id)
    match found.changed:
        case "store_marked":
            log.info("store_marked", archive=archive, store=url)
        case "store_moved":
            hint = "workers elsewhere have to use the new place as well: a copy must not be used beside its original"
            log.warning("store_moved", from_url=found.identity.url, to_url=url, hint=hint)
        case "identity_taken":
            log.warning("identity_taken", archive=archive, store=url, hint=TAKEN)
        case "" if found.marker is None:
            log.warning("store_unmarked", store=url, hint=ADOPT)


@contextmanager
def stop_on_signals(worker: Worker, *, at_once: bool = False) -> Iterator[list[int]]:
    """SIGTERM, SIGHUP and SIGINT stop the worker in order; a second one (`at_once`: the first) hurries it. Yields those that
    came.
    """
    numbers = (*ending_signals(), signal.SIGINT)
    loop = asyncio.get_running_loop()
    of_ctrl_c = signal.getsignal(signal.SIGINT)
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if at_once or len(received) > 1:
            worker.hurry()
        else:
            worker.stop()

    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in numbers:
            # It is ending; what is left to do is bounded, and must not be cut short by one more signal.
            loop.add_signal_handler(number, received.append, number)
        if not received:
            restore_signals()
            signal.signal(signal.SIGINT, of_ctrl_c)
