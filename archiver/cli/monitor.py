"""What a command shows of itself while it works, and leaves when it ends: /livez, /readyz, /metrics, and a file of metrics."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver import __version__
from archiver.cli.processes import Processes
from archiver.config import Settings
from archiver.errors import ArchiverError, ConfigError, MetricsUnavailable
from archiver.observe.logs import logger
from archiver.observe.readiness import REASONS as READINESS_REASONS
from archiver.observe.readiness import Readiness
from archiver.observe.tally import Tally
from archiver.outcome import REASONS
from archiver.postgres.database import Database
from archiver.queue.figures import FleetFigures
from archiver.runtime.cancellation import in_thread, to_its_end, within
from archiver.stores import Store
from archiver.worker.loop import Worker
from archiver.worker.readiness import Watch, merged

if TYPE_CHECKING:  # a library of the extra `metrics`
    from prometheus_client import Metric

log = logger(__name__)

PORT_SECONDS = 5.0
"""So long a resident worker waits for the port of its metrics: the one that it replaces may be just ending."""

LAST_SECONDS = TEXTFILE_SECONDS = 5.0
"""So long the archive's figures may take to be read once more in the end, and the file to be written: either may hang."""

SAMPLE_SECONDS = 1.0
"""How often it is seen how the worker is, so that `since` is true though nobody asks."""

NO_METRICS = (
    "a worker that serves its metrics there goes on doing so; ARCHIVER_METRICS__LISTEN= for this command says that it needs none"
)

OF_WORKER = ("starting", "stopping", "lease", "store", "sealing")
"""Reasons that the worker itself knows; the others `Watch` finds out."""


class Monitor:
    """Of one command, and all of its processes. Ready once it has a worker that is."""

    def __init__(self, settings: Settings, others: Processes) -> None:
        self._settings = settings
        self._others = others
        self._readiness = Readiness()
        self._watch = Watch(self._readiness, [bot.name for bot in settings.bots])
        self._figures: FleetFigures | None = None
        self._worker: Worker | None = None
        self._done = Tally()
        """What workers did that have ended: a night may have two rounds."""
        self.serves = self.writes = False

    def change(self, settings: Settings) -> None:
        """Show the bots of these settings from now on."""
        self._settings = settings
        self._watch.bots = [bot.name for bot in settings.bots]
        if self._figures is not None:
            self._figures.change(settings.bots)

    @asynccontextmanager
    async def reading(self, database: Database) -> AsyncIterator[None]:
        """Look at the database and the archive's figures meanwhile, if anybody can see them."""
        figures = self._figures = FleetFigures(database, self._settings.bots)
        loops = [self._watch.database(database), self._watch.figures(figures)] if self.serves else []
        async with _beside(*loops):
            try:
                yield
            finally:
                if self.writes:
                    await to_its_end(self._read_last(figures))

    async def _read_last(self, figures: FleetFigures) -> None:
        """So that the file tells of what was just done."""
        try:
            await within(LAST_SECONDS, figures.read_now())
        except (ArchiverError, TimeoutError) as error:
            log.warning("figures_not_read", message=str(error))

    @asynccontextmanager
    async def watching(self, worker: Worker, store: Store) -> AsyncIterator[None]:
        """Show this worker's metrics, and whether it is ready, meanwhile."""
        self._worker = worker
        loops: list[Coroutine[Any, Any, None]] = []
        if self.serves:
            storage = self._settings.storage
            asking = self._watch.folder(storage.folder) if storage.url.startswith("file:") else self._watch.bucket(store)
            loops = [self._sample(), asking]
        try:
            async with _beside(*loops):
                yield
        finally:
            self._done.add(self._others.tally(worker.tally).ended_only().as_json())
            self._worker = None

    async def _sample(self) -> None:
        while True:
            self.readiness()
            await asyncio.sleep(SAMPLE_SECONDS)

    def readiness(self) -> dict[str, Any]:
        """For /readyz."""
        found = {"starting": READINESS_REASONS["starting"]}
        if self._worker is not None:
            found = merged([self._worker.troubles, *self._others.troubles])
            if self._watch.store_trouble:
                found["store"] = self._watch.store_trouble
        self._readiness.update(found, OF_WORKER)
        return self._readiness.as_document()

    def metrics(self, *, ended: bool = False) -> Iterator[Metric]:
        """Every metric. Once it has `ended`, those that say what it is at are none any more."""
        from archiver.observe.fleet_metrics import fleet_metrics
        from archiver.observe.metrics import Now, build_info, metrics, momentary_metrics, readiness_metrics, store_metrics

        bots, worker = [bot.name for bot in self._settings.bots], self._worker
        yield build_info(__version__)
        tally = self._done
        if worker is not None:
            tally = Tally.sum_of([self._done, self._others.tally(worker.tally)])
        yield from metrics(bots, tally, REASONS)
        if not ended:
            self.readiness()
            yield from readiness_metrics(self._readiness)
            now = Now(self._settings.worker.concurrency, 0) if worker is None else Now(*self._others.slots(worker))
            yield from momentary_metrics(bots, tally, now)
        yield from store_metrics(self._watch.space)
        if self._figures is None:
            yield from fleet_metrics(None, None)
        else:
            yield from fleet_metrics(self._figures.latest, self._figures.seen_at)

    async def look(self) -> None:
        """Ask the other processes how they are."""
        await self._others.look()


