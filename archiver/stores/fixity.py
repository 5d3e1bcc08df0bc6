"""Reading a recorded file again, and holding what is there against what was recorded."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from archiver.errors import StoreError
from archiver.stores import Store

Verdict = Literal["equal", "missing", "changed", "not_a_regular_file", "unreadable"]


@dataclass(frozen=True)
class Reading:
    """What became of reading a file to its end, or as far as it is longer than it should be. `sha256`: of what is there, if it
    was read whole; `error`: what the system or service calls its refusal.
    """

    verdict: Verdict
    bytes: int
    sha256: str | None
    message: str = ""
    error: str = ""


async def read_again(store: Store, key: str, size: int, sha256: str) -> Reading:
    """Read a file of which `size` bytes and this hash are recorded. Raises nothing of the store's."""
    digest = hashlib.sha256()
    read = 0
    try:
        async with aclosing(store.read(key)) as blocks:
            async for block in blocks:
                digest.update(block)
                read += len(block)
                if read > size:  # whatever else comes, it could be without an end
                    return Reading("changed", read, None, f"recorded {size} bytes {sha256}, found more")
    except StoreError as error:
        return Reading(_verdict_of(error), read, None, error.message, str(error.facts.get("error", "")))
    found = digest.hexdigest()
    if (found, read) == (sha256, size):
        return Reading("equal", read, found)
    return Reading("changed", read, found, f"recorded {size} bytes {sha256}, found {read} bytes {found}")


def _verdict_of(error: StoreError) -> Verdict:
    if error.facts.get("missing"):
        return "missing"
    return "not_a_regular_file" if error.facts.get("not_a_regular_file") else "unreadable"
