"""What comes over a connection: a body, whose sender is held to a pace, and no more answers than were asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage

MAX_UNASKED = 32
"""So many answers may wait on a connection that nobody asked for, or come before the one that was (1xx): no server has a use for
more than a few.
"""


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


class BoundedConnector(aiohttp.TCPConnector):
    """Opens connections that end where more comes over them than was asked for. aiohttp alone reads and keeps whatever comes as
    long as one is open, also while it lies idle: a gigabyte within the seconds after a good answer, and a flood of 1xx before an
    answer stops everything else for as long as it lasts.
    """

    def __init__(self, **terms: Any) -> None:
        super().__init__(**terms)
        self._factory = cast("partial[ResponseHandler]", partial(_Bounded, loop=self._loop))


class _Bounded(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """An answer has begun."""
        if self.exception() is not None:
            return
        self._interim = self._interim + 1 if 100 <= data[0].code < 200 else 0
        if max(self._interim, len(self)) < MAX_UNASKED:
            super().feed_data(data, size)
            return
        self.set_exception(HttpProcessingError(code=400, message="more answers than were asked for"))
        if self.transport is not None:
            self.transport.abort()
