"""What a queue must offer to be measured."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import asyncpg

Release = Callable[[], Awaitable[None]]
"""Says that this client is ready, and returns when all may begin."""


@dataclass(frozen=True)
class Settled:
    """What the database says of a round's jobs."""

    finished: int
    """Jobs that have ended, each counted once."""
    endings: int
    """How often a job was written down as ended: more than `finished` means that one ended twice."""
    claims: int
    """How often a job was claimed."""
    open: int
    """Jobs that have not ended."""
    last: float
    """When the last of them was committed, in seconds of the epoch, by the server's commit timestamps."""


class Tool(ABC):
    """One queue: its tables, its producer, its worker as its documentation has it run."""

    name: str
    versions: Sequence[str]
    """The packages whose versions a report names."""

    def __init__(self, **tuning: Any) -> None:
        self.tuning = {**self.best, **tuning}

    best: dict[str, Any]
    """The tuning that was fastest of those tried, on two cores; see the README."""

    @abstractmethod
    async def install(self, dsn: str) -> None:
        """Make the tables in an empty database."""

    @abstractmethod
    def producer(self, dsn: str) -> AbstractAsyncContextManager[Callable[[Sequence[str]], Awaitable[None]]]:
        """What enqueues a batch of session IDs."""

    @abstractmethod
    async def work(self, dsn: str, release: Release) -> int:
        """One client process: get ready, await `release`, work until the queue is empty. Returns how many jobs it ran."""

    @abstractmethod
    async def settled(self, connection: asyncpg.Connection[Any], since: float) -> Settled:
        """What came of the jobs that ended since then."""

    @abstractmethod
    async def load_finished(self, connection: asyncpg.Connection[Any], first: int, count: int) -> None:
        """Insert jobs that have ended, numbered from `first`, as the tool itself leaves them, in the order of their IDs."""

    tables: Sequence[str]
    """Where its jobs and their history are, for the report."""

    def run(self, main: Coroutine[Any, Any, int]) -> int:
        """Run a client on the event loop that the tool's own command uses."""
        return asyncio.run(main)


def session_ids(first: int, count: int) -> list[str]:
    """Object IDs as MongoDB makes them: they grow with time, several processes number theirs at once."""
    return [session_id(number) for number in range(first, first + count)]


EPOCH = 0x65000000
RATE = 20
PROCESSES = 16


def session_id(number: int) -> str:
    """The ID of session `number`; SESSION_ID is the same in SQL."""
    process = hashlib.md5(str(number % PROCESSES).encode(), usedforsecurity=False).hexdigest()[:10]
    return f"{EPOCH + number // RATE:08x}{process}{number & 0xFFFFFF:06x}"


SESSION_ID = f"""lpad(to_hex({EPOCH} + n / {RATE}), 8, '0') || left(md5((n % {PROCESSES})::text), 10)
                 || lpad(to_hex(n & {0xFFFFFF}), 6, '0')"""


async def told_to_begin() -> None:
    """The client's side of the barrier: a line each way."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


ProducerContext = AsyncIterator[Callable[[Sequence[str]], Awaitable[None]]]
