"""What is right is clean, however the archive came there and whatever goes on meanwhile; what is wrong is named."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import NothingSealed
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.records import is_sampled
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.whole import audit
from archiver.evidence.canonical import canonical
from archiver.evidence.checkpoints import Checkpoint, SignedCheckpoint, parse
from archiver.evidence.entries import Made, made_of
from archiver.evidence.keys import SealingKey
from archiver.outcome import Unavailable
from archiver.runtime.buffers import Buffers
from archiver.session import Attempt
from archiver.stores import Store
from archiver.stores.local.store import LocalStore
from tests.evidence.sealing import PATH, PowerCut, SealedArchive, StopsAfter, copied_database, sealed_archive
from tests.s3_servers import LOCKED_BUCKET, S3Server
from tests.stores.harnesses import s3_harness

pytestmark = pytest.mark.once

PATIENCE = timedelta(days=7)


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[SealedArchive]:
    async with sealed_archive(database_url, tmp_path) as opened:
        yield opened


async def audited(archive: SealedArchive, store: Store | None = None, **changed: Any) -> Report:
    key = SealingKey.load(archive.root.parent / "evidence.key").public
    given: dict[str, Any] = {"path": PATH, "patience": PATIENCE, "deep": True, "key": key}
    wanted = Wanted(**given | changed)
    return await audit(archive.database, store or archive.store, wanted)


async def found(archive: SealedArchive, store: Store | None = None, **changed: Any) -> set[str]:
    return set((await audited(archive, store, **changed)).findings.counts)


async def two_batches(archive: SealedArchive) -> None:
    await archive.begin()
    for name in ("s-1", "s-2"):
        await archive.end(name, files={"a.wav": name.encode()})
        await archive.sealer.finish()


async def test_without_a_ledger_nothing_is_proven(archive: SealedArchive) -> None:
    await archive.end("s-1", files={"a.wav": b"one"})
    with pytest.raises(NothingSealed) as nothing:
        await audited(archive)
    assert nothing.value.hint
    assert nothing.value.exit_code == 2
    await archive.begin()
    with pytest.raises(NothingSealed):
        await audited(archive)
    await archive.sealer.finish()
    assert await found(archive) == set()


STEPS = 7
"""Objects of the batch: a claim, a segment, two records, one more document of each kind, a signature, a checkpoint."""


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("step", range(9))
async def test_a_batch_on_its_way_is_no_finding(archive: SealedArchive, step: int, told: bool) -> None:
    await archive.sealer.finish()
    for name in ("s-1", "s-2"):
        await archive.end(name, files={"a.wav": name.encode()})
    with suppress(PowerCut, ExceptionGroup):
        await archive.another_sealer(StopsAfter(archive.store, step, save_last=not told)).round()
    report = await audited(archive)
    assert report.findings.documents() == []
    assert report.entries == 3
    await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
    await archive.end("s-3", files={"a.wav": b"three"})
    assert await found(archive) == set()
    await archive.sealer.finish()
    assert await found(archive) == set()


@pytest.mark.parametrize("step", range(9))
async def test_the_first_batch_on_its_way_is_no_finding(archive: SealedArchive, step: int) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    with suppress(PowerCut, ExceptionGroup):
        await archive.another_sealer(StopsAfter(archive.store, step)).round()
    names = await found(archive)
    # Before its first checkpoint is there nobody has signed anything.
    assert names <= {"key_unproven"}
    await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
    await archive.sealer.finish()
    assert await found(archive) == set()


async def test_it_is_clean_while_the_archive_is_at_work(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    done = asyncio.Event()

    async def work() -> None:
        for number in range(30):
            await archive.end(f"s-{number}", files={"a.wav": b"%d" % number})
            if number % 3 == 0:
                await archive.retry(f"s-{number}")
            if number % 4 == 0:
                await archive.end(f"n-{number}", Unavailable("media_unavailable", {"n": number}))
        done.set()

    async def seal() -> None:
        while not done.is_set():
            await archive.sealer.finish()

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        group.create_task(seal())
        audits = 0
        while not done.is_set() or audits < 2:
            report = await audited(archive)
            assert report.findings.documents() == []
            audits += 1
    await archive.sealer.finish()
    assert await found(archive) == set()


async def test_a_recheck_that_changes_nothing_is_clean(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end(
        "s-1", Unavailable("media_unavailable", {"n": 1, "url": "https://user:word@host.example/a?Signature=secret"})
    )
    await archive.sealer.finish()
    await archive.make_rechecks_due()
    (session,) = (await archive.queue.claim(await archive.worker(), {"bot": archive.quota("bot")}, 10)).sessions
    assert await found(archive) == set()
    detail = {"n": 1, "url": "https://user:word@host.example/a?Signature=secret"}
    await archive.settle(Attempt(session, calls=1), Unavailable("media_unavailable", detail))
    assert await found(archive) == set()


async def test_what_ended_before_is_adopted_and_until_then_counted(archive: SealedArchive) -> None:
    for number in range(4):
        await archive.end(f"s-{number}", files={"a.wav": b"%d" % number})
    await archive.retry("s-3")
    await archive.sealer.begin()
    await archive.another_sealer(adopt_per_minute=0).finish()
    report = await audited(archive)
    assert (report.to_adopt, report.clean) == (3, True)
    await archive.end("s-3", files={"a.wav": b"3"})
    await archive.sealer.finish()
    report = await audited(archive)
    assert (report.to_adopt, report.clean, report.entries) == (0, True, 5)


async def test_a_record_among_the_evidence_counts(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    beside = next(archive.root.glob("bot=bot/*/s-1/recording")) / "session.json"
    beside.write_bytes(b"planted")
    await archive.sealer.finish()
    (aside,) = archive.root.glob("evidence/record/*.json")
    make_old(archive.root)
    assert await found(archive) == {"unrecorded"}
    size = aside.stat().st_size
    beside.write_bytes(b"x" * size)
    make_old(archive.root)
    assert await found(archive) == {"unrecorded"}
    beside.unlink()
    assert await found(archive) == set()
    beside.write_bytes(aside.read_bytes())
    assert await found(archive) == set()
    aside.unlink()
    assert await found(archive) == set()
    beside.unlink()
    assert await found(archive) == {"record_missing"}


async def test_a_key_that_the_one_before_vouched_for(archive: SealedArchive, tmp_path: Path) -> None:
    await two_batches(archive)
    old = SealingKey.load(tmp_path / "evidence.key").public
    new = SealingKey.make(tmp_path / "new.key", "test")
    await archive.sealer.rotate(new)
    assert await found(archive) == set()
    # The new key has signed nothing yet: who trusts it alone has no proof.
    alone = (await audited(archive, key=new.public)).findings
    assert set(alone.counts) == {"key_unproven"}
    (told,) = [finding.message for finding in alone.of("key_unproven")]
    assert told.startswith(f"{new.public.fingerprint}, of evidence.key_file, has signed nothing yet")
    assert f"that did is {old.fingerprint}" in told
    assert await found(archive, key=new.public, trusted=frozenset({old.fingerprint})) == set()
    await archive.end("s-3", files={"a.wav": b"three"})
    await archive.another_sealer(key_file=tmp_path / "new.key").finish()
    for key in (old, new.public):
        assert await found(archive, key=key) == set()
        assert await found(archive, key=None, trusted=frozenset({key.fingerprint})) == set()
    report = await audited(archive, key=None)
    assert (set(report.findings.counts), report.trust) == ({"key_unproven"}, "none")
    assert len(report.keys) == 2
    stranger = SealingKey.make(tmp_path / "stranger.key", "test").public
    assert await found(archive, key=stranger) == {"key_unproven"}
    (archive.root / "evidence/keys/0002.allowed_signers").unlink()
    assert await found(archive) == {"evidence_changed"}


async def test_a_ledger_that_somebody_else_made_is_not_believed(
    archive: SealedArchive, database_url: str, tmp_path: Path
) -> None:
    """A forger with the database, and another key, makes all of it anew."""
    await two_batches(archive)
    kept = newest(archive)
    for table in ("archive_ledger_head", "archive_ledger_batches", "archive_ledger", "archive_ledger_outbox"):
        await archive.fetch(f"DELETE FROM {table}")
    shutil.rmtree(archive.root / "evidence")
    for record in archive.root.rglob("session*.json"):
        record.unlink()
    forger = SealingKey.make(tmp_path / "forger.key", "test").public
    await archive.another_sealer(key_file=tmp_path / "forger.key").finish()
    await archive.another_sealer(key_file=tmp_path / "forger.key").finish()
    assert await found(archive) == {"key_unproven"}
    assert await found(archive, key=forger) == set()
    assert await found(archive, key=forger, since=kept) == {"fork"}


def newest(archive: SealedArchive) -> SignedCheckpoint:
    return parse(sorted((archive.root / "evidence/checkpoint").glob("*[0-9]"))[-1].read_bytes())


async def test_a_checkpoint_that_was_kept_elsewhere(archive: SealedArchive, database_url: str, tmp_path: Path) -> None:
    await two_batches(archive)
    kept = [newest(archive)]
    await archive.end("s-3", files={"a.wav": b"three"})
    await archive.sealer.finish()
    kept.append(newest(archive))
    for since in kept:
        assert await found(archive, since=since) == set()
        assert (await audited(archive, since=since)).since == since.checkpoint.size
    assert (await audited(archive)).since is None
    key = SealingKey.load(tmp_path / "evidence.key")
    for checkpoint, name in (
        (Checkpoint("archive.example/calls", 9, kept[0].checkpoint.root), "rolled_back"),
        (Checkpoint("archive.example/calls", 2, kept[0].checkpoint.root), "fork"),
        (Checkpoint("archive.example/other", 3, kept[0].checkpoint.root), "fork"),
    ):
        assert await found(archive, since=parse(checkpoint.signed(key))) == {name}


async def test_store_and_database_rolled_back_together(archive: SealedArchive, database_url: str, tmp_path: Path) -> None:
    """Only a checkpoint that was kept elsewhere tells."""
    await two_batches(archive)
    shutil.copytree(archive.root, tmp_path / "older/store")
    shutil.copy(tmp_path / "evidence.key", tmp_path / "older")
    await archive.database.__aexit__(None, None, None)
    async with copied_database(database_url) as older_url:
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.end("s-3", files={"a.wav": b"three"})
            await archive.sealer.finish()
            kept = newest(archive)
        async with sealed_archive(older_url, tmp_path / "older") as older:
            assert await found(older) == set()
            assert await found(older, since=kept) == {"rolled_back"}
        async with sealed_archive(older_url, tmp_path) as older:
            assert "rolled_back" in await found(older)


async def test_a_copy_of_the_store_may_be_behind(archive: SealedArchive, tmp_path: Path) -> None:
    await two_batches(archive)
    shutil.copytree(archive.root, tmp_path / "copy")
    await archive.retry("s-1")
    await archive.end("s-1", files={"a.wav": b"s-1", "b.wav": b"more"})
    await archive.end("s-3", files={"a.wav": b"three"})
    await archive.sealer.finish()
    await archive.end("s-4", files={"a.wav": b"four"})
    copy = LocalStore(tmp_path / "copy", Buffers(2**20))
    try:
        report = await audited(archive, copy, replica=True)
        assert (report.findings.documents(), report.replica_lag) == ([], 3)
        assert "rolled_back" in await found(archive, copy)
        next((tmp_path / "copy").glob("bot=bot/*/s-2/*/a.wav")).write_bytes(b"x")
        assert await found(archive, copy, replica=True) == {"changed"}
        assert await found(archive, replica=True) == set()
        # A copy that is under way has some of what is newer.
        shutil.copytree(archive.root / "evidence/checkpoint", tmp_path / "copy/evidence/checkpoint", dirs_exist_ok=True)
        shutil.copytree(archive.root / "evidence/claim", tmp_path / "copy/evidence/claim", dirs_exist_ok=True)
        assert await found(archive, copy, replica=True) == {"changed"}
    finally:
        copy.close()


async def test_what_a_person_accepted_is_known(archive: SealedArchive) -> None:
    await two_batches(archive)
    (archive.root / "notes.txt").write_bytes(b"mine")
    make_old(archive.root)
    assert (await audited(archive, asked="other.txt")).asked is None
    report = await audited(archive, asked="notes.txt")
    assert set(report.findings.counts) == {"unrecorded"}
    assert report.asked is not None
    sha256, length = report.asked
    await archive.ledger.note("noted", {"object_sha256": sha256, "bytes": length, "by": "ana@desk"})
    for _ in range(2):
        report = await audited(archive)
        assert report.clean
        assert [known.key for known in report.findings.known] == ["notes.txt"]
        await archive.sealer.finish()
    (archive.root / "notes.txt").write_bytes(b"mein")
    make_old(archive.root)
    assert await found(archive) == {"unrecorded"}


async def test_what_is_young_may_still_be_recorded(archive: SealedArchive) -> None:
    await two_batches(archive)
    await archive.add("s-9")
    row = await archive.row("s-9")
    date = row["archive_date"].date()
    for key in ("x/a.wav", f"bot=bot/date={date}/s-9/recording/a.wav"):
        (archive.root / key).parent.mkdir(parents=True, exist_ok=True)
        (archive.root / key).write_bytes(b"x")
    report = await audited(archive)
    assert (report.clean, report.pending_objects) == (True, 2)
    make_old(archive.root)
    report = await audited(archive)
    assert [finding.key for finding in report.findings.of("unrecorded")] == ["x/a.wav"]
    later = time.time() + 30 * 86400
    os.utime(archive.root / "x/a.wav", (later, later))
    assert await found(archive) == {"unrecorded"}


async def test_what_waits_for_too_long_is_named(archive: SealedArchive) -> None:
    await two_batches(archive)
    await archive.end("s-3", files={"a.wav": b"three"})
    assert await found(archive) == set()
    await archive.fetch("UPDATE archive_ledger_outbox SET at = now() - interval '8 days'")
    report = await audited(archive)
    assert set(report.findings.counts) == {"unsealed"}
    assert report.unsealed_rows == 1


async def test_the_first_of_each_kind_are_named_and_the_others_counted(archive: SealedArchive) -> None:
    await two_batches(archive)
    for number in range(45):
        (archive.root / f"x-{number:02}").write_bytes(b"x")
    make_old(archive.root)
    documents = (await audited(archive)).findings.documents()
    assert len(documents) == 20
    assert documents[-1] == {"name": "unrecorded", "message": "1 bytes", "key": "x-19", "more": 25}


async def test_names_and_contents_of_any_kind_end_in_findings(archive: SealedArchive) -> None:
    await two_batches(archive)
    names = [
        b"\xff\xfe",
        b"claim/\xff",
        b"ledger/000000000004-000000000004.jsonl",
        b"ledger/999999999999999999-9.jsonl",
        b"ledger/000000000004-9999999999999999999.jsonl",
        b"checkpoint/9999999999999999999",
        b"claim/9000000000000000000",
        b"claim/000000000002.999999",
        b"[bold]",
        b"keys/0009.allowed_signers",
    ]
    for name in names:
        (archive.root / "evidence" / os.fsdecode(name)).write_bytes(b"\xff\0" * 50)
    for planted in ("claim/000000000003", "checkpoint/000000000007", "checkpoint/000000000009.sig"):
        (archive.root / "evidence" / planted).write_bytes(b"[" * 200_000)
    os.mkfifo(archive.root / "evidence/claim/000000000008")
    (archive.root / "evidence/checkpoint/000000000008").symlink_to("/etc/passwd")
    report = await audited(archive)
    assert set(report.findings.counts) <= {"unrecorded", "root_mismatch", "rolled_back"}
    assert report.findings.counts["unrecorded"] >= 8


async def test_bombs_are_no_records(archive: SealedArchive) -> None:
    await two_batches(archive)
    record = next(archive.root.glob("bot=bot/*/s-1/*/session.json"))
    size = record.stat().st_size
    record.write_bytes((b"[" * size)[:size])
    assert await found(archive) == {"record_changed"}
    segment = next(archive.root.glob("evidence/ledger/*2-*.jsonl"))
    segment.write_bytes(b'{"a":' * 12_000 + b"\n")
    assert await found(archive) == {"record_changed", "root_mismatch"}


async def test_rows_of_the_outbox_that_nobody_can_read_are_told_and_no_finding(archive: SealedArchive) -> None:
    await two_batches(archive)
    for body in ("{}", "[]", '"x"', '{"session": {"bot": "bot"}, "files": 3}'):
        await archive.fetch(
            "INSERT INTO archive_ledger_outbox (event, queue_id, body) VALUES ('settled', 1, $1::text::jsonb)", body
        )
    assert await found(archive) == set()
    await archive.sealer.finish()
    report = await audited(archive)
    assert (report.clean, {known.name for known in report.findings.known}) == (True, {"unreadable"})


@pytest.mark.parametrize("phase", ["objects", "sessions", "entries", "compared", "records", "recordings"])
async def test_one_that_is_ended_leaves_nothing(
    archive: SealedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    await two_batches(archive)
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "notes"))

    def end(what: str, _: int) -> None:
        if what == phase:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await audit(archive.database, archive.store, Wanted(PATH, PATIENCE, deep=True), end)
    gc.collect()
    assert not any((tmp_path / "notes").iterdir())
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.once
async def test_what_a_bucket_keeps_of_what_was_overwritten_or_deleted(
    database_url: str, tmp_path: Path, seaweedfs: S3Server
) -> None:
    async with (
        s3_harness(seaweedfs, bucket=LOCKED_BUCKET) as bucket,
        sealed_archive(database_url, tmp_path, bucket.store) as archive,
    ):
        await archive.begin()
        for name in ("s-1", "s-2", "s-3", "s-4"):
            await archive.end(name, files={"a.wav": name.encode()})
        await archive.sealer.finish()
        report = await audited(archive)
        assert (report.findings.documents(), report.versions_unseen) == ([], False)
        keys = {row["session_id"]: row["store_key"] for row in await archive.fetch("SELECT * FROM archived_recordings")}
        bucket.put(keys["s-1"], b"S-1")
        bucket.remove(keys["s-2"])
        bucket.remove("evidence/checkpoint/000000000005.sig")
        bucket.put(keys["s-3"].replace("a.wav", "session.json"), b"{}")
        findings = (await audited(archive)).findings
        record = keys["s-3"].replace("a.wav", "session.json")
        assert {finding.key for finding in findings.of("versions")} == {keys["s-1"], record}
        assert {finding.key for finding in findings.of("hidden")} == {keys["s-2"], "evidence/checkpoint/000000000005.sig"}
        assert set(findings.counts) == {"versions", "hidden", "changed", "record_changed", "checkpoint_wrong"}


def test_a_sample_has_everything_once_in_its_days() -> None:
    for part in (Fraction(1, 30), Fraction(2, 7), Fraction(1)):
        for seq in range(50):
            days = [day for day in range(700_000, 700_000 + part.denominator) if is_sampled(seq, day, part)]
            assert len(days) == part.numerator


def make_old(folder: Path) -> None:
    long_ago = time.time() - 30 * 86400
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)


async def test_a_record_of_a_later_version_is_named_and_its_hash_is_checked(
    archive: SealedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sealer stands in for that of a newer program: its records say so, and nothing else differs."""

    def made_later(row: Any, **given: Any) -> Made:
        made = made_of(row, **given)
        if made.record is None:
            return made
        record = made.record.replace(b'"schema":1', b'"schema":2')
        line = json.loads(made.line) | {"record": hashlib.sha256(record).hexdigest(), "record_bytes": len(record)}
        return replace(made, record=record, line=canonical(line))

    monkeypatch.setattr("archiver.evidence.sealer.made_of", made_later)
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.sealer.finish()
    report = await audited(archive)
    assert set(report.findings.counts) == {"later_schema"}
    assert "2" in report.findings.of("later_schema")[0].message
    path = next(archive.root.glob("bot=bot/*/s-1/*/session.json"))
    path.write_bytes(path.read_bytes().replace(b'"user_id":null', b'"user_id":"eve"')[:-4] + b"null")
    assert set((await audited(archive)).findings.counts) == {"record_changed"}
