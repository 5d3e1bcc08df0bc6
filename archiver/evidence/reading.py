"""Reading small objects of the evidence whole, and never more than they can have."""

from __future__ import annotations

from contextlib import aclosing

from archiver.errors import StoreError
from archiver.stores import Store

MAX_SMALL = 64 * 1024
"""Bytes of a checkpoint, a signature, a file of signers: they have less than a thousand."""


class TooLong(StoreError):
    """An object is longer than anything that the archiver writes there."""


async def read_whole(store: Store, key: str, limit: int = MAX_SMALL) -> bytes:
    """The object's bytes. Raises TooLong, and StoreError as `Store.read` does."""
    blocks = []
    size = 0
    async with aclosing(store.read(key)) as reading:
        async for block in reading:
            size += len(block)
            if size > limit:
                raise TooLong(f"{key} has more than {limit} bytes", store_key=key, too_long=True)
            blocks.append(block)
    return b"".join(blocks)
