"""The worker: claims sessions, archives a bounded number at once, keeps its lease, and leaves in order.

What it promises: a session is never archived by two workers at once (the lease and the epoch see to that), a finished one is
written down or handed back before the worker ends, and whatever happens to one session, the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from archiver.archive.context import Archive, BotAccess
from archiver.archive.store_identity import recognise
from archiver.config import Settings
from archiver.errors import ConfigError, DatabaseError
from archiver.evidence.sealer import Sealer
from archiver.notify.notifier import Notifier
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.outcome import facts_of
from archiver.postgres.database import Database
from archiver.postgres.schema import check_version
from archiver.queue.counts import Counts
from archiver.queue.identity import Identities
from archiver.queue.ledger import Ledger
from archiver.queue.sessions import Queue
from archiver.runtime.cancellation import to_its_end
from archiver.session import Session
from archiver.worker.accounting import Accounting
from archiver.worker.attempts import SLOW_STALLS, Attempts
from archiver.worker.bots import Bots
from archiver.worker.claiming import Claiming, Drained, Terms
from archiver.worker.holds import Holds
from archiver.worker.judging import Judge
from archiver.worker.probes import Probes
from archiver.worker.progress import log_long_transfers, record_long_transfers
from archiver.worker.registration import Registration
from archiver.worker.schema_watch import watch_schema
from archiver.worker.sealing import Sealing
from archiver.worker.settling import Settling
from archiver.worker.store_gate import StoreGate
from archiver.worker.upkeep import Upkeep

log = logger(__name__)

LISTENER_CHECK_SECONDS = 15.0
"""How often the connection is tried on which the worker is woken: one that is gone says nothing."""

FAREWELL_SECONDS = 5.0
"""What handing back and signing off may take after the grace, whatever hangs."""


class Worker:
    """One worker process. `run` may be called once; `stop` ends it in order."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        queue: Queue,
        bots: Mapping[str, BotAccess],
        archive: Archive,
        *,
        host: str,
        pid: int,
        version: str,
        tally: Tally | None = None,
        sealer: Sealer | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.tally = tally or Tally(archive.transfers)
        self.tally.transfers.window = SLOW_STALLS * settings.transfer.stall_timeout.total_seconds()
        bots = bots if isinstance(bots, Bots) else Bots(bots)
        self._settings = settings
        self._bots = bots
        self._database = database
        self._queue = queue
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._trying_credentials: asyncio.Task[None] | None = None
        self.on_idle: Callable[[], None] = lambda: None
        """Called when there is nothing more to do, whenever there was something before."""
        concurrency, wake = settings.worker.concurrency, self._wake.set
        lease_length = timedelta(seconds=settings.worker.lease_seconds)
        identities = Identities(database)
        self._registration = Registration(
            queue,
            identities,
            bots,
            host=host,
            pid=pid,
            version=version,
            store=settings.storage.url,
            length=lease_length,
            concurrency=lambda: self._attempts.concurrency,
        )
        probes = Probes(bots)
        self._holds = Holds(queue, bots, probes, wake)
        self._gate = gate = StoreGate(archive.store, lambda: recognise(identities, archive.store, settings.storage.url))
        accounting = Accounting(bots, self._holds, self.tally, wake)
        self._settling = Settling(queue, written=accounting.record)
        longest_pause = settings.retry.backoff_max
        self._attempts = Attempts(
            bots,
            archive,
            Judge(bots, self._holds, probes, gate, longest_pause=longest_pause),
            self._holds,
            gate,
            self._settling,
            accounting,
            self.tally.transfers,
            concurrency=concurrency,
            longest_pause=longest_pause,
            wake=wake,
        )
        self._claiming = Claiming(
            queue,
            bots,
            self._attempts,
            self._settling,
            gate,
            settings.retry,
            lease=lambda: self._registration.lease,
            wake=self._wake,
            stopping=self._stopping,
            on_idle=self._tell_idle,
        )
        self.sealer = sealer
        self._notifier = notifier
        self._sealing = None if sealer is None else Sealing(sealer, Ledger(database), settings.evidence.interval)
        self._upkeep = Upkeep(
            queue,
            Counts(database),
            archive,
            bots,
            lease_length=lease_length,
            keep_history=settings.database.keep_history,
            wake=wake,
        )

    @property
    def running(self) -> int:
        """Sessions that it has in hand."""
        return len(self._attempts)

    @property
    def lease_remaining(self) -> float:
        """Seconds that it may still act, unless it renews its lease before."""
        return self._registration.remaining

    @property
    def troubles(self) -> dict[str, str]:
        """What keeps it from its work, by the reasons of `observe.readiness`: what it knows by now, asking nobody."""
        found = {
            "stopping": "it was told to stop" if self._stopping.is_set() else "",
            "starting": "it is not registered yet" if not self._registration.registered else "",
            "lease": "its lease ran out; it registers anew" if self._registration.lost else "",
            "store": self._gate.trouble,
            "sealing": "" if self._sealing is None else self._sealing.trouble,
        }
        return {reason: message for reason, message in found.items() if message}

    @property
    def concurrency(self) -> int:
        """Sessions that it may have in hand at once."""
        return self._attempts.concurrency

    @property
    def bots(self) -> list[str]:
        """The names of those that it serves."""
        return list(self._bots)

    def change(self, settings: Settings, changed_bots: Collection[str] = ()) -> None:
        """Work with these settings from now on, as far as `config.changes` says that they can change. What serves the
        `changed_bots` was changed before. All are recorded, and those held for other credentials tried, as at a start.
        """
        self._settings = settings
        self._attempts.change(settings.worker.concurrency, settings.transfer)
        self.tally.transfers.window = SLOW_STALLS * settings.transfer.stall_timeout.total_seconds()
        for name in changed_bots:
            self._holds.forget_host_refusals(name)
        if self._trying_credentials is not None and not self._stopping.is_set():
            self._trying_credentials.cancel()
            self._trying_credentials = asyncio.create_task(self._introduce_bots(), name="credentials")
        self._wake.set()

    async def _introduce_bots(self) -> None:
        while True:
            try:
                await self._queue.record_bots(list(self._bots), complete=False)
                break
            except DatabaseError as error:
                log.warning("database_unavailable", **facts_of(error))
                await asyncio.sleep(1)
        await self._holds.try_credentials()

    def wake(self) -> None:
        """Look for work now, or whether a drain is over."""
        self._wake.set()

    @property
    def is_leaving(self) -> bool:
        """Whether it claims nothing more."""
        return self._stopping.is_set()

    async def leaving(self) -> None:
        """Return when it claims nothing more."""
        await self._stopping.wait()

    async def hurrying(self) -> None:
        """Return when it was told to hurry."""
        await self._hurry.wait()

    def _tell_idle(self) -> None:
        self.on_idle()

    def stop(self) -> None:
        """Claim nothing more, finish or hand back what runs, end. Callable from a signal handler."""
        self._stopping.set()
        self._wake.set()

    def hurry(self) -> None:
        """Hand back what runs at once, without waiting for the grace."""
        self.stop()
        self._hurry.set()

    async def run(
        self,
        *,
        drain: bool = False,
        max_wait: timedelta | None = None,
        feeding: asyncio.Task[Any] | None = None,
        night: bool = False,
    ) -> Drained:
        """Work until stopped, or, with `drain`, until nothing is left to do: see `Terms`. As long as `feeding` runs there will be
        more: a drain goes on.
        """

        def busy_elsewhere() -> bool:
            # What is held may be released as soon as our own credentials have been tried.
            return any(task is not None and not task.done() for task in (feeding, self._trying_credentials))

        terms = Terms(drain, max_wait, night, busy_elsewhere)
        version = (await check_version(self._database)).version
        started = await self._queue.clock()
        if self._sealing is not None:
            await self._sealing.begin()
        await self._registration.register()
        transfers = self.tally.transfers
        helpers = [
            asyncio.create_task(self._registration.keep(on_lost=self._lease_lost, on_registered=self._wake.set), name="lease"),
            asyncio.create_task(self._listen(), name="listen"),
            asyncio.create_task(self._upkeep.run(lambda: self._registration.lease.worker_id), name="upkeep"),
            asyncio.create_task(log_long_transfers(transfers), name="readings"),
            asyncio.create_task(record_long_transfers(transfers, self._queue, lambda: self._registration.lease), name="progress"),
            asyncio.create_task(self._holds.unblock_budgets(), name="budgets"),
            asyncio.create_task(watch_schema(self._database, version, self.hurry), name="schema"),
        ]
        if self._sealing is not None:
            helpers.append(asyncio.create_task(self._sealing.run(), name="sealing"))
        if self._notifier is not None:
            helpers.append(asyncio.create_task(self._notifier.run(), name="notify"))
        self._trying_credentials = asyncio.create_task(self._holds.try_credentials(), name="credentials")
        work = asyncio.create_task(self._claiming.run(terms, started), name="claim")
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([work, stopped, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a helper ends by an error of ours only: it goes to the caller
            return work.result() if work in done else Drained()
        finally:
            stopped.cancel()
            self.stop()  # from here on nobody begins to try others
            self._trying_credentials.cancel()
            # Cancelled once more it hurries, but is not left half way: sessions would stay claimed.
            await to_its_end(self._leave(work, helpers), on_cancel=self.hurry)

    def _lease_lost(self) -> list[Session]:
        lease = self._registration.lease
        self.tally.leases_lost += 1
        log.error("worker_lease_lost", worker=lease.worker_id, running=len(self._attempts), stalled=lease.stalled)
        unsettled = [session for session in self._settling.sessions if session.worker_id == lease.worker_id]
        claims = [*self._attempts.of_worker(lease.worker_id), *unsettled]
        self._attempts.stop()
        self._upkeep.spare_others()
        return claims

    async def _listen(self) -> None:
        """Wake the claim loop when somebody enqueues. Checked, and opened again; without it polling goes on."""
        logged = listened = False
        while True:
            try:
                async with self._database.listening(self._wake) as connection:
                    logged, listened = False, True
                    self._wake.set()
                    while True:
                        await asyncio.sleep(LISTENER_CHECK_SECONDS)
                        await connection.execute("SELECT 1", timeout=10)
            except Exception as error:
                if isinstance(error, ConfigError) and not listened:
                    raise  # it never can: a mistake that somebody should hear of
                # Whatever else breaks a listener, polling remains.
                if not logged:
                    log.warning("listener_disconnected", error=str(error) or type(error).__name__)
                logged = True
            await asyncio.sleep(2)

    async def _leave(self, work: asyncio.Task[Drained], helpers: list[asyncio.Task[None]]) -> None:
        """Claim nothing more, finish what runs within the grace, hand back the rest, sign off. Bounded, whatever hangs."""
        self.stop()
        grace = self._settings.worker.drain_grace_seconds
        if self._attempts:
            log.info("worker_stopping", running=len(self._attempts), grace_seconds=grace)
        finished = asyncio.create_task(self._finish(work))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([finished, hurried], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        farewell = asyncio.create_task(self._hand_back(work, finished))
        await asyncio.wait([farewell], timeout=FAREWELL_SECONDS)
        for task in (farewell, finished, work, *helpers):
            task.cancel()
        # What is not written by now is left to the lease, which nobody renews any more.
        self._registration.lease.give_up()
        self._attempts.stop()
        self._settling.cancel()
        await asyncio.wait([farewell, finished, work, *helpers, *self._attempts.tasks], timeout=1)
        done = self.tally
        log.info("worker_stopped", **done.ended, files=done.files, bytes=done.transfers.bytes, lost=done.lost)

    async def _finish(self, work: asyncio.Task[Drained]) -> None:
        # The claim loop ends by itself: cancelled in the middle of a claim, it would leave rows claimed by nobody.
        await asyncio.wait([work])
        await self._attempts.finished()
        await self._settling.finished()

    async def _hand_back(self, work: asyncio.Task[Drained], finished: asyncio.Task[None]) -> None:
        await asyncio.wait([work])
        if self._attempts:
            log.info("handback_started", sessions=len(self._attempts))
        self._attempts.stop()
        await asyncio.wait([finished])
        await self._registration.deregister()
