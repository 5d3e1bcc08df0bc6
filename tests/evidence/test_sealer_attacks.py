"""Attacks on sealing: what was found by those who tried to stop it, to lose an entry, or to make one that contradicts another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.errors import ArchiverError, LedgerNotBegun, LedgerRefused, StoreUnavailable
from archiver.evidence.checkpoints import parse
from archiver.evidence.keys import SealingKey
from archiver.outcome import Archived, Failed, Retry
from archiver.queue.ledger import MAX_TAKEN
from archiver.queue.sessions import CallFacts
from archiver.session import Attempt, State
from archiver.worker.sealing import Sealing
from tests.disks import disk, remount
from tests.evidence.sealing import PowerCut, SealedArchive, StopsAfter, check_chain, sealed_archive

pytestmark = pytest.mark.once

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[SealedArchive]:
    async with sealed_archive(database_url, tmp_path) as opened:
        yield opened


async def test_a_clock_that_jumps_back_stops_no_adoption(archive: SealedArchive) -> None:
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.begin()
    await archive.fetch("UPDATE archive_ledger_head SET adopt_at = now() + interval '1 year'")
    await archive.sealer.finish()
    await archive.fetch("UPDATE archive_ledger_head SET adopt_at = adopt_at - interval '1 minute'")
    await archive.sealer.finish()
    assert [entry.get("session") for entry in check_chain(archive.root)] == [None, "s-1"]


async def test_a_clock_that_jumps_back_leaves_no_lease_for_a_year(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.fetch("UPDATE archive_ledger_head SET leased_until = now() + interval '1 year', sealer = gen_random_uuid()")
    await archive.sealer.round()


async def test_what_waits_since_tomorrow_is_sealed_today(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.fetch("UPDATE archive_ledger_outbox SET at = now() + interval '1 year'")
    sealing = Sealing(archive.sealer, archive.ledger, timedelta(minutes=5))
    await sealing._look()
    assert len(check_chain(archive.root)) == 2
    assert not sealing.trouble


@pytest.mark.parametrize("at", ["infinity", "-infinity", "4000-01-01 BC", "20000-01-01"])
async def test_no_time_in_a_history_stops_it(archive: SealedArchive, at: str) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.fetch("UPDATE archive_events SET at = $1::text::timestamptz", at)
    await archive.sealer.finish()
    assert [entry.get("session") for entry in check_chain(archive.root)] == [None, "s-1"]


@pytest.mark.parametrize("at", ["infinity", "-infinity", "4000-01-01 BC", "20000-01-01", "0001-01-01"])
async def test_no_time_of_a_session_stops_it(archive: SealedArchive, at: str) -> None:
    await archive.end("s-0", files={"a.wav": b"one"})
    await archive.fetch("UPDATE archive_queue SET finished_at = $1::text::timestamptz", at)
    await archive.begin()
    await archive.claimed("s-1")
    times = ", ".join(f"{column} = $1::text::timestamptz" for column in ("started_at", "ended_at", "archive_date", "enqueued_at"))
    await archive.fetch(f"UPDATE archive_queue SET {times}", at)
    await archive.operators.cancel(reason="x", actor="ana", ids=["s-1"], states=tuple(State))
    await archive.sealer.finish()
    await archive.sealer.finish()
    assert [entry["event"] for entry in check_chain(archive.root)] == ["key", "settled", "adopted"]
    assert not await archive.value("SELECT adopt_before FROM archive_ledger_head")


async def test_an_acceptance_while_it_is_adopted_is_not_before_its_adoption(archive: SealedArchive) -> None:
    await archive.end("s-1", Failed("conflict"))
    await archive.begin()
    async with archive.locked("SELECT FROM archive_queue FOR UPDATE"):
        accepting = asyncio.create_task(
            archive.operators.accept(reason="lost", actor="ana@desk", ids=["s-1"], states=tuple(State))
        )
        await archive.blocked(1)
        adopting = asyncio.create_task(archive.ledger.adopt(600))
        await archive.blocked(2)
    await accepting
    await adopting
    events = [row["event"] for row in await archive.fetch("SELECT event FROM archive_ledger_outbox ORDER BY id")]
    assert events in (["accepted"], ["adopted", "accepted"])


async def test_a_listing_during_a_settle_has_its_files(archive: SealedArchive) -> None:
    await archive.begin()
    session = await archive.claimed("s-1")
    attempt = Attempt(session, calls=1)
    attempt.stored.append(await archive.put(session, 1, "a.wav", b"one"))
    async with archive.locked("SELECT FROM archive_queue FOR UPDATE"):
        settling = asyncio.create_task(archive.settle(attempt, Archived()))
        await archive.blocked(1)
        listing = asyncio.create_task(
            archive.queue.add_call_facts("bot", [CallFacts("s-1", "recording", NOW, NOW, "ana", {"caller": "+49 170 1"})])
        )
        await archive.blocked(2)
    await asyncio.gather(settling, listing)
    await archive.sealer.finish()
    _, settled, described = check_chain(archive.root)
    assert (settled["event"], described["event"]) == ("settled", "described")
    assert described["files"] == settled["files"]


async def test_one_that_slept_through_a_change_of_keys_signs_nothing_with_the_old_one(
    archive: SealedArchive, tmp_path: Path
) -> None:
    await archive.sealer.finish()
    await archive.end("s-1", files={"a.wav": b"one"})
    new = SealingKey.make(tmp_path / "new.key", "test")

    class Sleepy:
        """A store behind which the sealer is away for longer than its lease: meanwhile another one changes keys."""

        slept = False

        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

        async def size(self, key: str) -> int | None:
            size = await archive.store.size(key)
            if key.startswith("evidence/claim/") and not self.slept:
                self.slept = True
                await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
                await archive.another_sealer().rotate(new)
                await archive.end("s-2", files={"a.wav": b"two"})
                await asyncio.sleep(1)  # its lease is renewed every third of it
            return size

    sleepy = archive.another_sealer(Sleepy(), lease=timedelta(seconds=1.5))
    with suppress(ArchiverError):
        await sleepy.round()
    head = await archive.ledger.head()
    assert head is not None
    assert head.public_key == new.public.openssh


async def test_a_long_transaction_does_not_hold_others_up_while_the_ledger_waits_to_begin(archive: SealedArchive) -> None:
    connection = await asyncpg.connect(archive.database.dsn)
    async with connection.transaction():
        await connection.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-0')")
        beginning = asyncio.create_task(archive.begin())
        await archive.blocked(1)
        async with asyncio.timeout(10):
            await archive.add("s-1")
            with pytest.raises(LedgerNotBegun):
                await beginning
    await connection.close()
    await archive.begin()


async def test_a_busy_archive_adopts_too(archive: SealedArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    await archive.end("s-0", files={"a.wav": b"one"})
    await archive.begin()

    original = archive.sealer._publisher.publish

    async def publish(batch: Any) -> None:
        await archive.add(f"+49 {batch.last}")  # refused: it ends at once
        await original(batch)

    monkeypatch.setattr(archive.sealer._publisher, "publish", publish)
    for _ in range(5):
        await archive.sealer.round()
    assert "adopted" in [entry["event"] for entry in check_chain(archive.root)]


async def test_no_more_is_taken_at_a_time_than_fits_into_memory_with_its_history(archive: SealedArchive) -> None:
    await archive.begin()
    for number in range(4):
        await archive.end(f"s-{number}", files={"a.wav": b"one"})
    await archive.fetch(
        "INSERT INTO archive_events (queue_id, event, epoch, data) SELECT id, 'asked', 0, $1 FROM archive_queue",
        {"answer": "x" * (MAX_TAKEN // 2)},
    )
    async with archive.sealer._leased(), archive.ledger.sequencing(archive.sealer._id) as sequencing:
        assert sequencing is not None
        assert [len(await sequencing.take()) for _ in range(5)] == [1, 1, 1, 1, 0]


async def test_one_folder_that_takes_nothing_is_not_the_store(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    date = next(archive.root.glob("bot=bot/*"))
    (date / "s-2").mkdir()
    with disk(date / "s-2/recording", "64k"):
        remount(date / "s-2/recording", "ro")
        await archive.end("s-2", Failed("conflict"))
        await archive.end("s-3", files={"a.wav": b"three"})
        await archive.sealer.finish()
    *_, entry, _ = check_chain(archive.root)
    assert entry["session"] == "s-2"
    assert (archive.root / f"evidence/record/{entry['record']}.json").exists()


async def test_a_store_that_is_away_is_not_asked_for_each_record(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    for number in range(60):
        await archive.end(f"s-{number}", Failed("conflict"))

    class Away:
        """Claim and segment it still took."""

        asked = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

        def upload(self, key: str, **given: Any) -> Any:
            self.asked += 1
            if key.endswith(".json"):
                raise StoreUnavailable("the store is away")
            return archive.store.upload(key, **given)

    away = Away()
    with pytest.raises(StoreUnavailable):
        await archive.another_sealer(away).finish()
    assert away.asked < 55
    await archive.sealer.finish()
    assert len(check_chain(archive.root)) == 61


async def test_a_batch_is_not_brought_into_an_empty_folder_where_the_store_was(archive: SealedArchive, tmp_path: Path) -> None:
    await archive.sealer.finish()
    await archive.end("s-1", files={"a.wav": b"one"})
    with pytest.raises(PowerCut):
        await archive.another_sealer(StopsAfter(archive.store, 1)).round()
    archive.root.rename(tmp_path / "not mounted")
    archive.root.mkdir()
    with pytest.raises(LedgerRefused, match="lacks evidence/checkpoint/000000000001"):
        await archive.sealer.round()
    assert not archive.objects()
    archive.root.rmdir()
    (tmp_path / "not mounted").rename(archive.root)
    await archive.sealer.finish()
    assert len(check_chain(archive.root)) == 2


@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("step", range(6))
async def test_a_change_of_keys_that_was_cut_short_is_finished_by_whoever_holds_either_key(
    archive: SealedArchive, tmp_path: Path, step: int, first: str
) -> None:
    await archive.sealer.finish()
    old, new = SealingKey.load(tmp_path / "evidence.key").public, SealingKey.make(tmp_path / "new.key", "test")
    if step < 5:  # a claim, a segment, the new key's file, a signature, a checkpoint
        with pytest.raises(PowerCut):
            await archive.another_sealer(StopsAfter(archive.store, step)).rotate(new)
        await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
    else:
        await archive.sealer.rotate(new)
    holder = archive.another_sealer(key_file=tmp_path / "new.key")
    await (archive.sealer if first == "old" and step < 5 else holder).round()
    await archive.end("s-1", files={"a.wav": b"one"})
    with pytest.raises(LedgerRefused, match="the ledger is signed by SHA256:"):
        await archive.sealer.finish()
    await holder.finish()
    assert [entry["event"] for entry in check_chain(archive.root)] == ["key", "key", "settled"]
    signed = [parse((archive.root / f"evidence/checkpoint/{size:012}").read_bytes()) for size in (1, 2, 3)]
    assert [note.signed_by(old) for note in signed] == [True, True, False]
    assert signed[2].signed_by(new.public)


async def test_a_cancellation_during_a_settle_has_its_files(archive: SealedArchive) -> None:
    await archive.begin()
    attempt = Attempt(await archive.claimed("s-1"), calls=1)
    attempt.stored.append(await archive.put(attempt.session, 1, "a.wav", b"one"))
    async with archive.locked("SELECT FROM archive_queue FOR UPDATE"):
        settling = asyncio.create_task(archive.settle(attempt, Retry("api_unreachable")))
        await archive.blocked(1)
        cancelling = asyncio.create_task(archive.operators.cancel(reason="x", actor="ana", ids=["s-1"], states=tuple(State)))
        await archive.blocked(2)
    assert (await settling, await cancelling) == (State.PENDING, ["s-1"])
    await archive.sealer.finish()
    *_, entry = check_chain(archive.root)
    assert (entry["state"], len(entry["files"])) == ("cancelled", 1)


async def test_whoever_waits_for_the_end_does_not_wait_for_all_that_is_adopted(archive: SealedArchive) -> None:
    """Each round takes a while, in which the rate allows some more."""
    for number in range(4):
        await archive.end(f"s-{number}", files={"a.wav": b"one"})
    await archive.begin()

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(archive.store, name)

        async def size(self, key: str) -> int | None:
            await archive.fetch("UPDATE archive_ledger_head SET adopt_at = now() - interval '1 minute'")
            return await archive.store.size(key)

    await archive.another_sealer(Slow(), adopt_per_minute=1).finish()
    assert [entry["event"] for entry in check_chain(archive.root)] == ["key", "adopted"]
