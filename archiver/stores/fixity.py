"""Reading a recorded file again, and holding what is there against what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archiver.errors import StoreError
from archiver.stores import Digest, Store

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
    (found,) = await store.digests([(key, size)])
    return held_against(found, size, sha256)


def held_against(found: Digest | StoreError, size: int, sha256: str) -> Reading:
    """What was read, where `size` bytes and this hash are recorded."""
    if isinstance(found, StoreError):
        return Reading(_verdict_of(found), 0, None, found.message, str(found.facts.get("error", "")))
    if (found.sha256, found.bytes) == (sha256, size):
        return Reading("equal", found.bytes, found.sha256)
    there = "more" if found.sha256 is None else f"{found.bytes} bytes {found.sha256}"
    return Reading("changed", found.bytes, found.sha256, f"recorded {size} bytes {sha256}, found {there}")


def _verdict_of(error: StoreError) -> Verdict:
    if error.facts.get("missing"):
        return "missing"
    return "not_a_regular_file" if error.facts.get("not_a_regular_file") else "unreadable"
