"""Fixity: every recorded file is read again and hashed again, and held against the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from archiver.errors import StoreError
from archiver.postgres.database import Database
from archiver.queue.reports import Reports
from archiver.stores import Store

Verdict = Literal["equal", "missing", "changed", "not_a_regular_file", "unreadable"]


@dataclass(frozen=True)
class Verified:
    """One recorded file, read to its end, or as far as it is longer than it should be."""

    bot: str
    session_id: str
    store_key: str
    verdict: Verdict
    bytes_recorded: int
    bytes_read: int
    sha256_recorded: str
    sha256_read: str | None
    message: str = ""


async def verify(database: Database, store: Store, *, bot: str | None) -> AsyncIterator[Verified]:
    """Verify every recorded file of `bot` (None: of all), in the ledger's order, with constant memory."""
    async for file in Reports(database).recordings(bot=bot):
        yield await _verify_one(store, file.bot, file.session_id, file.store_key, file.bytes, file.sha256)


async def _verify_one(store: Store, bot: str, session_id: str, key: str, size: int, sha256: str) -> Verified:
    digest = hashlib.sha256()
    read = 0
    try:
        async with aclosing(store.read(key)) as blocks:
            async for block in blocks:
                digest.update(block)
                read += len(block)
                if read > size:  # whatever else comes, it could be without an end
                    message = f"recorded {size} bytes {sha256}, found more"
                    return Verified(bot, session_id, key, "changed", size, read, sha256, None, message)
    except StoreError as error:
        return Verified(bot, session_id, key, _verdict_of(error), size, read, sha256, None, error.message)
    found = digest.hexdigest()
    if (found, read) == (sha256, size):
        return Verified(bot, session_id, key, "equal", size, read, sha256, found)
    return Verified(
        bot, session_id, key, "changed", size, read, sha256, found, f"recorded {size} bytes {sha256}, found {read} bytes {found}"
    )


def _verdict_of(error: StoreError) -> Verdict:
    if error.facts.get("missing"):
        return "missing"
    return "not_a_regular_file" if error.facts.get("not_a_regular_file") else "unreadable"
