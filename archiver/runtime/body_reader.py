"""Reading the body of an answer from a sender that may stall, or be too slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp


class TooSlow(TimeoutError):
    """The sender stayed below the least rate for too long."""


class BodyReader:
    """Reads one body. A read that brings nothing for `stall` seconds raises TimeoutError; one after `stall` seconds of waiting
    with fewer than `min_rate` bytes a second raises TooSlow.

    Only time spent waiting for the sender counts, not our own disk and bandwidth; `on_wait` is called with each wait in seconds.
    """

    def __init__(self, stall: float, min_rate: int, on_wait: Callable[[float], None] = lambda _seconds: None) -> None:
        self._stall = stall
        self._on_wait = on_wait
        self.min_rate = min_rate
        """May be changed while reading; 0: no least rate."""
        self.framed = True
        """The body may come in chunks, whose frames aiohttp's own timeout (`sock_read`) takes for progress. False: that one is
        enough, and it raises TimeoutError, too.
        """
        self.reset()

    def reset(self) -> None:
        """Count anew, for a body that goes on over another connection."""
        self._waited, self._received = 0.0, 0

    async def read(self, content: aiohttp.StreamReader) -> bytes:
        """What has come, at least a byte; empty at the end. Raises aiohttp's errors besides."""
        if self._waited >= self._stall:
            waited, received = self._waited, self._received
            self.reset()
            if received < self.min_rate * waited:
                raise TooSlow(f"{received} bytes in {waited:.0f} s")
        piece = content.read_nowait(-1)
        if not piece and not content.at_eof():
            began = time.monotonic()
            try:
                if self.framed:
                    async with asyncio.timeout(self._stall):
                        piece = await content.readany()
                else:
                    piece = await content.readany()
            finally:
                waited = time.monotonic() - began
                self._waited += waited if self.min_rate else 0
                self._on_wait(waited)
        self._received += len(piece) if self.min_rate else 0
        return piece


def is_chunked(response: aiohttp.ClientResponse) -> bool:
    """Whether a body comes in chunks, and so has an end of its own: one that breaks off before is an error then."""
    codings = response.headers.get("Transfer-Encoding")
    if codings is None:
        return False
    return ",".join(response.headers.getall("Transfer-Encoding")).split(",")[-1].strip().lower() == "chunked"
