"""Reading many objects at once, in order, and never more at a time than fit into memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from archiver.errors import StoreError, StoreUnavailable
from archiver.evidence.reading import MAX_SMALL, read_whole
from archiver.stores import Store
from archiver.stores.fixity import Reading, read_again

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16


MAX_FAILED = 50
"""So many objects in a row that cannot be read for what seems to be the whole store: then it is the whole store."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object's bytes; None where it is missing, or cannot be read (`problem` says why)."""

    content: bytes | None
    problem: str = ""


class Reader:
    """Reads the store's objects; one that cannot be read keeps it from nothing. Raises StoreUnavailable where none can."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.bytes_read = 0
        self._failed = 0

    def _on_error(self, error: StoreError) -> str:
        """What is wrong with the object; empty if it is missing."""
        self._failed = self._failed + 1 if isinstance(error, StoreUnavailable) else 0
        if self._failed > MAX_FAILED:
            raise error
        return "" if error.facts.get("missing") else error.message

    async def fetch(self, key: str, limit: int = MAX_SMALL) -> Fetched:
        """A small object."""
        try:
            content = await read_whole(self.store, key, limit)
        except StoreError as error:
            return Fetched(None, self._on_error(error))
        self._failed = 0
        self.bytes_read += len(content)
        return Fetched(content)

    async def size(self, key: str) -> int | None:
        """The size of an object now; None where there is no such file."""
        try:
            found = await self.store.size(key)
        except StoreError as error:
            self._on_error(error)
            return None
        self._failed = 0
        return found

    async def read_again(self, key: str, size: int, sha256: bytes) -> Reading:
        """A recording, held against what was recorded."""
        found = await read_again(self.store, key, size, sha256.hex())
        self._failed = self._failed + 1 if found.verdict == "unreadable" else 0
        if self._failed > MAX_FAILED:
            raise StoreUnavailable(f"{key}: {found.message}", hint="the store cannot be read; run the audit again when it can")
        self.bytes_read += found.bytes
        return found

    async def hash(self, key: str) -> tuple[str, int] | None:
        """The SHA-256 of an object, and its length."""
        digest, length = hashlib.sha256(), 0
        try:
            async with aclosing(self.store.read(key)) as blocks:
                async for block in blocks:
                    digest.update(block)
                    length += len(block)
        except StoreError as error:
            self._on_error(error)
            return None
        return digest.hexdigest(), length

    async def lines(self, key: str, longest: int) -> AsyncGenerator[bytes, None]:
        """The lines of an object, without their newlines. Raises ValueError where one is longer, or the last one is not ended;
        StoreError. Whoever leaves off early closes it.
        """
        rest = b""
        async with aclosing(self.store.read(key)) as blocks:
            async for block in blocks:
                self.bytes_read += len(block)
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    if len(line) > longest:
                        raise ValueError("a line is too long")
                    yield line
                if len(rest) > longest:
                    raise ValueError("a line is too long")
        if rest:
            raise ValueError("the last line is not ended")


async def in_order(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int = AT_ONCE
) -> AsyncGenerator[tuple[T, R], None]:
    """Each item with what `work` made of it, in the order of the items, `at_once` at a time. Whoever leaves off early closes
    it.
    """
    running: deque[tuple[T, asyncio.Task[R]]] = deque()

    async def run(item: T) -> R:
        return await work(item)

    async def oldest() -> tuple[T, R]:
        item, task = running.popleft()
        try:
            return item, await task
        finally:
            task.cancel()

    try:
        for item in items:
            running.append((item, asyncio.create_task(run(item))))
            if len(running) >= at_once:
                yield await oldest()
        while running:
            yield await oldest()
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
