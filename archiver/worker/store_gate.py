"""The store while it fails: claiming pauses, longer each time, until the store can be written again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from archiver.errors import StoreError
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.stores import Store

log = logger(__name__)

PATIENCE = 5
"""A drain gives up when the store has failed so many times in a row, in pauses of 1, 2, 4 ... seconds."""

LONGEST_PAUSE_SECONDS = 60.0

PROVEN_SECONDS = 2 * LONGEST_PAUSE_SECONDS
"""A store that could be written for so long, while nothing was there to be stored, is in no trouble any more. Not at once: one
that has room for little would be in trouble, and in none, by turns.
"""


class StoreGate:
    """Counts failures in a row. Sessions that fail within one pause count once."""

    def __init__(self, store: Store, recognise: Callable[[], Awaitable[object]]) -> None:
        """`recognise` raises WrongStore where the store is not this archive's any more."""
        self._store = store
        self._recognise = recognise
        self._failures = 0
        self._retry_at = 0.0
        self._trouble = ""
        self._writable_since: float | None = None  # since it failed last

    @property
    def trouble(self) -> str:
        """Why it failed last; empty while it can be written."""
        proven = self._writable_since is not None and time.monotonic() - self._writable_since >= PROVEN_SECONDS
        return self._trouble if self.closed and not proven else ""

    @property
    def closed(self) -> bool:
        """The store failed last: nothing is claimed before it is tried."""
        return self._failures > 0

    @property
    def exhausted(self) -> bool:
        """It has failed so often that a drain gives up."""
        return self._failures >= PATIENCE

    def close(self, error: StoreError) -> timedelta:
        """The store failed. Returns how long the pause still lasts: 1, 2, 4 ... seconds, at most a minute."""
        now = time.monotonic()
        self._trouble, self._writable_since = error.message, None
        if now >= self._retry_at:
            self._failures += 1
            self._retry_at = now + min(2.0 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
            log.error("store_unavailable", failures=self._failures, **facts_of(error))
        return timedelta(seconds=self._retry_at - now)

    def open(self) -> None:
        """A file was stored."""
        self._failures = 0

    async def try_store(self) -> bool:
        """Whether the pause is over and the store can be written. Tried before a session is spent on it: that would cost a call
        to the platform. Raises DatabaseError.
        """
        if time.monotonic() < self._retry_at:
            return False
        try:
            await self._recognise()
            await self._store.check()
        except StoreError as error:
            self.close(error)
            return False
        if self._writable_since is None:
            self._writable_since = time.monotonic()
        return True
