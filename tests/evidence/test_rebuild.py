"""Databases rebuilt from the store."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.errors import KeyUnusable, LedgerRefused, UsageError
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.whole import audit
from archiver.evidence.keys import SealingKey
from archiver.evidence.rebuild.report import Rebuilt
from archiver.evidence.rebuild.whole import Refused, Terms, rebuild
from archiver.outcome import Archived, Failed
from archiver.queue.sql import sql
from archiver.session import Attempt
from tests.evidence.audited import fill, make_old
from tests.evidence.sealing import PATH, PowerCut, SealedArchive, StopsAfter, check_chain, copied_database, sealed_archive

pytestmark = pytest.mark.once

RECHECKS = [timedelta(hours=1), timedelta(days=1)]


async def rebuilt_of(archive: SealedArchive, *, is_over: bool = True, store: Any = None, **changed: Any) -> Rebuilt:
    """Rebuild this database from its store, or one in its place; its workers' leases have run out, if that is over."""
    key = SealingKey.load(archive.evidence.key_file).public if archive.evidence.key_file else None
    terms = {
        "path": PATH, "bots": ["bot"], "recheck_unavailable": RECHECKS, "lease": timedelta(seconds=5), "key": key,
        "trusted": frozenset(), "by": "ana@desk", **changed,
    }  # fmt: skip
    if is_over:
        await archive.fetch("UPDATE archive_workers SET expires_at = now() - interval '1 second'")
    sealer = archive.another_sealer(store) if archive.evidence.key_file else None
    return await rebuild(archive.database, store or archive.store, sealer, Terms(**terms))


async def end_waiting(archive: SealedArchive, contents: Mapping[str, bytes]) -> None:
    """End sessions that wait, each with one file."""
    for session in await archive.claim(await archive.worker()):
        attempt = Attempt(session, calls=1)
        attempt.stored.append(await archive.put(session, 1, "a.wav", contents[session.session_id]))
        assert await archive.settle(attempt, Archived()) == "archived"


async def audited(archive: SealedArchive, **changed: Any) -> Report:
    """What a deep audit says, as if all that lies in the store lay there for long."""
    make_old(archive.root)
    key = SealingKey.load(archive.root.parent / "evidence.key").public
    given: dict[str, Any] = {"path": PATH, "patience": timedelta(days=7), "deep": True, "key": key}
    return await audit(archive.database, archive.store, Wanted(**given | changed))


async def told(archive: SealedArchive) -> list[tuple[Any, ...]]:
    """What the database says of its sessions and files, as a record can have it."""
    rows = await archive.fetch(
        """SELECT q.bot, q.session_id, q.kind, replace(q.state, 'claimed', 'pending') AS state, q.reason, q.detail, q.user_id,
                  q.metadata, q.call, q.accepted_by, q.calls, date_trunc('milliseconds', q.finished_at) AS finished_at,
                  date_trunc('milliseconds', q.archive_date) AS archive_date,
                  (SELECT array_agg((r.ordinal, r.source_name, r.store_key, r.bytes, r.sha256, r.flags)::text
                                    ORDER BY r.store_key) FROM archived_recordings r WHERE r.queue_id = q.id) AS files
           FROM archive_queue q WHERE q.session_id <> '+49 170 1234567' ORDER BY q.session_id"""
    )
    return [tuple(row.values()) for row in rows]


@pytest.fixture
async def another_url(postgres: str, template: str) -> AsyncIterator[str]:
    """A migrated database without anything."""
    name = f"rebuilt_{secrets.token_hex(6)}"
    base = postgres.rpartition("/")[0]
    connection = await asyncpg.connect(f"{base}/template1")
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield f"{base}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


async def test_a_database_is_as_it_was(database_url: str, another_url: str, tmp_path: Path) -> None:
    """But for what waited: that is enqueued again, or found again."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await fill(archive)
        await archive.sealer.finish()
        before = await told(archive)
        counts = await archive.fetch("SELECT bot, state, count(*) FROM archive_queue GROUP BY 1, 2 ORDER BY 1, 2")
    async with sealed_archive(another_url, tmp_path) as archive:
        found = await rebuilt_of(archive)
        assert (found.sealed, found.losses, found.given_up, found.problems) == (True, {}, 0, [])
        assert found.unnamed == 1, "the refused telephone number"
        after = await told(archive)
        assert after == [row for row in before if row[1] not in ("s-waiting", "s-slow")]
        report = await audited(archive)
        assert not report.findings.counts, report.findings.documents()
        await archive.end("s-new", files={"a.wav": b"goes on"})
        await archive.retry("s-one")
        await archive.sealer.finish()
        check_chain(archive.root)
        report = await audited(archive)
        assert not report.findings.counts, report.findings.documents()
        print(counts)


async def test_a_date_in_the_paths_is_kept_apart_from_the_call_s(database_url: str, another_url: str, tmp_path: Path) -> None:
    """A listing may say later when the call began: the paths that were made stay."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.add("s-one")
        await archive.fetch("UPDATE archive_queue SET started_at = archive_date - interval '3 days', listed_at = now()")
        await end_waiting(archive, {"s-one": b"one"})
        await archive.sealer.finish()
        before = await told(archive)
    async with sealed_archive(another_url, tmp_path) as archive:
        await rebuilt_of(archive)
        assert await told(archive) == before


