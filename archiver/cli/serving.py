"""The composition root's other half: store, clients and worker, for the commands that speak to the platform."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from archiver import __version__
from archiver.archive.context import Archive, BotAccess
from archiver.archive.media import MediaClient, MediaHosts
from archiver.archive.store_identity import ADOPT, TAKEN, Recognised, claim_store
from archiver.cli.compose import NO_BOT, ending_signals, restore_signals
from archiver.cli.processes import Processes
from archiver.cli.sealing import sealer_beside
from archiver.config import Budget, Settings, account_budgets, sessions_budgets
from archiver.errors import ConfigError, MetricsUnavailable
from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.outcome import REASONS
from archiver.postgres.database import Database
from archiver.queue.quota import Quota
from archiver.queue.sessions import Queue
from archiver.queue.sql import sql
from archiver.runtime.bandwidth import Bandwidth
from archiver.runtime.buffers import Buffers
from archiver.runtime.garbage import spare_what_stays
from archiver.runtime.network import UNCHECKED, Network
from archiver.runtime.open_files import RAISE_FILES, files_allowed, files_needed, fitting_concurrency
from archiver.stores.open import open_store
from archiver.worker.loop import Worker

if TYPE_CHECKING:  # a library of the extra `metrics`
    from prometheus_client import Metric

log = logger(__name__)


@asynccontextmanager
async def bot_access(settings: Settings, database: Database) -> AsyncIterator[dict[str, BotAccess]]:
    """What serves each bot. The API's connections and the media's never meet."""
    limit = settings.transfer.max_bandwidth
    bandwidth = Bandwidth(limit) if limit is not None else None
    accounts = _quotas(settings, database, account_budgets(settings.bots))
    sessions = _quotas(settings, database, sessions_budgets(settings.bots))
    network = Network.of(settings.network)
    async with AsyncExitStack() as stack:
        bots = {}
        for bot in settings.bots:
            http = await stack.enter_async_context(api_session(network))
            media = MediaClient(MediaHosts.of(bot), settings.transfer, bandwidth=bandwidth, network=network)
            stack.push_async_callback(media.close)
            client = KoreClient(
                bot,
                http,
                max_files=settings.worker.max_files_per_session,
                terms=settings.transfer,
                on_retry=_log_retries(bot.name),
            )
            bots[bot.name] = BotAccess(bot, client, media, accounts[bot.name], sessions[bot.name])
        yield bots


def _quotas(settings: Settings, database: Database, budgets: Mapping[str, Budget]) -> dict[str, Quota]:
    """By bot; those that share a budget share one."""
    base = settings.retry.backoff_base
    made = {
        budget: Quota(database, budget.key, budget.limits, backoff_base=base, counted=budget.counted)
        for budget in budgets.values()
    }
    return {name: made[budget] for name, budget in budgets.items()}


def _log_retries(bot: str) -> Callable[[Exception, float], None]:
    def log_retry(error: Exception, wait: float) -> None:
        log.info("api_call_retried", bot=bot, error=str(error), wait_seconds=round(wait, 2))

    return log_retry


@asynccontextmanager
async def composed_worker(
    settings: Settings,
    database: Database,
    queue: Queue,
    tally: Tally,
    *,
    resident: bool = False,
    others: Processes | None = None,
) -> AsyncIterator[Worker]:
    """A worker that has everything, whose store can be written, and whose metrics, with those of the `others` beside it, are
    served if that is wanted. A `resident` one must be able to serve them; what ends by itself, such as a night in cron, does
    without where it cannot.

    Raises StoreError (WrongStore: it is not this archive's), ConfigError, MetricsUnavailable.
    """
    if not settings.bots:
        raise ConfigError("no bot is configured: nothing can be archived", hint=NO_BOT)
    settings = fitted(settings)
    sql.load()  # later on there may be no file to open them with
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    if network.proxy is not None:
        log.info("proxy_configured", proxy=network.proxy.url, named_by=network.proxy.named_by, hint=UNCHECKED)
    async with open_store(settings.storage, buffers, network) as store, bot_access(settings, database) as bots:
        found = await claim_store(database, store, settings.storage.url, adopt_known=False)
        _log_identity(found, settings.storage.url)
        await store.check()
        if settings.storage.url.startswith("file:"):  # of a bucket `doctor` alone asks that: it takes rights of its own
            for seen, hint in await store.advice():
                log.warning("store_advice_given", message=seen, hint=hint)
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
        )
        async with _metrics(settings, worker, others or Processes(settings, 1), required=resident):
            spare_what_stays()
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


def fitted(settings: Settings) -> Settings:
    """The settings, with as many sessions at once as the files allow that this process may have open. Raises ConfigError if they
    allow none.
    """
    wanted, bots = settings.worker.concurrency, len(settings.bots)
    fitting = fitting_concurrency(wanted, bots)
    if not fitting:
        raise ConfigError(
            f"this process may have {files_allowed()} files open, and a worker needs {files_needed(1, bots)} at least",
            hint=RAISE_FILES,
        )
    if fitting < wanted:
        needed = files_needed(wanted, bots)
        log.warning(
            "concurrency_lowered", wanted=wanted, concurrency=fitting, files=files_allowed(), needed=needed, hint=RAISE_FILES
        )
    worker = settings.worker.model_copy(update={"concurrency": fitting})
    return settings.model_copy(update={"worker": worker})


@asynccontextmanager
async def _metrics(settings: Settings, worker: Worker, others: Processes, *, required: bool) -> AsyncIterator[None]:
    """Serve this worker's metrics, if that is wanted. Where that cannot be, raises ConfigError, MetricsUnavailable if they are
    `required`, and else says so in the log.
    """
    async with AsyncExitStack() as stack:
        try:
            if settings.metrics.listen:
                await stack.enter_async_context(_served_metrics(settings, worker, others, PORT_SECONDS if required else 0))
        except (ConfigError, MetricsUnavailable) as error:
            if required:
                raise
            hint = error.hint if isinstance(error, ConfigError) else NO_METRICS
            log.warning("metrics_unavailable", message=error.message, hint=hint)
        yield


PORT_SECONDS = 5.0
"""So long a resident worker waits for the port of its metrics: the one that it replaces may be just ending."""

NO_METRICS = (
    "a worker that serves its metrics there goes on doing so; ARCHIVER_METRICS__LISTEN= for this command says that it needs none"
)


@asynccontextmanager
async def _served_metrics(settings: Settings, worker: Worker, others: Processes, patience: float) -> AsyncIterator[None]:
    """A port that is taken is waited for, for `patience` seconds."""
    listen, address = settings.metrics.listen, settings.metrics.address
    assert address is not None
    try:
        from archiver.observe.metrics import Now, metrics, served
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigError(
            f'metrics.listen = "{listen}" needs a library that is not installed',
            hint="pip install 'kore-archiver[metrics]', or empty the key",
        ) from None
    bots = [bot.name for bot in settings.bots]

    def read() -> Iterator[Metric]:
        return metrics(bots, others.tally(worker.tally), Now(*others.slots(worker)), REASONS)

    loop = asyncio.get_running_loop()
    until, told = loop.time() + patience, False
    async with AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(served(*address, read, before=others.look))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or loop.time() >= until:
                    raise MetricsUnavailable(f'metrics.listen = "{listen}": {error.strerror}') from None
            else:
                break
            if not told:
                log.warning("metrics_port_awaited", listen=listen, seconds=patience)
                told = True
            await asyncio.sleep(0.2)
        yield


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
