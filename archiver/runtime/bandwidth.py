"""A limit on the bytes a second that all transfers of this process receive together."""

from __future__ import annotations

import asyncio

BURST_SECONDS = 0.1
"""Transfers may run this far ahead: shorter waits would cost more than they smooth."""


class Bandwidth:
    """Delays whoever has received bytes until the limit allows them. Reading later makes the sender slow down in turn. None: no
    limit.
    """

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._paid_until = 0.0

    def change(self, bytes_per_second: int | None) -> None:
        """Another limit from now on; who waits already waits as long as it was told to. Nobody pays for what came before."""
        if bytes_per_second != self._rate:
            self._rate, self._paid_until = bytes_per_second, 0.0

    async def take(self, size: int) -> None:
        """Wait until `size` more bytes are within the limit."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now - BURST_SECONDS) + size / self._rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)