async def test_an_older_database_catches_up(database_url: str, tmp_path: Path) -> None:
    """What its workers did meanwhile gives way to what the ledger has; what the ledger does not know stays."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-before", files={"a.wav": b"before"})
        await archive.end("s-unsealed", files={"a.wav": b"not sealed then"})
        await archive.add("s-moved")
        await archive.sealer.finish()
        await archive.end("s-late", files={"a.wav": b"in the outbox of both"})
    async with copied_database(database_url) as older:
        async with sealed_archive(database_url, tmp_path) as archive:
            await fill_more(archive)
            before = await told(archive)
        async with sealed_archive(older, tmp_path) as archive:
            await end_waiting(archive, {"s-moved": b"moved"})
            await archive.end("s-mine", files={"a.wav": b"of the older one alone"})
            await archive.end("s-both", files={"a.wav": b"in both"})
            with pytest.raises(LedgerRefused) as refused:
                await archive.sealer.finish()
            assert "archiver rebuild --catch-up" in refused.value.hint
            with pytest.raises(UsageError, match="are at work on this database"):
                await rebuilt_of(archive, is_over=False, catch_up=True)
            with pytest.raises(UsageError, match="has sessions, or a ledger, already"):
                await rebuilt_of(archive)
            found = await rebuilt_of(archive, catch_up=True)
            assert (found.losses, found.sealed) == ({}, True)
            assert found.dropped == 2, "s-late was sealed, s-both as the ledger has it"
            after = await told(archive)
            assert [row for row in after if row[1] != "s-mine"] == before
            await archive.sealer.finish()
            check_chain(archive.root)
            report = await audited(archive)
            assert not report.findings.counts, report.findings.documents()
            assert (await rebuilt_of(archive, catch_up=True)).sessions == 0, "there is nothing more"


async def test_catching_up_leaves_the_history_that_is_there(database_url: str, tmp_path: Path) -> None:
    """Who had claimed a session that ended elsewhere; and where a file lay, whose row says now where a repair put it."""
    query = """SELECT q.session_id, h.at, h.event, h.actor, h.data
               FROM archive_history h JOIN archive_queue q ON q.id = h.queue_id
               WHERE h.event <> 'rebuilt' ORDER BY q.session_id, h.at, h.id, h.place"""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        attempt = Attempt(await archive.claimed("s-file"))
        file = await archive.put(attempt.session, 1, "a.wav", b"whole")
        attempt.stored.append(file)
        attempt.note("stored", **file.as_row())
        await archive.settle(attempt, Archived())
        held = await archive.claimed("s-held")
        await archive.sealer.finish()
    async with copied_database(database_url) as older:
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.settle(Attempt(held, [await archive.put(held, 1, "a.wav", b"held")]), Archived())
            name, session = "a.repaired.wav", attempt.session
            copy = await archive.put(session, 1, name, b"whole")
            await archive.database.rows(
                sql("repair/move"), queue_id=session.id, epoch=session.epoch, from_key=file.store_key, sha256=file.sha256,
                store_key=copy.store_key, file_name=name, source="copy", actor="ana@desk",
            )  # fmt: skip
            await archive.sealer.finish()
        async with sealed_archive(older, tmp_path) as archive:
            before = await archive.fetch(query)
            await rebuilt_of(archive, catch_up=True)
            stored = await archive.fetch("SELECT store_key FROM archived_recordings")
            assert copy.store_key in [row["store_key"] for row in stored]
            assert len(stored) == 2
            assert await archive.fetch(query) == before


async def fill_more(archive: SealedArchive) -> None:
    """What happened after a dump was made."""
    await end_waiting(archive, {"s-moved": b"moved"})
    await archive.sealer.finish()
    await archive.retry("s-before")
    await archive.end("s-before", files={"a.wav": b"before", "b.wav": b"more"})
    await archive.end("s-both", files={"a.wav": b"in both"})
    await archive.sealer.finish()


async def test_another_ledger_is_not_caught_up_with(database_url: str, another_url: str, tmp_path: Path) -> None:
    """Nor one that is ahead of the store."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with sealed_archive(database_url, tmp_path / "a") as archive:
        await archive.begin()
        await archive.end("s-one", files={"a.wav": b"one"})
        await archive.sealer.finish()
        await archive.end("s-two", files={"a.wav": b"two"})
        shutil.copytree(tmp_path / "a", tmp_path / "c")
        await archive.sealer.finish()
    async with sealed_archive(database_url, tmp_path / "c") as archive:
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive, catch_up=True)
        assert "it is the store that is older" in refused.value.rebuilt.losses["ledger"][0].message
    async with sealed_archive(another_url, tmp_path / "b") as archive:
        await archive.begin()
        await archive.end("s-other", files={"a.wav": b"other"})
        await archive.sealer.finish()
    shutil.copy(tmp_path / "a/evidence.key", tmp_path / "b/evidence.key")
    shutil.rmtree(tmp_path / "b/store")
    shutil.copytree(tmp_path / "a/store", tmp_path / "b/store")
    async with sealed_archive(another_url, tmp_path / "b") as archive:
        with pytest.raises(LedgerRefused, match="not those of the store"):
            await rebuilt_of(archive, catch_up=True)


