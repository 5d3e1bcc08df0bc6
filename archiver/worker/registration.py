"""The worker's row among those of the fleet: written at the start, renewed, and written anew when the lease was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from archiver.archive.store_identity import mixes
from archiver.errors import DatabaseError, WrongStore
from archiver.observe.logs import logger
from archiver.queue.identity import Identities
from archiver.queue.sessions import Queue
from archiver.runtime.cancellation import within
from archiver.runtime.event_loop import loop_name
from archiver.session import Session
from archiver.worker.lease import Lease, boottime

log = logger(__name__)


class Registration:
    """Registers the worker as one that serves `bots`, and holds its lease. A new registration is a new worker to the database."""

    def __init__(
        self,
        queue: Queue,
        identities: Identities,
        bots: Collection[str],
        *,
        host: str,
        pid: int,
        version: str,
        store: str,
        length: timedelta,
        concurrency: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._identities = identities
        self._bots = bots
        self._identity: dict[str, Any] = {"host": host, "pid": pid, "version": version, "store": store}
        self._length = length
        self._concurrency = concurrency
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        """The newest lease, lost or not. Registered workers alone have one."""
        assert self._lease is not None, "not registered yet"
        return self._lease

    @property
    def registered(self) -> bool:
        """Whether it ever was."""
        return self._lease is not None

    @property
    def lost(self) -> bool:
        """Whether it was registered, and may act no more."""
        return self._lease is not None and self._lease.lost

    @property
    def remaining(self) -> float:
        """Seconds that the worker may still act, unless it renews its lease before. 0 before it is registered."""
        return 0.0 if self._lease is None else self._lease.remaining

    async def register(self) -> None:
        """Raises DatabaseError, and WrongStore where living workers put recordings into another store."""
        asked_at = boottime()
        worker_id = await self._queue.start_worker(**self._identity, lease=self._length, bots=list(self._bots))
        await self._check_stores(worker_id)
        self._lease = Lease(worker_id, self._length, asked_at)
        log.info("worker_started", worker=worker_id, concurrency=self._concurrency(), bots=list(self._bots), loop=loop_name())

    async def _check_stores(self, worker_id: int) -> None:
        store = self._identity["store"]
        for other in await self._identities.storing_workers(but=worker_id):
            if mixes(store, other["store"]) and other["id"] < worker_id:  # of two that start at once, one stays
                await self._queue.stop_worker(worker_id)
                raise WrongStore(
                    f"worker {other['id']} (host {other['host']}, process {other['pid']}) stores into {other['store']}, this one "
                    f"would into {store}",
                    hint="correct storage.url; after a move of the store, end the workers of the old one first; one that was "
                    "killed counts until its lease ends",
                )
            if store != other["store"]:
                hint = "mount one store at one path everywhere: these may be two folders, of which one is a copy"
                log.warning("stores_differ", store=store, other_worker=other["id"], other_host=other["host"],
                            other_store=other["store"], hint=hint)  # fmt: skip

    async def keep(self, *, on_lost: Callable[[], Sequence[Session]], on_registered: Callable[[], None]) -> None:
        """Renew the lease. Never returns: when it is lost, `on_lost` has to stop everything that was begun under it, and returns
        what that is; the worker is registered anew, and says of these that it lives.
        """
        while True:
            former = self.lease
            await former.keep(self._queue.renew)
            stalled = former.stalled
            claims = on_lost()
            while self.lease.lost:
                try:
                    await within(5, self.register())
                except (DatabaseError, TimeoutError) as error:
                    log.warning("worker_registration_failed", error=str(error))
                    await asyncio.sleep(1)
            await self._take_back(former.worker_id, claims, stalled=stalled)
            on_registered()

    async def _take_back(self, former: int, claims: Sequence[Session], *, stalled: bool) -> None:
        """Where that fails for as long as the new lease holds, others rescue them, and count a crash for each."""
        while not self.lease.lost:
            try:
                put_back, undone = await within(
                    5, self._queue.take_back(self.lease.worker_id, former=former, claims=claims, stalled=stalled)
                )
            except (DatabaseError, TimeoutError) as error:
                log.warning("claims_return_failed", sessions=len(claims), error=str(error))
                await asyncio.sleep(1)
            else:
                log.info("claims_returned", from_worker=former, sessions=put_back, crashes_withdrawn=undone)
                return

    async def deregister(self) -> None:
        """Sign off. Where that fails the lease runs out by itself."""
        try:
            await self._queue.stop_worker(self.lease.worker_id)
        except DatabaseError as error:
            log.warning("worker_deregistration_failed", error=str(error))
