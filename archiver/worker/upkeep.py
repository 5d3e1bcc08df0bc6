"""What each worker does for the fleet beside its own sessions: takes over from dead workers, removes what they left in the store,
warns of bots that nobody serves, folds what was counted, and removes history that is older than it has to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import timedelta

from archiver.archive.context import Archive
from archiver.errors import DatabaseError, DatabaseUnreachable, StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.queue.counts import Counts
from archiver.queue.sessions import Queue
from archiver.session import part_name
from archiver.stores import ANY_FILE

log = logger(__name__)

UPKEEP_SECONDS = 5.0
"""Seconds between two rounds, at most: a third of the lease, where that is less."""

TIDY_PAUSE = 600.0
"""Seconds between two looks for counts that are none any more."""

PRUNE_PAUSE = 3600.0
"""Seconds after which old history is looked for again, once none is left that is due."""


class Upkeep:
    """One round after the other, for as long as the worker runs. `wake` is called when a rescued session can be claimed."""

    def __init__(
        self,
        queue: Queue,
        counts: Counts,
        archive: Archive,
        bots: Collection[str],
        *,
        lease_length: timedelta,
        keep_history: timedelta | None,
        wake: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._counts = counts
        self._archive = archive
        self._bots = bots
        self._lease_seconds = lease_length.total_seconds()
        self._pause = min(UPKEEP_SECONDS, self._lease_seconds / 3)
        self._keep_history = keep_history
        self._wake = wake
        self._warned: set[str] = set()
        self._prune_at = 0.0
        self._tidy_at = 0.0
        self._rescue_at = 0.0

    async def run(self, worker_id: Callable[[], int]) -> None:
        """Never returns. `worker_id` names this worker in the history of what it rescues."""
        while True:
            try:
                await self._rescue(worker_id())
            except DatabaseUnreachable as error:
                log.warning("database_unavailable", **facts_of(error))
                self.spare_others()
            except DatabaseError as error:
                log.warning("rescue_failed", **facts_of(error))
            try:
                await self._fold_counts()  # by itself: what reads counts is slow where nobody folds them
            except DatabaseError as error:
                log.warning("count_folding_failed", **facts_of(error))
            try:
                await self._remove_leftovers()
                await self._warn_of_unknown_bots()
                await self._prune()
            except DatabaseError as error:
                log.warning("upkeep_failed", **facts_of(error))
            await asyncio.sleep(self._pause)

    def spare_others(self) -> None:
        """The database was away for this worker, and so it may have been for others: they get a lease's time to come back."""
        self._rescue_at = time.monotonic() + self._lease_seconds

    async def _rescue(self, worker_id: int) -> None:
        if time.monotonic() < self._rescue_at:
            return
        for rescued in await self._queue.rescue(actor=f"worker {worker_id}", worker_id=worker_id):
            log.warning("session_rescued", session=rescued.session_id, bot=rescued.bot, state=rescued.state,
                        crashes=rescued.crashes, from_worker=rescued.lost_worker)  # fmt: skip
            self._wake()

    async def _remove_leftovers(self) -> None:
        """Remove the temporary files of claims that were lost. They are found from the database, not by walking the store."""
        asked = time.monotonic()
        for left in await self._queue.list_leftovers():
            key = self._archive.path.render(
                bot=left.bot, date=left.archive_date, session_id=left.session_id, kind=left.kind, file_name=ANY_FILE
            )
            part = part_name(left.queue_id, left.worker_id, left.epoch)
            try:
                # Those before it in the list took their time.
                left_for = left.left_for + timedelta(seconds=time.monotonic() - asked)
                found = await self._archive.store.discard(key, part=part, left_for=left_for)
            except StoreUnavailable as error:
                log.warning("leftover_removal_failed", **facts_of(error))
                return
            except StoreError as error:
                found = False
                # Else it is not a key, so nothing can lie there: a row that others wrote, of a kind that we don't know.
                if "error" in error.facts:
                    log.warning("upload_left_behind", session=left.session_id, bot=left.bot, **facts_of(error))
            await self._queue.delete_leftover(left.queue_id, left.epoch)
            if found:
                log.info("leftover_removed", session=left.session_id, bot=left.bot, from_worker=left.worker_id)

    async def _fold_counts(self) -> None:
        await self._counts.fold()
        if time.monotonic() >= self._tidy_at:
            await self._counts.remove_empty()
            self._tidy_at = time.monotonic() + TIDY_PAUSE

    async def _prune(self) -> None:
        if self._keep_history is None or time.monotonic() < self._prune_at:
            return
        if sessions := await self._queue.prune(self._keep_history):
            log.info("history_pruned", sessions=sessions)
        else:
            self._prune_at = time.monotonic() + PRUNE_PAUSE

    async def _warn_of_unknown_bots(self) -> None:
        for name, count in (await self._queue.unknown_bots(list(self._bots))).items():
            if name not in self._warned:
                self._warned.add(name)
                hint = "add a [[bots]] block of this name, or cancel its sessions"
                log.warning("unknown_bot_found", bot=name, sessions=count, hint=hint)
