"""SIGHUP of a worker: the configuration is read again, and what can change while it works, changes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli.access import Access
from archiver.cli.compose import NO_BOT
from archiver.cli.monitor import Monitor
from archiver.cli.shares import SHARED, fitted
from archiver.config import Settings, read, secret_files, unusable_files
from archiver.config.changes import Changes, changes
from archiver.config.loading import refuse_foreign_file
from archiver.errors import ConfigError
from archiver.observe import logs
from archiver.outcome import facts_of
from archiver.runtime.cancellation import in_thread
from archiver.worker.loop import Worker

if TYPE_CHECKING:
    from archiver.cli.processes import Processes
    from archiver.health.findings import Finding

log = logs.logger(__name__)

READ_SECONDS = 30.0
"""How long reading the files may take: a mount may hang."""

STILL_SECONDS = 0.2
"""A file that was written within this time may be half written."""

STILL_LOOKS = 25

RESTART = "these are read at a start alone: restart the worker for them; until then it works with the old values"


@dataclass(frozen=True)
class Source:
    """Where the configuration comes from: the file that applied at the start, though another one might be found by now, whether
    it was named, and what stands in for log.level.
    """

    path: Path | None
    named: bool
    log_level: str | None

    def check(self) -> None:
        """Raises ConfigError for what must not be read, or cannot be read without waiting for it."""
        if self.path is None or str(self.path) == os.devnull:
            return
        if not self.named and self.path.exists():
            refuse_foreign_file(self.path)
        check_plain(self.path)


def check_plain(path: Path) -> None:
    """Raises ConfigError for a FIFO and the like, which could be waited for without an end."""
    with suppress(OSError):  # what is not there is told by whoever reads it
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(
                f"{path}: is no plain file, and can be read at a start alone", hint="use a file, or restart the worker"
            )


class Reloading:
    """Reads the configuration again when it is asked to, one time after the other, and has the worker work with it. A bad one
    leaves the old one wholly in force.
    """

    def __init__(self, source: Source, others: Processes) -> None:
        self._source = source
        self._others = others
        self._shares: Mapping[str, int] | None = None
        """Of one of several processes: its share of the limits, as the command said last."""
        self._asked = asyncio.Event()
        self._parts: tuple[Worker, Access, Monitor | None] | None = None
        self._kept_secrets = _secrets_of(others.whole)

    def request(self) -> None:
        """Do it as soon as possible. Callable from a signal handler; several requests before that are one."""
        self._asked.set()

    def request_with(self, shares: Mapping[str, int]) -> None:
        """The same, for one of several processes, whose share has changed."""
        self._shares = shares
        self._asked.set()

    def begin(self, worker: Worker, access: Access, monitor: Monitor | None) -> None:
        """This is what is changed."""
        self._parts = (worker, access, monitor)

    @asynccontextmanager
    async def beside(self, worker: Worker) -> AsyncIterator[None]:
        """Do what is requested, for as long as the context lasts. Once the worker leaves nothing is changed any more."""
        task = asyncio.create_task(self._run(worker), name="reloading")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, worker: Worker) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            if worker.is_leaving:
                log.info("config_reload_skipped", because="the worker is stopping")
                continue
            try:
                await self._reload()
                worker.tally.config_reload_successful = True
                worker.tally.config_reloaded_at = time.time()
            except ConfigError as error:
                log.error("config_reload_failed", **facts_of(error))  # noqa: TRY400  # a mistake of the file, not of ours
                worker.tally.config_reload_successful = False
            except Exception as error:  # whatever is wrong with it, the worker goes on
                log.exception("config_reload_failed", message=f"{type(error).__name__}: {error}")
                worker.tally.config_reload_successful = False

    async def _reload(self) -> None:
        assert self._parts is not None
        worker, access, monitor = self._parts
        try:
            given, keys, exposed = await asyncio.wait_for(in_thread(self._read), READ_SECONDS)
        except TimeoutError:
            raise ConfigError(
                "the configuration could not be read in time", hint="look at the disk or mount that it is on"
            ) from None
        found = changes(self._others.whole, given)
        own = fitted(self._others.share(found.settings))
        if worker.is_leaving:
            return
        changed_bots = await access.change(own, keys)
        worker.change(own, changed_bots)
        if monitor is not None:
            monitor.change(own)
        logs.set_level(self._source.log_level or own.log.level)
        self._others.change(found.settings)
        for finding in exposed:
            log.warning("secret_file_exposed", message=f"{finding.check}: {finding.message}", hint=finding.hint)
        now = _secrets_of(given)
        _log(found, changed_bots, kept=[f"{name} (its secrets)" for name in now if now[name] != self._kept_secrets[name]])

    def _read(self) -> tuple[Settings, dict[str, str], list[Finding]]:
        """In a thread: disks may be slow."""
        self._source.check()
        if self._source.path is not None:
            wait_until_still(self._source.path)
        environment: Mapping[str, str] = os.environ
        if self._shares is not None:
            variables = {key: f"ARCHIVER_{key.replace('.', '__').upper()}" for key in SHARED}
            environment = {name: value for name, value in os.environ.items() if name.upper() not in variables.values()}
            environment |= {variables[key]: str(value) for key, value in self._shares.items()}
        # Where there was no file, none is looked for: what lies in the working folder by now was nobody's wish.
        settings = read(self._source.path or Path(os.devnull), environment).settings
        for name, path in secret_files(settings):
            if name in os.environ:  # it is the driver's, which has read it
                continue
            check_plain(path)
            wait_until_still(path)
        for error in unusable_files(settings):
            raise error
        if not settings.bots:
            raise ConfigError(f"{settings.source}: no bot is configured: nothing could be archived", hint=NO_BOT)
        from archiver.health.checks import check_secret_files

        return settings, {bot.name: bot.signing_key() for bot in settings.bots}, check_secret_files(settings)


def _secrets_of(settings: Settings) -> dict[str, tuple[str | bytes, ...]]:
    """By section, those that a worker keeps as they were at its start."""
    s3, azure = settings.storage.s3, settings.storage.azure
    reads: dict[str, tuple[Callable[[], str | bytes], ...]] = {
        "storage": (s3.secret_key, azure.key, azure.sas),
        "notify": (settings.notify.key,),
    }
    found: dict[str, tuple[str | bytes, ...]] = dict.fromkeys(reads, ())
    for name, looks in reads.items():
        with suppress(ConfigError):
            found[name] = tuple(look() for look in looks)
    return found


def wait_until_still(path: Path) -> None:
    """Return once nobody has written to the file for a moment, or after some moments: somebody may save it in place."""
    for _ in range(STILL_LOOKS):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if 0 <= age < STILL_SECONDS:
                time.sleep(STILL_SECONDS - age)
                continue
        return


def _log(found: Changes, changed_bots: list[str], kept: list[str]) -> None:
    # Whose file has another secret by now has no other key. Other terms of transfers change all bots.
    named = [key for key in found.changed if key.startswith(("bots.", "transfer."))]
    secrets = [
        f"bots.{name} (its secret)"
        for name in changed_bots
        if not any(key.startswith("transfer.") or f"{key}.".startswith(f"bots.{name}.") for key in named)
    ]
    if kept := [*found.kept, *kept]:
        log.warning("config_restart_needed", keys=kept, hint=RESTART)
    log.info("config_reloaded", changed=[*found.changed, *secrets])


def hangup_reloads() -> bool:
    """Whether SIGHUP is to mean that the configuration is read again: not where it says that the terminal is gone, nor where it
    is ignored, as under nohup.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return True
    return False


def is_named(ctx: click.Context) -> bool:
    """Whether somebody named the configuration file, and it was not just found."""
    return ctx.obj["config"] is not None or bool(os.environ.get("ARCHIVER_CONFIG"))
