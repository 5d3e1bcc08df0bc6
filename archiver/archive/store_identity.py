"""Whose store it is: a marker in the store names the archive, and the database knows whether there is one.

Without it the folder below a disk that is not mounted looks like an empty store, and takes recordings that nobody finds again.
The model is restic's repository ID. The marker travels with the store: wherever it is moved to, it is this archive's.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Literal
from uuid import UUID

from archiver.errors import KeyConflict, StoreError, WrongStore
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.identity import Identities, Identity
from archiver.stores import LEDGER, MARKER, MAX_MARKER, Store

log = logger(__name__)

SAMPLE_EACH = 10
"""Recorded files that are looked for in a store without a marker: so many of the first sessions, and of the last."""

ADOPT = "if it is this archive's store: `archiver store adopt`"

TAKEN = "this database had no sessions; if that archive still has a database of its own, let storage.url lead elsewhere"

REBUILD = (
    "if the database of that archive is lost: `archiver rebuild`; else correct storage.url or database.url, whichever leads to "
    "the other one"
)

MOUNT = "mount its disk, or correct storage.url"

_ABOUT = "This is the store of one archive of call recordings. Keep this file with it, also when it is moved."


class Standing(Enum):
    """How a store and a database stand to each other."""

    OWN = "own"
    """The marker is this archive's."""
    TO_TAKE = "to take"
    """The marker is another archive's, and the database has neither sessions nor a store: it may become that archive's."""
    TO_REBUILD = "to rebuild"
    """The store has a ledger, and the database has neither sessions nor a store: that archive's database is lost."""
    FRESH = "fresh"
    """No marker, and no recordings."""
    UNADOPTED = "unadopted"
    """No marker, though there are recordings: of a version that wrote none."""


@dataclass(frozen=True)
class Marker:
    """What the object MARKER says."""

    archive_id: UUID
    created_at: datetime

    @property
    def content(self) -> bytes:
        """Its bytes, the same whoever writes them: two workers that start at once don't contradict each other."""
        document = {
            "about": _ABOUT,
            "archive": str(self.archive_id),
            "created_at": self.created_at.astimezone(UTC).isoformat(),
            "format": 1,
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Marker:
        """Raises ValueError."""
        document = json.loads(content)
        if not isinstance(document, dict):
            raise TypeError("no object")
        created_at = datetime.fromisoformat(str(document["created_at"]))
        created_at = created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC)
        return cls(UUID(str(document["archive"])), created_at.astimezone(UTC))


@dataclass(frozen=True)
class Recognised:
    """A store that may be used. `marker`: the one that it has."""

    standing: Standing
    identity: Identity
    marker: Marker | None
    changed: Literal["", "store_marked", "identity_taken", "store_moved"] = ""
    """What `claim_store` did, or noticed."""


@dataclass(frozen=True)
class Sample:
    """Recorded files that were looked for in a store."""

    looked_for: int
    missing: list[str]
    """The keys of those that are not there with the size recorded."""

    @property
    def found(self) -> int:
        """How many are there."""
        return self.looked_for - len(self.missing)


async def recognise(identities: Identities, store: Store, url: str) -> Recognised:
    """Tell whose store is at `url`; writes nothing. Raises WrongStore where it is another archive's, or has not the marker that
    this archive's store is known to have; and other StoreErrors.
    """
    identity = await identities.read()
    marker = await _read_marker(store, url)
    if marker is None and identity.marked_at is not None:
        formerly = f"; it was last at {identity.url}" if identity.url != url else ""
        raise WrongStore(
            f"{url} has no {MARKER}, which this archive's store has had since {identity.marked_at:%Y-%m-%d}: probably its "
            f"disk is not mounted, or it is another folder or bucket{formerly}",
            hint="mount it, or correct storage.url; if the store was moved without that file: `archiver store adopt`; if it is "
            "lost, and this is to be a new one: `archiver store adopt --force`",
        )
    if marker is None and identity.has_recordings:
        return Recognised(Standing.UNADOPTED, identity, None)
    if marker is None:
        is_lost = not identity.has_sessions and await store.size(LEDGER) is not None
        return Recognised(Standing.TO_REBUILD if is_lost else Standing.FRESH, identity, None)
    if marker.archive_id == identity.archive_id:
        return Recognised(Standing.OWN, identity, marker)
    if identity.has_sessions or identity.marked_at is not None:
        raise _foreign(url, marker, identity)
    return Recognised(Standing.TO_TAKE if await store.size(LEDGER) is None else Standing.TO_REBUILD, identity, marker)


