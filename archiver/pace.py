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
        self.demand(min_rate)

    def demand(self, min_rate: int) -> None:
        """From now on so many bytes a second are expected; 0: any."""
        self._min_rate = min_rate
        self._waited, self._came = 0.0, 0

    async def read(self, content: aiohttp.StreamReader) -> bytes:
        """What has come, at least a byte; nothing at the end. Raises aiohttp's errors besides."""
        if self._waited >= self._stall:
            if self._came < self._min_rate * self._waited:
                raise TooSlow(f"{self._came} bytes in {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
        piece = content.read_nowait(-1)
        if not piece:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._stall):
                    piece = await content.readany()
            finally:
                waited = time.monotonic() - began
                self._waited += waited
                self._on_wait(waited)
        self._came += len(piece)
        return piece
