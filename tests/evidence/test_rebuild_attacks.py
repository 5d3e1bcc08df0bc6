"""Attacks on rebuilding: what was found by those who tried to lose something by it, to fork a ledger, or to put in what was never
sealed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from archiver.config.path_template import PathTemplate
from archiver.errors import ArchiverError, LedgerRefused
from archiver.evidence.canonical import canonical
from archiver.evidence.keys import SealingKey
from archiver.evidence.rebuild.whole import Refused
from archiver.evidence.sealer import Sealer
from archiver.evidence.sealer import Terms as SealerTerms
from archiver.outcome import Failed, Unavailable
from tests.evidence.audited import make_old
from tests.evidence.sealing import PowerCut, SealedArchive, StopsAfter, check_chain, sealed_archive
from tests.evidence.test_rebuild import audited, end_waiting, rebuilt_of

pytestmark = pytest.mark.once

LEDGER = "evidence/ledger"
TIME = "2026-01-01T00:00:00.000Z"


async def sealed(archive: SealedArchive, batches: int, each: int) -> None:
    """So many batches of so many sessions, the first with the key."""
    await archive.begin()
    for number in range(batches * each):
        await archive.end(f"s-{number}", files={"a.wav": b"%d" % number})
        if (number + 1) % each == 0:
            await archive.sealer.finish()


def _settle(root: Path) -> None:
    for path in root.rglob("*.part"):
        path.unlink()
    make_old(root)


@asynccontextmanager
async def lost(template: str, postgres: str, folder: Path) -> AsyncIterator[SealedArchive]:
    """The archive of this folder, whose database is a migrated one without anything; what lies there lay there for long."""
    _settle(folder / "store")
    base, name = postgres.rpartition("/")[0], f"rebuilt_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(f"{base}/template1")
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        async with sealed_archive(f"{base}/{name}", folder) as archive:
            yield archive
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


async def test_a_row_that_is_refused_keeps_nothing_from_others(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """One of the same batch waits again, and the ledger is told so."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-1", Unavailable("media_unavailable"))
        await archive.end("s-2", files={"a.wav": b"abc"}, user_id="refused")
        await archive.sealer.finish()
        next(archive.root.glob("bot=bot/*/s-1/*/session.json")).unlink()
        next(archive.root.glob("bot=bot/*/s-2/*/a.wav")).unlink()
    async with lost(template, postgres, tmp_path) as archive:
        await archive.fetch("ALTER TABLE archive_queue ADD CHECK (user_id <> 'refused')")
        found = await rebuilt_of(archive, accept_loss=True)
        assert (found.sessions, found.files, found.pending, found.lost) == (1, 0, 1, 2)
        report = await audited(archive)
        assert report.findings.counts == {"row_missing": 1, "record_missing": 1, "recording_missing": 1}


async def test_what_was_given_up_is_no_gap(database_url: str, postgres: str, template: str, tmp_path: Path) -> None:
    """Batches of several entries are given up, and the ledger grows past them. What was given up once is lost no second time."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 5, 4)
        (archive.root / f"{LEDGER}/000000000009-000000000012.jsonl").unlink()
    async with lost(template, postgres, tmp_path) as archive:
        assert (await rebuilt_of(archive, accept_loss=True)).given_up == 21
        findings = (await audited(archive)).findings
        assert not findings.counts
        assert any("from 9 to 20 that there were before were given up" in known.message for known in findings.known)
    async with lost(template, postgres, tmp_path) as archive:
        found = await rebuilt_of(archive)
        assert (found.given_up, found.losses) == (21, {})
        await end_waiting(archive, {f"s-{number}": b"%d" % number for number in range(20)})
        for number in range(10):
            await archive.sealer.finish()
            await archive.end(f"t-{number}", files={"a.wav": b"%d" % number})
        await archive.sealer.finish()
        assert set((await audited(archive)).findings.counts) == {"unrecorded"}, "records of what was given up"
        (archive.root / f"{LEDGER}/000000000010-000000000010.jsonl").unlink()
        assert "ledger_gap" in (await audited(archive)).findings.counts
    async with lost(template, postgres, tmp_path) as archive:
        with pytest.raises(Refused, match="does not have all"):
            await rebuilt_of(archive)


@pytest.mark.parametrize("lose", ["a batch", "a part"])
async def test_an_original_that_slept_goes_on_no_more(
    lose: str, database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """What it needs next is taken: it publishes nothing, and of two databases one goes on."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 3, 4)
        if lose == "a batch":
            for name in ("s-a", "s-b", "s-c"):
                await archive.end(name, files={"a.wav": b"claimed"})
            with suppress(PowerCut):
                await archive.another_sealer(StopsAfter(archive.store, 1)).finish()
        else:
            (archive.root / f"{LEDGER}/000000000005-000000000008.jsonl").unlink()
            await archive.end("s-a", files={"a.wav": b"of one that sleeps"})
    async with lost(template, postgres, tmp_path) as rebuilt:
        await rebuilt_of(rebuilt, accept_loss=True)
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
            before = archive.objects("evidence")
            with pytest.raises(LedgerRefused):
                await archive.sealer.finish()
            assert archive.objects("evidence") == before
        await rebuilt.end("s-more", files={"a.wav": b"goes on"})
        await rebuilt.sealer.finish()
        assert set((await audited(rebuilt)).findings.counts) <= {"unrecorded"}