async def claim_store(database: Database, store: Store, url: str, *, adopt_known: bool) -> Recognised:
    """Recognise the store, and mark it if it is empty and no recording is known; with `adopt_known` also if all files of a
    sample are there. Raises as `recognise`, and WrongStore for an unmarked store that has none of the recorded files.
    """
    identities = Identities(database)
    found = await recognise(identities, store, url)
    match found.standing:
        case Standing.OWN:
            if found.identity.url == url:
                return found
            await identities.mark(url)
            return replace(found, changed="store_moved" if found.identity.url is not None else "")
        case Standing.TO_REBUILD:
            raise to_rebuild(url)
        case Standing.TO_TAKE if found.marker is not None:
            await identities.take(found.marker.archive_id, found.marker.created_at, url)
            return replace(await recognise(identities, store, url), changed="identity_taken")
        case Standing.FRESH if not await is_empty(store):
            return found
        case Standing.UNADOPTED:
            looked = await sample(identities, store)
            _refuse_without_files(url, looked, most=False)
            if not adopt_known or looked.missing:
                return found
    return await _mark(database, store, url, found.standing)


def to_rebuild(url: str) -> WrongStore:
    """What is wrong with a store whose database is lost."""
    return WrongStore(
        f"{url} is the store of an archive that has a ledger, and this database has no sessions", hint=REBUILD, to_rebuild=True
    )


async def take_over(database: Database, store: Store, url: str) -> None:
    """Be the archive that the store's marker names, as its ledger is this database's; mark it, if it was moved without one.
    Raises WrongStore where the marker is not the archiver's.
    """
    identities = Identities(database)
    identity, marker = await identities.read(), await _read_marker(store, url)
    if marker is None:
        await _write_marker(store, url, identity)
    elif marker.archive_id != identity.archive_id:
        await identities.take(marker.archive_id, marker.created_at, url, deliberately=True)
    await identities.mark(url)


async def adopt(database: Database, store: Store, url: str, *, force: bool = False) -> Sample:
    """Say that the store at `url` is this archive's, if half of a sample of the recorded files is there. It is marked, with
    `force` also if fewer or none are there. Where it has another archive's marker, which nobody overwrites, the database takes
    that archive's ID, as after an older dump was restored. Raises WrongStore where too few files are there, where living workers
    use another store, and where the marker is not the archiver's.
    """
    identities = Identities(database)
    identity, marker = await identities.read(), await _read_marker(store, url)
    looked = await sample(identities, store)
    if marker is not None and marker.archive_id == identity.archive_id:
        await identities.mark(url)
        return looked
    for other in await identities.storing_workers():
        if marker is not None or other["store"] != url:  # one that stores here only has its store marked
            raise WrongStore(
                f"worker {other['id']} (host {other['host']}, process {other['pid']}) is at work, and stores into "
                f"{other['store']}",
                hint="end the workers first: they would go on with the store that they have",
            )
    if marker is not None:
        unknown = not looked.looked_for and (identity.has_sessions or identity.marked_at is not None)
        if unknown or 2 * looked.found < looked.looked_for:
            raise _foreign(url, marker, identity, restored=False)
        await identities.take(marker.archive_id, marker.created_at, url, deliberately=True)
    else:
        if not force:
            _refuse_without_files(url, looked, most=True)
            _refuse_second_store(url, looked, identity)
        await _write_marker(store, url, identity)
        await identities.mark(url)
    log.warning("store_adopted", store=url, archive=str((await identities.read()).archive_id),
                formerly=str(identity.archive_id), found=looked.found, looked_for=looked.looked_for, forced=force)  # fmt: skip
    return looked


async def sample(identities: Identities, store: Store) -> Sample:
    """Look for some recorded files. Raises StoreUnavailable."""
    known = await identities.sample(SAMPLE_EACH)
    return Sample(len(known), [key for key, size in known if not await _is_there(store, key, size)])


