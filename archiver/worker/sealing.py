"""Sealing, beside the sessions of a worker whose configuration has a key: every so often, or when enough waits."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from archiver.errors import ArchiverError, SealedElsewhere
from archiver.evidence.sealer import Sealer
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.queue.ledger import MAX_ENTRIES, Ledger

log = logger(__name__)

LOOK_SECONDS = 10.0
"""How often it is seen how much waits."""

MAX_PAUSE_SECONDS = 300.0
"""How long it waits at most after trouble: twice as long each time."""

LATE_SECONDS = 3600.0
"""What has waited for so long, and for twice the interval, is late."""

AGAIN_SECONDS = 600.0
"""How often the same trouble is logged."""


class Sealing:
    """Seals what waits longer than `interval`. Whatever goes wrong here is logged: archiving goes on, and what waits is sealed
    when it can be.
    """

    def __init__(self, sealer: Sealer, ledger: Ledger, interval: timedelta) -> None:
        self._sealer = sealer
        self._ledger = ledger
        self._interval = interval.total_seconds()
        self._waiting_seconds = 0.0
        self._trouble = ""
        self._logged_at = 0.0

    @property
    def trouble(self) -> str:
        """Why what happened is not sealed, though it could be; empty: it is, or will be in time."""
        if self._trouble:
            return self._trouble
        if self._waiting_seconds > max(LATE_SECONDS, 2 * self._interval):
            return f"what happened first has waited {self._waiting_seconds / 60:.0f} minutes to be sealed"
        return ""

    async def begin(self) -> None:
        """Begin the ledger, if there is none: what ends from now on is in it."""
        try:
            await self._sealer.begin()
        except ArchiverError as error:
            self._log(error)

    async def run(self) -> None:
        """Until cancelled."""
        often = pause = min(LOOK_SECONDS, self._interval)
        while True:
            try:
                more = await self._look()
            except SealedElsewhere:
                self._trouble = ""  # it is another's now
                pause = often
            except ArchiverError as error:
                self._log(error)
                # What is refused now may be refused for days, and each try may put a whole batch once more.
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            except Exception as error:  # nothing of what is sealed may stop what is archived
                log.error("sealing_failed", error=type(error).__name__, exc_info=True)
                self._trouble = f"it failed ({type(error).__name__}): the log says where"
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                pause = often
                if more:
                    continue
            await asyncio.sleep(pause)

    async def _look(self) -> bool:
        """Seal, if it is time. Whether more may wait."""
        waiting = await self._ledger.waiting()
        self._waiting_seconds = waiting.seconds
        # In the future: the clock was set back since.
        due = waiting.unpublished or waiting.rows >= MAX_ENTRIES or not 0 <= waiting.seconds < self._interval
        if not due and (waiting.rows or not await self._adopts()):
            self._trouble = ""
            return False
        sealed = await self._sealer.round()
        self._trouble = ""
        left = await self._ledger.waiting()
        self._waiting_seconds = left.seconds
        # A batch may be small: of sessions with long histories, few fit into one.
        return sealed.entries > 0 and (left.rows >= MAX_ENTRIES or left.seconds >= max(self._interval, 1.0))

    async def _adopts(self) -> bool:
        head = await self._ledger.head()
        return head is None or (head.adopts and self._sealer.adopts)

    def _log(self, error: ArchiverError) -> None:
        now = time.monotonic()
        if error.message != self._trouble or now >= self._logged_at + AGAIN_SECONDS:
            log.error("sealing_failed", **facts_of(error))
            self._trouble, self._logged_at = error.message, now
