"""Reading a body from a connection, and holding its sender to a pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp


class TooSlow(TimeoutError):
    """So little came in so long that the connection is given up."""


class Pace:
    """How one body comes in. A read that brings nothing for `stall` seconds raises TimeoutError, whatever else comes over the
    connection: of what chunks are wrapped in, its own timeouts know nothing. One that brought less than `min_rate` bytes a second
    over as long raises TooSlow.

    Only what is spent on waiting for the sender counts: our own disk and bandwidth are no fault of its. `on_wait` is told of it.
    """

    def __init__(self, stall: float, min_rate: int, on_wait: Callable[[float], None] = lambda _seconds: None) -> None:
        self._stall = stall
        self._on_wait = on_wait
        self.min_rate = min_rate
        """May be changed on the way; while it is 0 nothing is counted."""
        self.begin()

    def begin(self) -> None:
        """It comes over another connection now: what was before counts no more."""
        self._waited, self._came = 0.0, 0

    async def read(self, content: aiohttp.StreamReader) -> bytes:
        """What has come, at least a byte; nothing at the end. Raises aiohttp's errors besides."""
        if self._waited >= self._stall:
            waited, came = self._waited, self._came
            self.begin()
            if came < self.min_rate * waited:
                raise TooSlow(f"{came} bytes in {waited:.0f} s")
        piece = content.read_nowait(-1)
        if not piece:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._stall):
                    piece = await content.readany()
            finally:
                waited = time.monotonic() - began
                self._waited += waited if self.min_rate else 0
                self._on_wait(waited)
        self._came += len(piece) if self.min_rate else 0
        return piece
