"""The threads of a store on a disk: what waits for the disk waits there, and not on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from archiver.runtime.cancellation import to_its_end

THREADS = 32
"""What waits for a disk waits side by side: on two cores, Python's own pool would have six of them."""

T = TypeVar("T")


class Threads:
    """Those of one store."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` in a thread, to its end."""
        return await to_its_end(asyncio.get_running_loop().run_in_executor(self.pool, work, *args))

    def close(self) -> None:
        """End them, once they are through: not awaited here, as a disk that hangs must not hang the loop."""
        self.pool.shutdown(wait=False)
