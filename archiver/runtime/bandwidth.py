"""The process's share of the line: so many bytes a second, over all transfers together."""

from __future__ import annotations

import asyncio

BURST_SECONDS = 0.1
"""So far ahead of its pace a transfer may be: shorter waits would cost more than they smooth."""


class Bandwidth:
    """Whoever has received bytes waits until the pace allows them. Reading on so late makes the sender wait in turn."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._paid_until = 0.0

    async def take(self, size: int) -> None:
        """Return when `size` bytes more fit into the pace."""
        now = asyncio.get_running_loop().time()
        self._paid_until = max(self._paid_until, now - BURST_SECONDS) + size / self._rate
        if self._paid_until > now:
            await asyncio.sleep(self._paid_until - now)
