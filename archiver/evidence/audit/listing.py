"""What the store has, as the audit notes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta

from archiver.config.path_template import QUARANTINE
from archiver.errors import StoreError
from archiver.evidence.audit.scratch import MAX_NUMBER, Scratch, key_bytes
from archiver.evidence.objects import FOLDER, parse
from archiver.stores import MARKER, Listed, Store

ORDINARY, EVIDENCE, MARKED, QUARANTINED, UNFINISHED = range(5)
"""What an object is by its key alone."""

_REFUSED = (
    "NoListing",
    "AccessDenied",
    "NotImplemented",
    "MethodNotAllowed",
    "AuthorizationPermissionMismatch",
    "AuthorizationFailure",
)
"""What buckets answer who may not list versions, or where there are none."""

DRIFT = timedelta(days=1)
"""How far the clocks of store and database may be apart: what is newer than now by more than that has no believable time."""


async def list_store(scratch: Scratch, store: Store, on_object: Callable[[], None]) -> bool:
    """Note all objects. Whether versions were seen: a bucket may permit the list of its objects, and not that one. Raises
    StoreError.
    """
    try:
        await _list(scratch, store, "", True, on_object)
    except StoreError as error:
        if error.facts.get("error") not in _REFUSED:
            raise
    else:
        return True
    scratch.run("DELETE FROM listing")
    await _list(scratch, store, "", False, on_object)
    return False


async def list_evidence(scratch: Scratch, store: Store, versions: bool, on_object: Callable[[], None]) -> None:
    """Note what was added to the evidence meanwhile. Raises StoreError."""
    await _list(scratch, store, FOLDER, versions, on_object)


async def _list(scratch: Scratch, store: Store, prefix: str, versions: bool, on_object: Callable[[], None]) -> None:
    async with aclosing(store.list(prefix, versions=versions)) as objects:
        async for key, newest, others in _by_key(objects):
            note(scratch, key, newest, others)
            on_object()
    scratch.flush()


async def _by_key(objects: AsyncIterator[Listed]) -> AsyncIterator[tuple[str, Listed, int]]:
    """Each key, its newest version, and how many others hold something."""
    newest: Listed | None = None
    others = 0
    async for listed in objects:
        if newest is not None and listed.key == newest.key:
            others += not listed.deleted
            continue
        if newest is not None:
            yield newest.key, newest, others
        newest, others = listed, 0
    if newest is not None:
        yield newest.key, newest, others


def note(scratch: Scratch, key: str, newest: Listed, others: int = 0) -> None:
    """Note one object."""
    raw = key_bytes(key)
    sort = _sort_of(key)
    modified = newest.modified.timestamp()
    size = None if newest.deleted or newest.bytes is None else min(newest.bytes, MAX_NUMBER)
    scratch.add("listing", raw, sort, size, modified, others, newest.deleted)
    named = parse(key) if sort == EVIDENCE and not newest.deleted else None
    if named is not None and named.kind != "record" and max(named.number, named.last) <= MAX_NUMBER:
        scratch.add("named", named.kind, named.number, named.last, named.again, raw)


def _sort_of(key: str) -> int:
    if key == MARKER:
        return MARKED
    if any(part.startswith(".") for part in key.split("/")):
        return UNFINISHED
    folder = key.partition("/")[0]
    if f"{folder}/" == FOLDER:
        return EVIDENCE
    return QUARANTINED if folder == QUARANTINE else ORDINARY


def is_young(modified: float, now: datetime, patience: timedelta) -> bool:
    """Whether it may belong to something that has not come to its end."""
    return (now - patience).timestamp() < modified < (now + DRIFT).timestamp()