async def test_what_is_planted_keeps_nothing_from_being_told(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """Copies of notes where they say nothing, claims that nobody signed, a segment behind the end that says something."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 4, 2)
        copy = (archive.root / "evidence/checkpoint/000000000003").read_bytes()
        for key in ("claim/000000000099", "claim/000000000009", "claim/000000000009.999999"):
            (archive.root / f"evidence/{key}").write_bytes(copy)
        common = {"v": 1, "uid": str(uuid4()), "at": TIME, "event": "account", "actor": "person"}
        line = {**common, "account": 2**62, "bot": None, "complete": True, "counts": {}, "from": TIME, "to": TIME}
        (archive.root / f"{LEDGER}/000000000009-000000000011.jsonl").write_bytes(canonical(line) + b"\n")
    async with lost(template, postgres, tmp_path) as archive:
        found = await rebuilt_of(archive)
        assert (found.losses, found.entries) == ({}, 9)
        assert await archive.value("SELECT nextval(pg_get_serial_sequence('archive_accounts', 'id'))") == 1
        assert (archive.root / "evidence/claim/000000000009.2").exists()
        for number in range(5, 7):
            (archive.root / f"{LEDGER}/{5:012}-{6:012}.jsonl").unlink(missing_ok=True)
            (archive.root / f"evidence/claim/{number:012}").unlink(missing_ok=True)
    async with lost(template, postgres, tmp_path) as archive:
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive)
        assert "it has some 10 entries, of which 5 are proven" in refused.value.rebuilt.losses["ledger"][0].message


@pytest.mark.parametrize("objects", [0, 1, 2])
async def test_database_and_key_are_lost_together(
    objects: int, database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """Also while a batch was sealed, which nobody can finish any more: the new key signs that."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 1, 1)
        await archive.end("s-two", files={"a.wav": b"two"})
        with suppress(PowerCut):
            await archive.another_sealer(StopsAfter(archive.store, objects)).finish()
        old = SealingKey.load(tmp_path / "evidence.key").public.fingerprint
    (tmp_path / "evidence.key").unlink()
    new = SealingKey.make(tmp_path / "evidence.key", "new").public.fingerprint
    async with lost(template, postgres, tmp_path) as archive:
        with pytest.raises(LedgerRefused, match="trusted says that the key"):
            await rebuilt_of(archive, accept_loss=True)
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive, trusted=frozenset({old}))
        (loss,) = refused.value.rebuilt.losses["key"]
        assert old in loss.message
        assert new in loss.message
        assert not await archive.fetch("SELECT FROM archive_queue")
        await rebuilt_of(archive, trusted=frozenset({old}), accept_loss=True)
        await archive.sealer.finish()
        assert not (await audited(archive)).findings.counts
        assert set((await audited(archive, key=None, trusted=frozenset({old}))).findings.counts) == {"key_unproven"}


@pytest.mark.parametrize("objects", [0, 1, 2, 3, pytest.param(4, marks=pytest.mark.thorough)])
async def test_a_dump_of_what_was_sealed_and_not_published(objects: int, database_url: str, tmp_path: Path) -> None:
    """The database has the bytes: nothing is lost."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 1, 1)
        await archive.end("s-two", files={"a.wav": b"two"})
        with suppress(PowerCut):
            await archive.another_sealer(StopsAfter(archive.store, objects)).finish()
        _settle(archive.root)
        await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
        found = await rebuilt_of(archive, catch_up=True)
        assert (found.losses, found.entries) == ({}, 3)
        await archive.sealer.finish()
        assert not (await audited(archive)).findings.counts


async def test_a_key_that_was_replaced_signs_nothing_that_is_put_in(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """Whoever stole it, and why it was replaced, adds no session by it."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 1, 1)
        new = SealingKey.make(tmp_path / "new.key", "new")
        stolen = SealingKey.load(tmp_path / "evidence.key")
        await archive.sealer.rotate(new)
        await archive.fetch("UPDATE archive_ledger_head SET public_key = $1", stolen.public.openssh)
        await archive.end("s-forged", files={"a.wav": b"forged"})
        await archive.sealer.finish()
    shutil.copy(tmp_path / "new.key", tmp_path / "evidence.key")
    trusted = frozenset({stolen.public.fingerprint})  # by whoever made the ledger; the new one has signed nothing yet
    async with lost(template, postgres, tmp_path) as archive:
        with pytest.raises(Refused) as refused:
            await rebuilt_of(archive, trusted=trusted)
        assert "which an entry has replaced" in refused.value.rebuilt.losses["ledger"][0].message
        await rebuilt_of(archive, trusted=trusted, accept_loss=True)
        rows = await archive.fetch("SELECT session_id, state FROM archive_queue ORDER BY 1")
        assert [tuple(row.values()) for row in rows] == [("s-0", "archived"), ("s-forged", "pending")]