@pytest.mark.parametrize(
    "objects", [1, 2, pytest.param(3, marks=pytest.mark.thorough), 4, 5, pytest.param(6, marks=pytest.mark.thorough)]
)
async def test_a_database_is_lost_while_it_seals(objects: int, database_url: str, another_url: str, tmp_path: Path) -> None:
    """A batch whose entries came into the store is finished; one of which there is a claim alone is given up, if that is said."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-one", files={"a.wav": b"one"})
        await archive.sealer.finish()
        await archive.end("s-two", files={"a.wav": b"two"})
        await archive.end("s-three", files={"a.wav": b"three"})
        with suppress(PowerCut):
            await archive.another_sealer(StopsAfter(archive.store, objects)).finish()
    async with sealed_archive(another_url, tmp_path) as archive:
        for path in archive.root.rglob("*.part"):
            path.unlink()
        if objects == 1:
            with pytest.raises(LedgerRefused, match="claimed in the store just now"):
                await rebuilt_of(archive)
            make_old(archive.root)
        if objects < 4:
            with pytest.raises(Refused) as refused:
                await rebuilt_of(archive)
            assert set(refused.value.rebuilt.counts) == {"ledger" if objects == 1 else "record"}
            assert not await archive.fetch("SELECT * FROM archive_queue")
        found = await rebuilt_of(archive, accept_loss=objects < 4)
        states = {row["session_id"]: row["state"] for row in await archive.fetch("SELECT session_id, state FROM archive_queue")}
        expected = {"s-one": "archived", "s-two": "archived", "s-three": "archived"}
        if objects == 1:
            expected |= {"s-two": "pending", "s-three": "pending"}
            assert found.enqueued == 2
            assert found.entries == 2
        else:
            assert found.entries == 4
        if objects < 4:
            expected |= {name: "pending" for name in states if states[name] == "pending"}
            await end_waiting(archive, {"s-two": b"two", "s-three": b"three"})
        assert states == expected
        await archive.sealer.finish()
        report = await audited(archive)
        if objects in (2, 3):
            assert report.findings.counts == {"record_missing": 4 - objects}, report.findings.documents()
        else:
            assert not report.findings.counts, report.findings.documents()


async def test_a_part_of_the_ledger_is_lost(database_url: str, another_url: str, tmp_path: Path) -> None:
    """What follows is given up, and never written over; an audit knows of it ever after."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        for number in range(6):
            await archive.end(f"s-{number}", files={"a.wav": b"%d" % number})
            await archive.sealer.finish()
        before = archive.objects("evidence")
    (tmp_path / "store/evidence/ledger/000000000003-000000000003.jsonl").unlink()
    before.pop("evidence/ledger/000000000003-000000000003.jsonl")
    async with sealed_archive(another_url, tmp_path) as archive:
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive)
        (loss,) = refused.value.rebuilt.losses["ledger"]
        assert "7 entries, of which 3 are proven" in loss.message
        found = await rebuilt_of(archive, accept_loss=True)
        assert (found.given_up, found.sessions, found.enqueued) == (7, 2, 4)
        await end_waiting(archive, {f"s-{number}": b"%d" % number for number in range(6)})
        for number in range(10):
            await archive.sealer.finish()
            await archive.end(f"t-{number}", files={"a.wav": b"%d" % number})
        await archive.sealer.finish()
        after = archive.objects("evidence")
        assert {key: after[key] for key in before} == before, "nothing of it was written over"
        report = await audited(archive)
        records = {f"bot=bot/{path.split('bot=bot/')[1]}" for path in archive.objects("bot=bot") if path.endswith("session.json")}
        assert {finding.key for finding in report.findings.of("unrecorded")} <= records
        assert set(report.findings.counts) <= {"unrecorded"}, report.findings.documents()


