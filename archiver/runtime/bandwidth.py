"""A limit on the bytes a second that all transfers of this process receive together."""

from __future__ import annotations

import asyncio

BURST_SECONDS = 0.1
"""Transfers may run this far ahead: shorter waits would cost more than they smooth."""


class Bandwidth:
    """Delays whoever has received bytes until the limit allows them. Reading later makes the sender slow down in turn."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._paid_until = 0.0

    async def take(self, size: int) -> None:
        """Wait until `size` more bytes are within the limit."""
        now = asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now - BURST_SECONDS) + size / self._rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)