def mixes(url: str, other: str) -> bool:
    """Whether workers with these storage.urls would put recordings into different stores. Folders may be mounted anywhere: which
    one it is, its marker says.
    """
    kinds = {each.partition(":")[0] for each in (url, other)}
    return kinds != {"file"} and url.rstrip("/") != other.rstrip("/")


async def _mark(database: Database, store: Store, url: str, standing: Standing) -> Recognised:
    """Under a lock: two hosts must not each mark an empty folder of their own."""
    identities = Identities(database)
    async with database.alone("store marker", on_wait=lambda: None):
        found = await recognise(identities, store, url)
        if found.standing is not standing:
            return found
        await _write_marker(store, url, found.identity)
        await identities.mark(url)
        return replace(await recognise(identities, store, url), changed="store_marked")


def _refuse_without_files(url: str, looked: Sample, *, most: bool) -> None:
    """Raises WrongStore where none of the files is there; with `most`, where fewer than half are: a worker may have put some
    into the folder below a disk that was not mounted.
    """
    if not looked.looked_for or (looked.found * 2 >= looked.looked_for if most else looked.found):
        return
    few = f"{looked.found} of {looked.looked_for}" if looked.found else f"none of {looked.looked_for}"
    raise WrongStore(
        f"{url} has {few} recorded files that were looked for; missing is, for example, {looked.missing[0]}",
        hint=f"{MOUNT}; if it is the right one, and they are lost: `archiver store adopt --force`",
    )


def _refuse_second_store(url: str, looked: Sample, identity: Identity) -> None:
    """Raises WrongStore where there is a marked store, and nothing by which another could be recognised."""
    if identity.marked_at is not None and not looked.looked_for:
        raise WrongStore(
            f"{url} has no {MARKER}; this archive's store has been marked at {identity.url}, and there are no recordings yet by "
            "which another place could be recognised",
            hint=f"{MOUNT}; if this is to be the store from now on: `archiver store adopt --force`",
        )


def _foreign(url: str, marker: Marker, identity: Identity, *, restored: bool = True) -> WrongStore:
    hint = "correct storage.url or database.url, whichever leads to the other archive"
    if restored and identity.has_recordings:
        hint += "; if the database was restored from an older dump, and the store is its own: `archiver store adopt`"
    if not identity.has_recordings:
        hint += "; if the database of that archive is lost, and this is a new one: `archiver rebuild --catch-up`"
    return WrongStore(
        f"{url} is the store of archive {marker.archive_id}; this database is of archive {identity.archive_id}", hint=hint
    )


async def is_empty(store: Store) -> bool:
    """Whether nothing is in it, as far as that may be seen: a bucket may not be listed by everybody."""
    try:
        return await store.empty()
    except StoreError as error:
        log.info("store_listing_failed", error=error.message)
        return False


async def _is_there(store: Store, key: str, size: int) -> bool:
    try:
        return await store.size(key) == size
    except StoreError as error:
        if error.facts.get("not_a_regular_file"):
            return False
        raise


async def _read_marker(store: Store, url: str) -> Marker | None:
    content = b""
    try:
        async with aclosing(store.read(MARKER)) as blocks:
            async for block in blocks:
                content += block
                if len(content) > MAX_MARKER:
                    break
    except StoreError as error:
        if error.facts.get("missing"):
            return None
        if error.facts.get("not_a_regular_file"):
            raise WrongStore(error.message, hint=error.hint) from None
        raise
    try:
        if len(content) <= MAX_MARKER:
            return Marker.parse(content)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    raise WrongStore(
        f"{MARKER} in {url} is not what the archiver writes there",
        hint="find out who wrote it, and restore the file from a copy of the store; without one, move it away and run "
        "`archiver store adopt`",
    )


async def _write_marker(store: Store, url: str, identity: Identity) -> None:
    content = Marker(identity.archive_id, identity.created_at).content
    try:
        async with store.upload(MARKER, part=f".{MARKER}.part") as upload:
            upload.expect(len(content))
            await upload.write(content)
            await upload.save()
    except KeyConflict:
        raise WrongStore(
            f"{url} was marked as the store of another archive a moment ago", hint="run this again; it says which"
        ) from None