async def test_a_key_that_is_lost_is_replaced(database_url: str, tmp_path: Path) -> None:
    """Nothing vouches for the new one but its fingerprint; what was sealed before stays proven."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-one", files={"a.wav": b"one"})
        await archive.sealer.finish()
        await archive.end("s-two", files={"a.wav": b"two"})
        (tmp_path / "evidence.key").unlink()
        with pytest.raises(KeyUnusable):
            await archive.sealer.finish()
        new = SealingKey.make(tmp_path / "evidence.key", "new")
        with pytest.raises(LedgerRefused, match="the ledger is signed by"):
            await archive.sealer.finish()
        await archive.sealer.rotate(new, lost=True)
        await archive.sealer.finish()
        check_chain(archive.root)
        assert set((await audited(archive, trusted=frozenset({new.public.fingerprint}))).findings.counts) == set()
        assert set((await audited(archive, key=None)).findings.counts) == {"key_unproven"}


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_store_that_was_restored_from_an_older_copy(kept: int, database_url: str, tmp_path: Path) -> None:
    """What the database says of the time between is sealed once more; whoever kept a checkpoint of it sees that."""
    copies = tmp_path / "copies"
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-one", files={"a.wav": b"one"})
        await archive.end("s-two", files={"a.wav": b"two"})
        await archive.add("+49 170 1")
        copies.mkdir()
        (copies / "0").mkdir()
        await archive.sealer.finish()
        shutil.copytree(archive.root, copies / "1")
        await archive.retry("s-two")
        await archive.sealer.finish()
        shutil.copytree(archive.root, copies / "2")
        await archive.end("s-two", files={"a.wav": b"two", "b.wav": b"and more"})
        await archive.retry("s-one")
        await archive.end("s-three", files={"a.wav": b"three"})
        await archive.sealer.finish()
        await archive.end("s-four", files={"a.wav": b"four"})
        size = len(archive.lines())
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(copies / str(kept), tmp_path / "store")
    async with sealed_archive(database_url, tmp_path) as archive:
        with pytest.raises(LedgerRefused, match="its newest checkpoint"):
            await archive.sealer.finish()
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive, catch_up=True)
        assert "it is the store that is older" in refused.value.rebuilt.losses["ledger"][0].message
        found = await rebuilt_of(archive, catch_up=True, accept_loss=True)
        assert (found.given_up, found.sealed) == (size, True)
        await archive.sealer.finish()
        check_chain(archive.root)
        report = await audited(archive)
        assert set(report.findings.counts) == {"recording_missing"}, report.findings.documents()
        for session, files in {"s-one": {"a.wav": b"one"}, "s-two": {"a.wav": b"two", "b.wav": b"and more"}}.items():
            for name, content in files.items():
                row = (await archive.fetch("SELECT store_key FROM archived_recordings WHERE session_id = $1 AND file_name = $2",
                                           session, name))[0]  # fmt: skip
                (archive.root / row["store_key"]).parent.mkdir(parents=True, exist_ok=True)
                (archive.root / row["store_key"]).write_bytes(content)
        assert (await audited(archive)).findings.counts == {"recording_missing": 2}, "those of s-three and s-four"


async def test_a_new_database_that_has_gone_on_catches_up(database_url: str, another_url: str, tmp_path: Path) -> None:
    """What it did that the ledger does not know is adopted."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-one", files={"a.wav": b"one"}, metadata={"a": 1})
        await archive.end("s-two", files={"a.wav": b"two"})
        await archive.sealer.finish()
        before = await told(archive)
    async with sealed_archive(another_url, tmp_path) as archive:
        await archive.end("s-new", files={"a.wav": b"new"})
        await archive.end("s-two", Failed("conflict"), files={"a.wav": b"two"})
        await archive.add("s-waiting")
        with pytest.raises(LedgerRefused) as refused:
            await archive.sealer.finish()
        assert "archiver rebuild" in refused.value.hint
        with pytest.raises(UsageError) as has_sessions:
            await rebuilt_of(archive)
        assert "--catch-up" in has_sessions.value.hint
        await rebuilt_of(archive, catch_up=True)
        assert [row for row in await told(archive) if row[1] in ("s-one", "s-two")] == before
        await archive.sealer.finish()
        await archive.sealer.finish()
        assert [line["event"] for line in check_chain(archive.root)][-2:] == ["rebuilt", "adopted"]
        report = await audited(archive)
        assert not report.findings.counts, report.findings.documents()
