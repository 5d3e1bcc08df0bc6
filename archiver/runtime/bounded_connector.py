"""Connections that close when more answers come over them than were asked for."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage

MAX_UNASKED = 32
"""Answers that may wait unasked on a connection, or interim ones (1xx) before the one that was asked for: no server has a use for
more than a few.
"""


class BoundedConnector(aiohttp.TCPConnector):
    """Opens connections that are cut off after MAX_UNASKED unasked answers.

    aiohttp alone reads and keeps whatever comes while a connection is open, idle ones included: a gigabyte within the seconds
    after a good answer; and a flood of 1xx before an answer blocks the event loop for as long as it lasts.
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