@asynccontextmanager
async def monitored(settings: Settings, others: Processes, *, resident: bool = False) -> AsyncIterator[Monitor]:
    """Show how this command is, from now on until it ends, where the configuration wants that. What is `resident` must be able
    to; what ends by itself, such as a night in cron, does without where it cannot, and leaves its metrics in a file.

    Raises ConfigError, MetricsUnavailable.
    """
    monitor = Monitor(settings, others)
    textfile = "" if resident else settings.metrics.textfile
    async with AsyncExitStack() as stack:
        try:
            if settings.metrics.listen:
                await stack.enter_async_context(_served(settings, monitor, PORT_SECONDS if resident else 0))
                monitor.serves = True
        except (ConfigError, MetricsUnavailable) as error:
            if resident:
                raise
            hint = error.hint if isinstance(error, ConfigError) else NO_METRICS
            log.warning("metrics_unavailable", message=error.message, hint=hint)
        monitor.writes = bool(textfile)
        try:
            yield monitor
        finally:
            if textfile:
                await to_its_end(_write(Path(textfile), monitor))


@asynccontextmanager
async def _served(settings: Settings, monitor: Monitor, patience: float) -> AsyncIterator[None]:
    """A port that is taken is waited for, for `patience` seconds."""
    listen, address = settings.metrics.listen, settings.metrics.address
    assert address is not None
    try:
        from archiver.observe.exposition import served
    except ModuleNotFoundError as error:
        raise _needs_library(f'metrics.listen = "{listen}"', error) from None

    loop = asyncio.get_running_loop()
    until, told = loop.time() + patience, False
    async with AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(
                    served(*address, metrics=monitor.metrics, readiness=monitor.readiness, before=monitor.look)
                )
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


def _needs_library(key: str, error: ModuleNotFoundError) -> Exception:
    if error.name is None or error.name.partition(".")[0] != "prometheus_client":
        return error
    return ConfigError(
        f"{key} needs a library that is not installed", hint="pip install 'kore-archiver[metrics]', or empty the key"
    )


async def _write(path: Path, monitor: Monitor) -> None:
    """Where that cannot be, the log says so: nobody's night fails for its metrics."""
    key = f'metrics.textfile = "{path}"'
    hint = "the folder must be there, and this user must be able to write it; empty the key for no such file"
    try:
        from archiver.observe.exposition import write_file

        found = list(monitor.metrics(ended=True))
        await within(TEXTFILE_SECONDS, _awaited(in_thread(lambda: write_file(path, lambda: found))))
    except ModuleNotFoundError as error:
        needed = _needs_library(key, error)
        if not isinstance(needed, ConfigError):
            raise
        log.warning("metrics_textfile_failed", message=needed.message, hint=needed.hint)
    except (OSError, TimeoutError) as error:
        log.warning("metrics_textfile_failed", message=f"{key}: {getattr(error, 'strerror', None) or error}", hint=hint)
    except Exception as error:  # whatever it is
        log.error("metrics_textfile_failed", message=f"{key}: {type(error).__name__}", exc_info=True)


async def _awaited(future: asyncio.Future[None]) -> None:
    await future


@asynccontextmanager
async def _beside(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these meanwhile."""
    tasks = [asyncio.create_task(loop, name="monitor") for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)
