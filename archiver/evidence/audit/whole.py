"""The audit from beginning to end: list the store, read the database, read the ledger, hold all against each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime

from archiver.errors import NothingSealed
from archiver.evidence.audit.chain import Chain
from archiver.evidence.audit.context import Audit, Wanted
from archiver.evidence.audit.ends import Ends
from archiver.evidence.audit.fetching import Reader
from archiver.evidence.audit.listing import list_evidence, list_store
from archiver.evidence.audit.objects import Objects
from archiver.evidence.audit.records import Contents
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.scratch import Scratch, scratch
from archiver.evidence.audit.sessions import Sessions
from archiver.evidence.audit.tables import read_database
from archiver.evidence.audit.trust import Keys
from archiver.evidence.keys import PublicKey
from archiver.postgres.database import Database
from archiver.queue.audit import AuditQueries, snapshot
from archiver.stores import Store

STANDBY_SECONDS = 30
"""How far a standby may be behind the store."""

PAUSE_EACH = 1000
"""So many steps, and others may use the loop."""


async def audit(
    database: Database, store: Store, wanted: Wanted, on_progress: Callable[[str, int], None] = lambda what, count: None
) -> Report:
    """Audit an archive; changes nothing. Raises NothingSealed where there is no ledger, StoreError, DatabaseError, and
    EvidenceError where the audit's own notes cannot be kept.
    """
    with scratch() as notes:
        report = Report(deep=wanted.deep, sampled=None if wanted.sample is None else str(wanted.sample))
        under_way = Audit(wanted, notes, Reader(store), report, datetime.now(UTC), on_progress=on_progress)
        await _audit(under_way, AuditQueries(database), database)
        report.bytes_read = under_way.reader.bytes_read
        return report


async def _audit(audit: Audit, queries: AuditQueries, database: Database) -> None:
    report, wanted = audit.report, audit.wanted
    store = audit.reader.store

    def count() -> None:
        report.objects += 1
        audit.on_progress("objects", report.objects)

    versions = await list_store(audit.scratch, store, count)
    (report.objects,) = audit.scratch.one("SELECT count(*) FROM listing") or (0,)
    report.versions_unseen = not versions
    async with snapshot(database) as seen:
        audit.now = seen.now
        await read_database(audit, seen)
    await list_evidence(audit.scratch, store, versions, lambda: None)
    audit.newest_head = await queries.head()
    if not audit.published and audit.unpublished is None and not _has_ledger(audit.scratch):
        raise NothingSealed(
            "no ledger: nothing is sealed, and so nothing is proven",
            hint="let evidence.key_file name a key (`ssh-keygen -t ed25519 -N '' -f evidence.key`), then `archiver seal`",
        )
    standby = await database.reads_standby()
    keys = Keys(_other_keys(audit), wanted.trusted | ({wanted.key.fingerprint} if wanted.key is not None else set()))
    reached = await Chain(audit, keys).read()
    for _ in range(STANDBY_SECONDS if standby else 0):
        if audit.newest_head is None or audit.newest_head.size >= reached.size:
            break
        await asyncio.sleep(1)
        audit.newest_head = await queries.head()
    await Ends(audit, reached, keys).check()
    for first, last in audit.lost:
        async for queue_id in queries.sessions_of(first, min(last, audit.size)):
            audit.scratch.add("untold", queue_id)
    number = 0
    for number, _ in enumerate(Sessions(audit).check()):
        if number % PAUSE_EACH == 0:
            await asyncio.sleep(0)
    await _through(Objects(audit).check())
    contents = Contents(audit, queries, min(reached.newest, default=0))
    await _through(contents.check_records())
    if wanted.deep:
        await _through(contents.check_recordings())
    if report.unsealed_seconds > wanted.patience.total_seconds():
        audit.findings.add(
            "unsealed", f"{report.unsealed_rows:,} rows of the outbox, the first for {report.unsealed_seconds / 86400:.1f} days"
        )


async def _through(steps: AsyncIterator[None]) -> None:
    number = 0
    async for _ in steps:
        number += 1
        if number % PAUSE_EACH == 0:
            await asyncio.sleep(0)


def _has_ledger(notes: Scratch) -> bool:
    return notes.one("SELECT 1 FROM named WHERE kind IN ('claim', 'segment', 'checkpoint')") is not None


def _other_keys(audit: Audit) -> list[PublicKey]:
    """Keys that may have signed, whatever the entries say: the configured one, and the database's."""
    found = [audit.wanted.key] if audit.wanted.key is not None else []
    if audit.head is not None:
        with suppress(ValueError):
            found.append(PublicKey.from_openssh(audit.head.public_key))
    return found
