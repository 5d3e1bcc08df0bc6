"""The SHA-256 of an object that comes in blocks."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from archiver.errors import StoreError
from archiver.stores import Digest, Pay

HASHED_TOGETHER = 1024 * 1024
"""Bytes that are worth a hop to a thread, in which they are hashed while the next ones come."""


async def digest_of(blocks: AsyncGenerator[bytes, None], expected: int, pay: Pay | None = None) -> Digest | StoreError:
    """As `Store.digests`, of what `Store.read` gives. In memory are so many bytes twice, and a block."""
    hashing = _Hashing()
    read = 0
    try:
        async with aclosing(blocks):
            async for block in blocks:
                read += len(block)
                await hashing.take(block)
                if pay is not None:
                    await pay(len(block))
                if read > expected:  # whatever else comes, it could be without an end
                    return Digest(read, None)
    except StoreError as error:
        return error
    return Digest(read, await hashing.end())


class _Hashing:
    """A hash of blocks that come one after another."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._blocks: list[bytes] = []
        self._waiting = 0
        self._under_way: asyncio.Future[None] | None = None

    async def take(self, block: bytes) -> None:
        """The next one."""
        self._blocks.append(block)
        self._waiting += len(block)
        if self._waiting >= HASHED_TOGETHER:
            await self._hashed()
            blocks, self._blocks, self._waiting = self._blocks, [], 0
            self._under_way = asyncio.get_running_loop().run_in_executor(None, self._update, blocks)

    async def end(self) -> str:
        """In hexadecimal."""
        await self._hashed()
        self._update(self._blocks)
        return self._digest.hexdigest()

    async def _hashed(self) -> None:
        if self._under_way is not None:
            await self._under_way

    def _update(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self._digest.update(block)