async def test_an_object_of_the_size_of_one_that_was_accepted(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """That was accepted by its hash: of another one the session is enqueued."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 1, 1)
        accepted = hashlib.sha256(b"xyz").hexdigest()
        await archive.ledger.note("noted", {"object_sha256": accepted, "bytes": 3, "by": "ana@desk"})
        await archive.sealer.finish()
        await archive.end("s-unsealed", files={"a.wav": b"abc"})
        await archive.end("s-accepted", files={"a.wav": b"xyz"})
    async with lost(template, postgres, tmp_path) as archive:
        assert (await rebuilt_of(archive)).enqueued == 1
        assert await archive.value("SELECT session_id FROM archive_queue WHERE state = 'pending'") == "s-unsealed"


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_newest_record_is_lost(is_there: bool, database_url: str, postgres: str, template: str, tmp_path: Path) -> None:
    """A file that only this one has is found by its hash; if it is gone, too, the session waits."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        await archive.end("s-1", files={"a.wav": b"abc"})
        await archive.retry("s-1")
        await archive.end("s-1", files={"a.wav": b"abc", "b.wav": b"def"})
        await archive.sealer.finish()
        next(archive.root.glob("bot=bot/*/s-1/*/session.2.json")).unlink()
        if not is_there:
            next(archive.root.glob("bot=bot/*/s-1/*/b.wav")).unlink()
    async with lost(template, postgres, tmp_path) as archive:
        found = await rebuilt_of(archive, accept_loss=True)
        assert (found.lost, found.pending, found.files) == (1, 0 if is_there else 1, 2 if is_there else 1)
        if is_there:
            await archive.sealer.finish()
            assert (await audited(archive)).findings.counts == {"record_missing": 1}


async def test_no_more_refused_sessions_are_excused_than_there_were(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    """Those whose IDs the lost database alone had are counted, also where it was cut short before that was sealed."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 1, 1)
        await archive.add("+49 170 1")
        await archive.sealer.finish()
    async with lost(template, postgres, tmp_path) as archive:
        with pytest.raises(PowerCut):
            await rebuilt_of(archive, store=StopsAfter(archive.store, 0))
        await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
        assert (await rebuilt_of(archive, catch_up=True)).unnamed == 1
        assert not (await audited(archive)).findings.counts
        await archive.add("+49 170 2")
        await archive.sealer.finish()
        assert (await rebuilt_of(archive, catch_up=True)).unnamed == 1
        assert not (await audited(archive)).findings.counts
        await archive.fetch("UPDATE archive_ledger SET salt = sha256(salt) WHERE salt IS NOT NULL")
        assert (await audited(archive)).findings.counts["row_missing"] == 1, "of the second, which was not lost"


async def test_a_record_is_no_recording_of_nobody(database_url: str, postgres: str, template: str, tmp_path: Path) -> None:
    """Also where something stands before its name: no session is enqueued for it, and it is not told of."""
    path = PathTemplate("{bot}/{kind}/{session_id}_{file_name}")
    async with sealed_archive(database_url, tmp_path) as archive:
        archive.sealer = Sealer(archive.ledger, archive.store, SealerTerms(archive.evidence, path, timedelta(seconds=5)))
        await archive.begin()
        await archive.end("s-1", Failed("conflict"))
        await archive.sealer.finish()
        await archive.end("s-2", Failed("conflict"))
        with suppress(PowerCut):  # its record is there, and nothing else any more
            terms = SealerTerms(archive.evidence, path, timedelta(seconds=5))
            await Sealer(archive.ledger, StopsAfter(archive.store, 3), terms).finish()
        (archive.root / f"{LEDGER}/000000000002-000000000002.jsonl").unlink()
    async with lost(template, postgres, tmp_path) as archive:
        found = await rebuilt_of(archive, path=path, accept_loss=True)
        assert (found.sessions, found.enqueued, found.left_alone) == (1, 0, 1)


async def test_two_rebuilds_at_once(database_url: str, postgres: str, template: str, tmp_path: Path) -> None:
    """One is the first, and the other undoes nothing of it."""
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 3, 4)
    async with lost(template, postgres, tmp_path) as archive:
        found = await asyncio.gather(rebuilt_of(archive), rebuilt_of(archive), return_exceptions=True)
        (refused,) = [each for each in found if isinstance(each, ArchiverError)]
        assert "grew meanwhile" in str(refused)
        await archive.end("s-more", files={"a.wav": b"goes on"})
        await archive.sealer.finish()
        assert len(check_chain(archive.root)) == 15
        assert not (await audited(archive)).findings.counts


async def test_a_checkpoint_of_the_middle_that_is_gone_is_told(
    database_url: str, postgres: str, template: str, tmp_path: Path
) -> None:
    async with sealed_archive(database_url, tmp_path) as archive:
        await sealed(archive, 3, 1)
        (archive.root / "evidence/checkpoint/000000000003").unlink()
    async with lost(template, postgres, tmp_path) as archive:
        found = await rebuilt_of(archive)
        assert (found.sessions, found.losses) == (3, {})
        assert found.problems == ["ledger_gap: the checkpoint is gone (evidence/checkpoint/000000000003)"]
