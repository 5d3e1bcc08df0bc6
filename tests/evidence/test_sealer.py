"""Sealing: what ends is sealed once, in order, whoever does it and whatever happens on the way."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from archiver.errors import LedgerRefused, SealedElsewhere, StoreUnavailable
from archiver.evidence.checkpoints import Checkpoint
from archiver.evidence.keys import SealingKey
from archiver.evidence.merkle import Frontier, leaf_hash
from archiver.outcome import Archived, Failed, NotReady, Unavailable
from archiver.queue.sessions import MAX_CRASHES, CallFacts
from archiver.session import Attempt, State
from tests.disks import disk
from tests.evidence.sealing import PowerCut, SealedArchive, StopsAfter, check_chain, copied_database, sealed_archive

pytestmark = pytest.mark.once

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[SealedArchive]:
    async with sealed_archive(database_url, tmp_path) as opened:
        yield opened


async def test_what_ended_is_sealed_with_its_record(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one", "transcriptions.json": b"{}"}, user_id="ana")
    await archive.end("s-2", Unavailable("media_unavailable", {"message": "there is none"}))
    await archive.end("s-3", NotReady("media_in_progress"))
    await archive.end("s-4", Failed("conflict"))
    await archive.add("+49 170 1234567")
    assert await archive.sealer.finish() == 5
    key, first, second, third, refused = archive.lines()
    assert (key["event"], key["origin"]) == ("key", "archive.example/calls")
    assert [entry["event"] for entry in (first, second, third, refused)] == ["settled"] * 4
    assert (first["session"], first["state"], [place for place, _ in first["files"]]) == ("s-1", "archived", [1])
    record = archive.record(first)
    assert (record["user_id"], len(record["files"]), len(record["asks"])) == ("ana", 2, 1)
    assert record["asks"][0]["answer"] == '{"url":"https://media.example/a.wav"}'
    assert (second["state"], third["state"]) == ("unavailable", "failed")
    assert archive.record(second)["reason"] == "media_unavailable"
    assert "1234567" not in str(refused)
    assert refused["session_sha256"]
    frontier = Frontier()
    for line in (archive.root / "evidence/ledger/000000000000-000000000004.jsonl").read_bytes().split(b"\n")[:-1]:
        frontier.append(leaf_hash(line))
    checkpoint = Checkpoint("archive.example/calls", 5, frontier.root())
    assert archive.objects()["evidence/checkpoint/000000000005"].startswith(checkpoint.text)
    assert await archive.sealer.finish() == 0


STEPS = 8
"""Objects of a batch that is not the first: a claim, a segment, four records, a signature, a checkpoint."""


async def end_four(archive: SealedArchive, name: str) -> None:
    for number in range(4):
        await archive.end(f"{name}-{number}", files={"a.wav": f"{name} {number}".encode()})


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("step", range(STEPS + 1))
async def test_whoever_goes_on_after_a_sealer_that_died_finishes_its_batch(archive: SealedArchive, step: int, told: bool) -> None:
    """`told`: the last object that it stored, it heard of."""
    await archive.sealer.finish()
    await end_four(archive, "a")
    dying = archive.another_sealer(StopsAfter(archive.store, step, save_last=not told))
    if step < STEPS:
        with pytest.raises(PowerCut):
            await dying.round()
        await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
    await archive.end("b-1", files={"a.wav": b"b"})
    await archive.sealer.finish()
    entries = check_chain(archive.root)
    assert [entry.get("session") for entry in entries] == [None, "a-0", "a-1", "a-2", "a-3", "b-1"]
    assert not await archive.value("SELECT count(*) FROM archive_ledger_batches WHERE lines IS NOT NULL OR objects IS NOT NULL")


async def test_one_that_comes_back_from_the_dead_repeats_itself(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    await end_four(archive, "a")
    zombie = archive.another_sealer(StopsAfter(archive.store, 3))
    with pytest.raises(PowerCut):
        await zombie.round()
    batch = await archive.ledger.unpublished()
    assert batch is not None
    await archive.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
    await archive.sealer.finish()
    await archive.end("b-1", files={"a.wav": b"b"})
    await archive.sealer.finish()
    before = archive.objects()
    zombie._publisher._store, zombie._until = archive.store, float("inf")
    await zombie._publish(batch)
    assert archive.objects() == before
    check_chain(archive.root)


async def test_one_whose_lease_ran_out_stores_nothing_more(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    await end_four(archive, "a")
    sealer = archive.another_sealer()
    async with sealer._leased():
        batch = await sealer._seal()
        assert batch is not None
        sealer._until = 0.0
        before = archive.objects()
        with pytest.raises(SealedElsewhere):
            await sealer._publish(batch)
    assert archive.objects() == before


@pytest.mark.parametrize(
    "step",
    [step if step in (-1, 0, 1, STEPS) else pytest.param(step, marks=pytest.mark.thorough) for step in range(-1, STEPS + 1)],
)
async def test_of_two_databases_that_seal_into_one_store_one_publishes_nothing_more(
    database_url: str, tmp_path: Path, step: int
) -> None:
    """A copy of the database was made when its sealer had stored so many objects of a batch; -1: before there was one."""
    async with sealed_archive(database_url, tmp_path) as original:
        await original.sealer.finish()
        await end_four(original, "a")
        if step >= 0:
            with suppress(PowerCut):
                await original.another_sealer(StopsAfter(original.store, step)).round()
    async with copied_database(database_url) as copy_url:
        async with sealed_archive(database_url, tmp_path) as original:
            await original.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
            await original.end("b-1", files={"a.wav": b"b"})
            await original.sealer.finish()
            published = original.objects("evidence")
        async with sealed_archive(copy_url, tmp_path) as copy:
            await copy.fetch("UPDATE archive_ledger_head SET leased_until = '-infinity'")
            await copy.end("c-1", files={"a.wav": b"c"})
            for _ in range(2):
                with pytest.raises(LedgerRefused, match=r"^(the store has evidence/claim/|evidence/claim/)") as refused:
                    await copy.sealer.finish()
                assert refused.value.hint
            assert copy.objects("evidence") == published
    assert [entry.get("session") for entry in check_chain(tmp_path / "store")] == [None, "a-0", "a-1", "a-2", "a-3", "b-1"]


async def test_two_that_seal_at_once_make_one_history(archive: SealedArchive) -> None:
    await archive.begin()
    for name in "abc":
        await end_four(archive, name)
    sealers = [archive.sealer, archive.another_sealer(), archive.another_sealer()]
    entries = await asyncio.gather(*(sealer.finish() for sealer in sealers))
    assert sum(entries) == len(check_chain(archive.root)) == 13


async def test_what_is_committed_late_is_sealed_late_and_once(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    connection = await asyncpg.connect(archive.database.dsn)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 'not an ID')")
            await end_four(archive, "a")
            assert await archive.sealer.finish() == 4
    finally:
        await connection.close()
    assert await archive.sealer.finish() == 1
    *_, last = check_chain(archive.root)
    assert "session" not in last


async def test_everything_that_ends_or_moves_a_session_is_an_entry(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", Failed("conflict"))
    await archive.operators.accept(reason="lost with the disk", actor="ana@desk", ids=["s-1"], states=tuple(State))
    await archive.sealer.finish()
    await archive.retry("s-1")
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.retry("s-1")
    await archive.operators.cancel(reason="a slip", actor="ana@desk", ids=["s-1"], states=tuple(State))
    await archive.add("s-2")
    await archive.operators.cancel(reason="none", actor="ana@desk", ids=["s-2"], states=tuple(State))
    facts = CallFacts("s-1", "recording", NOW, NOW, "ana", {"caller": "+49 170 1"})
    await archive.queue.add_call_facts("bot", [facts])
    await archive.sealer.finish()
    entries = [entry for entry in check_chain(archive.root) if entry["event"] != "key"]
    told = [(entry["session"], entry["event"], entry.get("state"), entry["actor"]) for entry in entries]
    assert told == [
        ("s-1", "settled", "failed", "worker"),
        ("s-1", "accepted", "failed", "person"),
        ("s-1", "reopened", "pending", "person"),
        ("s-1", "settled", "archived", "worker"),
        ("s-1", "reopened", "pending", "person"),
        ("s-1", "settled", "archived", "person"),
        ("s-2", "settled", "cancelled", "person"),
        ("s-1", "described", "archived", "worker"),
    ]
    keys = [entry["record_key"].rpartition("/")[2] for entry in entries if entry.get("record_key") and entry["session"] == "s-1"]
    assert keys == ["session.json", *(f"session.{number}.json" for number in range(2, 6))]
    assert archive.record(entries[1])["accepted"]["because"] == "lost with the disk"
    assert archive.record(entries[-1])["call"] == {"caller": "+49 170 1"}


async def test_a_recheck_that_changes_nothing_is_none(archive: SealedArchive) -> None:
    await archive.begin()
    for detail, made in (({"n": 1}, 2), ({"n": 1}, 0), ({"n": 2}, 1)):
        if made < 2 or detail == {"n": 2}:
            await archive.make_rechecks_due()
            (session,) = (await archive.queue.claim(await archive.worker(), {"bot": archive.quota("bot")}, 10)).sessions
            await archive.settle(Attempt(session, calls=1), Unavailable("media_unavailable", detail))
        else:
            await archive.end("s-1", Unavailable("media_unavailable", detail))
        assert await archive.sealer.finish() == made


async def test_rows_that_others_wrote_are_sealed_as_unreadable(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    bodies = ["{}", "[]", '"text"', "1e400", '{"session": {"bot": "bot"}, "files": 3}', '{"session": null, "by": {"a": 1}}']
    for event in ("settled", "key", "rebuilt", "adopted", "+49 170 1234567", "account"):
        for body in bodies:
            await archive.fetch(
                "INSERT INTO archive_ledger_outbox (event, queue_id, body) VALUES ($1, 7, $2::text::jsonb)", event, body
            )
    await archive.end("s-1", files={"a.wav": b"one"})
    assert await archive.sealer.finish() == 37
    entries = check_chain(archive.root)
    assert {entry["event"] for entry in entries[1:-1]} == {"unreadable"}
    assert entries[-1]["session"] == "s-1"
    assert "1234567" not in str(entries)


async def test_what_is_planted_at_a_records_key_stops_nobody(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    folder = next(archive.root.glob("bot=bot/*/s-1/recording"))
    (folder / "session.json").write_bytes(b"planted")
    await archive.sealer.finish()
    *_, entry = check_chain(archive.root)
    assert (folder / "session.json").read_bytes() == b"planted"
    assert (archive.root / f"evidence/record/{entry['record']}.json").exists()


@pytest.mark.parametrize("key", ["claim/000000000001", "ledger/000000000001-000000000001.jsonl", "checkpoint/000000000002.sig"])
async def test_what_is_planted_among_the_evidence_is_named_and_nothing_is_overwritten(archive: SealedArchive, key: str) -> None:
    await archive.sealer.finish()
    planted = archive.root / "evidence" / key
    planted.write_bytes(b"planted")
    await archive.end("s-1", files={"a.wav": b"one"})
    with pytest.raises(LedgerRefused, match=key):
        await archive.sealer.finish()
    assert planted.read_bytes() == b"planted"
    planted.unlink()
    await archive.sealer.finish()
    assert len(check_chain(archive.root)) == 2


async def test_a_store_without_its_newest_checkpoint_takes_nothing(archive: SealedArchive) -> None:
    await archive.sealer.finish()
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.sealer.finish()
    kept = (archive.root / "evidence/checkpoint/000000000002").read_bytes()
    (archive.root / "evidence/checkpoint/000000000002").unlink()
    await archive.end("s-2", files={"a.wav": b"two"})
    with pytest.raises(LedgerRefused, match="lacks evidence/checkpoint/000000000002"):
        await archive.sealer.finish()
    assert await archive.value("SELECT count(*) FROM archive_ledger_outbox") == 1
    (archive.root / "evidence/checkpoint/000000000002").write_bytes(kept)
    await archive.sealer.finish()
    assert len(check_chain(archive.root)) == 3


async def test_a_new_database_begins_no_second_ledger_in_a_store(database_url: str, tmp_path: Path) -> None:
    async with copied_database(database_url) as other_url:
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.sealer.finish()
        async with sealed_archive(other_url, tmp_path) as other:
            with pytest.raises(LedgerRefused, match="the store has a ledger, and this database has none"):
                await other.sealer.finish()
            assert await other.ledger.head() is None


async def test_another_key_seals_after_the_first_has_said_so(archive: SealedArchive, tmp_path: Path) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    new = SealingKey.make(tmp_path / "new.key", "test")
    await archive.sealer.rotate(new)
    await archive.end("s-2", files={"a.wav": b"two"})
    with pytest.raises(LedgerRefused, match="the ledger is signed by SHA256:"):
        await archive.sealer.finish()
    await archive.another_sealer(key_file=tmp_path / "new.key").finish()
    entries = check_chain(archive.root)
    assert [entry["event"] for entry in entries] == ["key", "settled", "key", "settled"]
    assert [entry.get("previous") for entry in entries if entry["event"] == "key"] == [None, entries[0]["fingerprint"]]
    assert (archive.root / "evidence/keys/0002.allowed_signers").exists()


async def test_sessions_that_ended_before_are_adopted_newest_first_at_a_rate(archive: SealedArchive) -> None:
    for number in range(6):
        await archive.end(f"s-{number}", files={"a.wav": b"one"})
    await archive.end("s-6", Unavailable("media_unavailable"))
    await archive.begin()
    await archive.retry("s-3")
    slow = archive.another_sealer(adopt_per_minute=0)
    assert await slow.finish() == 2
    assert (await archive.ledger.adopt(1, most=2)) == (2, False)
    await slow.finish()
    # One that came back to be archived again has its entries already.
    assert (await archive.ledger.adopt(1, most=2)) == (0, False)  # no more than the rate allows
    await archive.fetch("UPDATE archive_ledger_head SET adopt_at = '-infinity'")
    assert await archive.sealer.finish() == 4
    assert (await archive.ledger.head()).adopts is False  # type: ignore[union-attr]
    entries = check_chain(archive.root)
    adopted = [entry["session"] for entry in entries if entry["event"] == "adopted"]
    assert adopted == ["s-6", "s-5", "s-4", "s-2", "s-1", "s-0"]
    assert [entry["event"] for entry in entries if entry.get("session") == "s-3"] == ["reopened"]


async def test_history_goes_only_once_it_is_in_a_record(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.fetch("UPDATE archive_queue SET finished_at = now() - interval '1 year'")
    assert await archive.queue.prune(timedelta(days=90)) == 0
    await archive.sealer.finish()
    assert await archive.queue.prune(timedelta(days=90)) == 1
    (_, entry) = check_chain(archive.root)
    assert len(archive.record(entry)["asks"]) == 1


async def test_nothing_is_written_where_no_ledger_was_begun(archive: SealedArchive) -> None:
    await archive.end("s-1", files={"a.wav": b"one"})
    await archive.add("not an ID")
    await archive.retry("s-1")
    assert await archive.value("SELECT count(*) FROM archive_ledger_outbox") == 0


async def test_a_session_that_was_given_up_and_then_was_not_is_told_of_both_times(archive: SealedArchive) -> None:
    """The worker that was taken for dead came back, and the crash is withdrawn."""
    await archive.begin()
    session = await archive.claimed("s-1")
    await archive.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    await archive.expire(session.worker_id)
    (rescued,) = await archive.queue.rescue(actor="other")
    assert rescued.state == "failed"
    assert await archive.queue.take_back(await archive.worker(), former=session.worker_id, claims=[session]) == (0, 1)
    await archive.make_due()
    (again,) = await archive.claim(await archive.worker())
    await archive.settle(Attempt(again, [await archive.put(again, 1, "a.wav", b"one")]), Archived())
    await archive.sealer.finish()
    told = [(entry["event"], entry["state"]) for entry in check_chain(archive.root)[1:]]
    assert told == [("settled", "failed"), ("reopened", "pending"), ("settled", "archived")]


def fill(file: Path) -> None:
    """Take all the room that is left."""
    filled = subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=4k"], capture_output=True, check=False)
    assert b"No space left" in filled.stderr


async def test_a_full_disk_is_named_and_all_is_sealed_when_it_has_room_again(database_url: str, tmp_path: Path) -> None:
    with disk(tmp_path / "store", "1m"):
        async with sealed_archive(database_url, tmp_path) as archive:
            await archive.sealer.finish()
            for name in ("a", "b", "c"):
                await end_four(archive, name)
            filling = tmp_path / "store/filling"
            fill(filling)
            with pytest.raises(StoreUnavailable, match="No space left on device") as refused:
                await archive.sealer.finish()
            assert refused.value.hint
            filling.unlink()
            assert await archive.sealer.finish() == 12
            assert len(check_chain(archive.root)) == 13
