"""Verify, many files at once: what was not read for longest comes first, all comes round, nothing is kept twice or lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.errors import StoreUnavailable, WrongStore
from archiver.evidence import verify
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.whole import audit
from archiver.evidence.keys import SealingKey
from archiver.evidence.verify import Terms, Verification, Verified
from archiver.outcome import Failed, Unavailable
from archiver.postgres.database import Database
from archiver.queue import recorded
from archiver.queue.call_times import CallTimes
from archiver.queue.findings import FileRead, Finding, Findings
from archiver.queue.recorded import ChosenFiles
from archiver.queue.repairs import Repairs
from archiver.session import Attempt
from archiver.stores import AtOnce, Store
from archiver.stores.local.disk import BLOCK
from tests.azure_servers import AzureServer
from tests.conftest import RETRY
from tests.evidence.sealing import PATH, SealedArchive, sealed_archive
from tests.s3_servers import S3Server
from tests.stores.harnesses import StoreHarness, azure_harness, s3_harness

pytestmark = pytest.mark.once


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[SealedArchive]:
    async with sealed_archive(database_url, tmp_path) as opened:
        yield opened


class Files:
    """Recorded files of an archive, put there by hand: so many of each session."""

    def __init__(self, archive: SealedArchive, each: int = 1) -> None:
        self.archive = archive
        self.keys: list[str] = []
        self._each = each

    async def add(self, count: int, **columns: Any) -> list[str]:
        """Some more, archived a minute after each other, the first of all a year ago."""
        rows = []
        for number in range(len(self.keys), len(self.keys) + count):
            key = f"bot=bot/s-{number // self._each:04}/{number:04}.wav"
            body = key.encode() * 20
            path = self.archive.root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            rows.append((f"s-{number // self._each:04}", key, len(body), hashlib.sha256(body).hexdigest(), number))
        await self.insert(rows, **columns)
        keys = [row[1] for row in rows]
        self.keys += keys
        return keys

    async def insert(self, rows: list[tuple[str, str, int, str, int]], *, kind: str = "recording", bot: str = "bot") -> None:
        """Rows of files."""
        await self.archive.fetch(
            """WITH given AS (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::int[])
                              AS g (session_id, key, bytes, sha256, number)),
               added AS (INSERT INTO archive_queue (bot, session_id, kind) SELECT DISTINCT $7, session_id, $6 FROM given
                         ON CONFLICT DO NOTHING RETURNING id, session_id),
               every AS (SELECT * FROM added UNION SELECT id, session_id FROM archive_queue)
               INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name,
                                                queue_id, archived_at)
               SELECT $7, g.session_id, $6, 1 + number, g.key, g.key, g.bytes, g.sha256, '', e.id,
                      now() - interval '365 days' + number * interval '1 minute'
               FROM given g JOIN every e USING (session_id)""",
            *map(list, zip(*rows, strict=True)), kind, bot,
        )  # fmt: skip


async def verified(
    archive: SealedArchive, store: Store | None = None, *, actor: str | None = "ana@desk", **terms: Any
) -> list[Verified]:
    found: list[Verified] = []
    await Verification(archive.database, store or archive.store, Terms(**terms), actor=actor).run(found.append)
    assert len({one.store_key for one in found}) == len(found), "nothing is read twice in a run"
    return found


async def kept(archive: SealedArchive) -> dict[str, str]:
    rows = await archive.fetch("SELECT findings FROM archive_findings WHERE source = 'verify'")
    assert all(row["findings"] for row in rows)
    return {found["store_key"]: found["verdict"] for row in rows for found in row["findings"]}


async def events(archive: SealedArchive) -> list[tuple[str, str]]:
    rows = await archive.fetch("SELECT event, body FROM archive_ledger_outbox WHERE event <> 'settled' ORDER BY id")
    return [(row["event"], (row["body"].get("session") or {}).get("session_id", "")) for row in rows if row["event"] != "fixity"]


# --- which are read, and in which order


async def test_a_thirtieth_each_day_has_read_everything_in_thirty_days(archive: SealedArchive) -> None:
    """Whatever is archived meanwhile, and nothing but `verified_at` is kept."""
    files = Files(archive)
    first = await files.add(97)
    read: list[str] = []
    for _ in range(30):
        found = await verified(archive, sample=Fraction(1, 30))
        assert len(found) == -(-len(files.keys) // 30)
        read += [one.store_key for one in found]
        new = await files.add(3)
        await archive.fetch("UPDATE archived_recordings SET archived_at = now() WHERE store_key = ANY ($1)", new)
    assert set(first) == set(read[:97]), "each has come once before anything else"


async def test_those_that_were_not_read_for_longest_come_first(archive: SealedArchive) -> None:
    files = Files(archive)
    keys = await files.add(6)
    await archive.fetch("UPDATE archived_recordings SET verified_at = now() - interval '400 days' WHERE store_key = $1", keys[4])
    await archive.fetch("UPDATE archived_recordings SET verified_at = now() - interval '1 hour' WHERE store_key = $1", keys[0])
    order = [keys[4], *keys[1:4], keys[5], keys[0]]
    assert [one.store_key for one in await verified(archive, jobs=1, actor=None)] == order
    assert [one.store_key for one in await verified(archive, jobs=1, sample=Fraction(1, 2))] == order[:3]
    last = [one.store_key for one in await verified(archive, jobs=1)]
    assert (last[:3], set(last[3:])) == (order[3:], set(order[:3]))


async def test_a_file_that_cannot_be_read_is_none_of_a_sample_and_stays_first(archive: SealedArchive) -> None:
    files = Files(archive)
    keys = await files.add(10)
    folder = (archive.root / keys[0]).parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")
    for expected in (keys[1], keys[2]):
        found = await verified(archive, sample=Fraction(1, 10), jobs=4)
        assert {one.store_key: one.verdict for one in found} == {keys[0]: "unreadable", expected: "equal"}
    assert await archive.value("SELECT verified_at FROM archived_recordings WHERE store_key = $1", keys[0]) is None
    assert await kept(archive) == {keys[0]: "unreadable"}
    found = await verified(archive, sample=Fraction(1, 1))
    assert len(found) == 10


@pytest.mark.parametrize("page", [2, 1000])
async def test_what_is_chosen_is_found_among_all_others(
    archive: SealedArchive, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(recorded, "PAGE", page)
    monkeypatch.setattr(recorded, "COUNT_PAGE", page)
    files = Files(archive)
    plain = await files.add(3)
    mail = await files.add(3, kind="voicemail")
    other = await files.add(3, bot="other")
    called = datetime(2026, 3, 1, 12, tzinfo=UTC)
    await archive.fetch("UPDATE archive_queue SET archive_date = $1 WHERE session_id IN ('s-0001', 's-0004', 's-0007')", called)

    async def chosen(**terms: Any) -> set[str]:
        return {one.store_key for one in await verified(archive, actor=None, **terms)}

    assert await chosen(chosen=ChosenFiles(bot="bot")) == {*plain, *mail}
    assert await chosen(chosen=ChosenFiles(bot="nobody")) == set()
    assert await chosen(chosen=ChosenFiles(kind="voicemail")) == set(mail)
    assert await chosen(chosen=ChosenFiles(prefix="bot=bot/s-0007")) == {other[1]}
    assert await chosen(chosen=ChosenFiles(prefix="bot=bot/s-____")) == set()
    day = (called, called + timedelta(seconds=1))
    assert await chosen(chosen=ChosenFiles(called=CallTimes({}, day))) == {plain[1], mail[1], other[1]}
    assert await chosen(chosen=ChosenFiles(called=CallTimes({"bot": day}, (called, called)))) == {plain[1], mail[1]}
    assert await chosen(chosen=ChosenFiles(kind="voicemail"), sample=Fraction(1, 2)) == set(mail[:2])
    assert await chosen(not_since=timedelta(days=400)) == set()
    now = await archive.value("SELECT now()")
    assert await chosen(not_since=now - timedelta(days=365) + timedelta(minutes=3, seconds=-30)) == set(plain)
    assert await chosen(not_since=now + timedelta(days=9)) == {*plain, *mail, *other}


async def test_what_has_no_time_of_a_calendar_is_read_all_the_same(archive: SealedArchive) -> None:
    """Rows of others: they may say when a file was read as they like."""
    files = Files(archive)
    keys = await files.add(6)
    times = ["infinity", "-infinity", "4713-01-01 BC", "9999-12-31", "1 day", "-1 day"]
    for key, at in zip(keys, times, strict=True):
        value = f"now() + interval '{at}'" if "day" in at else f"'{at}'"
        await archive.fetch(f"UPDATE archived_recordings SET verified_at = {value} WHERE store_key = $1", key)
    oldest = await archive.reports.oldest_verification()
    assert oldest is not None
    assert oldest.seconds > 0
    assert {one.store_key for one in await verified(archive, actor=None)} == set(keys)
    assert {one.store_key for one in await verified(archive, actor=None, not_since=timedelta(days=30))} == {*keys[:5]}
    assert {one.store_key for one in await verified(archive)} == set(keys)
    assert (
        await archive.value("SELECT count(*) FROM archived_recordings WHERE abs(extract(epoch FROM now() - verified_at)) < 60")
        == 6
    )
    oldest = await archive.reports.oldest_verification()
    assert oldest is not None
    assert 0 <= oldest.seconds < 60


async def test_keys_of_others_are_named_and_lead_nowhere(archive: SealedArchive) -> None:
    files = Files(archive)
    await files.add(1)
    outside = archive.root.parent / "outside"
    outside.write_bytes(b"outside")
    digest = hashlib.sha256(b"outside").hexdigest()
    keys = ["../outside", "a//b", "/etc/passwd", "a\\b", "..", "x" * 2000]
    await files.insert([("s-x", key, 7, digest, 10 + number) for number, key in enumerate(keys)])
    found = {one.store_key: one.verdict for one in await verified(archive)}
    assert found == {**dict.fromkeys(keys, "unreadable"), files.keys[0]: "equal"}
    assert await kept(archive) == dict.fromkeys(keys, "unreadable")


# --- how much is read


async def test_a_limit_is_told_of_every_byte_whichever_job_reads_it(archive: SealedArchive) -> None:
    files = Files(archive)
    keys = await files.add(50)
    body = os.urandom(3 * BLOCK + 5)
    (archive.root / keys[7]).write_bytes(body)
    await archive.fetch(
        "UPDATE archived_recordings SET bytes = $2, sha256 = $3 WHERE store_key = $1",
        keys[7],
        len(body),
        hashlib.sha256(body).hexdigest(),
    )
    paid: list[int] = []

    async def pay(size: int) -> None:
        paid.append(size)
        await asyncio.sleep(0)

    found = await verified(archive, pay=pay, jobs=3)
    assert {one.verdict for one in found} == {"equal"}
    assert sum(paid) == sum(one.bytes_read for one in found)
    assert max(paid) < 2 * BLOCK, "whoever pays waits before more is read"


async def test_a_file_that_grows_as_it_is_read_is_left_off(archive: SealedArchive) -> None:
    files = Files(archive)
    (key,) = await files.add(1)
    path = archive.root / key
    await archive.fetch("UPDATE archived_recordings SET bytes = $1", 4 * BLOCK)

    async def pay(size: int) -> None:
        with path.open("ab") as file:
            file.truncate(file.tell() + 2 * size)

    path.write_bytes(bytes(BLOCK))
    (found,) = await verified(archive, pay=pay)
    assert (found.verdict, found.sha256_read, found.bytes_read) == ("changed", None, 4 * BLOCK + 1)


# --- what is kept


@pytest.mark.parametrize("jobs", [1, 8])
async def test_files_of_one_session_read_by_many_are_each_kept(
    archive: SealedArchive, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(verify, "KEPT_TOGETHER", 7)
    await archive.begin()
    files = Files(archive, each=60)
    keys = await files.add(60)
    bodies = {key: (archive.root / key).read_bytes() for key in keys}
    for key in keys[::6]:
        (archive.root / key).write_bytes(b"other")
    for _ in range(2):
        await verified(archive, jobs=jobs)
        assert await kept(archive) == dict.fromkeys(keys[::6], "changed")
    assert {event for event, _ in await events(archive)} == {"damaged"}
    announced = len(await events(archive))
    assert announced <= 10, "once for those that are found together, and never again"
    for key in keys[::6]:
        (archive.root / key).write_bytes(bodies[key])
    for _ in range(2):
        await verified(archive, jobs=jobs)
        assert await kept(archive) == {}
    assert [event for event, _ in await events(archive)][announced:] == ["repaired"]


async def test_each_change_of_what_is_wrong_is_sealed_once(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"first", "b.wav": b"second"})
    a, b = (next(archive.root.rglob(name)) for name in ("a.wav", "b.wav"))
    assert await _steps(archive) == []
    a.unlink()
    assert await _steps(archive) == ["damaged"]
    a.mkdir()
    assert await _steps(archive) == [], "it was known to be wrong"
    b.write_bytes(b"other")
    assert await _steps(archive) == ["damaged"]
    a.rmdir()
    a.write_bytes(b"first")
    assert await _steps(archive) == [], "another one is wrong still"
    folder = a.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")
    assert await _steps(archive) == [], "what cannot be read may be whole, or is known not to be"
    assert set((await kept(archive)).values()) == {"changed", "unreadable"}
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)
    b.write_bytes(b"second")
    assert await _steps(archive) == ["repaired"]
    assert await kept(archive) == {}


async def _steps(archive: SealedArchive) -> list[str]:
    """What two runs of verify write; an audit is content with all of it."""
    before = len(await archive.fetch("SELECT FROM archive_ledger_outbox"))
    if before:
        await archive.sealer.finish()
    await verified(archive)
    await verified(archive)
    found = [event for event, _ in await events(archive)]
    await archive.sealer.finish()
    return found


async def test_an_audit_knows_what_is_damaged_until_it_is_repaired(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"first"})
    path = next(archive.root.rglob("a.wav"))

    async def audited() -> tuple[list[str], list[str]]:
        await archive.sealer.finish()
        key = SealingKey.load(archive.root.parent / "evidence.key").public
        report = await audit(archive.database, archive.store, Wanted(PATH, timedelta(days=7), deep=True, key=key))
        return sorted(report.findings.counts), [each.name for each in report.findings.known]

    assert await audited() == ([], [])
    path.write_bytes(b"fir5t")
    assert (await audited())[0] == ["changed"]
    await verified(archive)
    found, known = await audited()
    assert (found, known) == ([], ["damaged"])
    path.write_bytes(b"first")
    await verified(archive)
    assert await audited() == ([], [])
    fixity = [entry for entry in archive.lines() if entry["event"] == "fixity"]
    assert [(each["files"], each["equal"], each["wrong"], each["bytes"], each["bot"], each["actor"]) for each in fixity] == [
        (1, 0, 1, 5, None, "person"), (1, 1, 0, 5, None, "person"),
    ]  # fmt: skip


async def test_a_session_may_be_damaged_in_whatever_state_it_is(archive: SealedArchive) -> None:
    """An audit takes both events of each, also of one that ended before the ledger began."""
    await archive.end("s-before", files={"a.wav": b"before"})
    await archive.begin()
    for name in ("s-archived", "s-pending", "s-claimed", "s-kept"):
        await archive.end(name, files={"a.wav": name.encode()})
    for name in ("s-failed", "s-cancelled"):
        await archive.end(name, Failed("conflict"), files={"a.wav": name.encode()})
    await archive.retry("s-pending", "s-claimed", "s-kept", "s-cancelled")
    await archive.operators.cancel(reason="no_consent", actor="ana@desk", ids=["s-cancelled"])
    await archive.fetch("UPDATE archive_queue SET run_at = now() + interval '1 day' WHERE session_id = 's-pending'")
    for session in await archive.claim(await archive.worker(), 10):
        if session.session_id == "s-kept":
            await archive.settle(Attempt(session, calls=1), Unavailable("media_unavailable", {"message": "none"}))
    states = {row["session_id"]: row["state"] for row in await archive.fetch("SELECT session_id, state FROM archive_queue")}
    assert set(states.values()) == {"archived", "pending", "claimed", "failed", "cancelled"}, states
    for body in (b"other", None):
        for path in archive.root.rglob("a.wav"):
            name = path.parts[-3]
            path.write_bytes(body or (b"before" if name == "s-before" else name.encode()))
        await verified(archive)
        await archive.sealer.finish()
    entries = archive.lines()
    for event in ("damaged", "repaired"):
        assert Counter(entry["session"] for entry in entries if entry["event"] == event) == Counter(dict.fromkeys(states, 1))
    key = SealingKey.load(archive.root.parent / "evidence.key").public
    report = await audit(archive.database, archive.store, Wanted(PATH, timedelta(days=7), deep=True, key=key))
    assert report.findings.documents() == []


async def test_a_repair_of_one_file_says_again_what_else_is_damaged(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"first", "b.wav": b"second"})
    a, b = (next(archive.root.rglob(name)) for name in ("a.wav", "b.wav"))
    a.write_bytes(b"other")
    b.write_bytes(b"other")
    await verified(archive)
    await archive.sealer.finish()
    repairs = Repairs(archive.database, RETRY, actor="ana@desk")
    for path, expected in ((a, ["repaired", "damaged"]), (b, ["repaired"])):
        (row,) = await archive.fetch("SELECT id FROM archive_queue")
        of = await repairs.read(row["id"])
        assert of is not None
        (file,) = [each for each in of.files if each.file_name == path.name]
        assert await repairs.move(of.session, file, key=file.store_key, file_name=file.file_name, source="unknown")
        assert [event for event, _ in await events(archive)] == expected
        await archive.sealer.finish()
    assert await kept(archive) == {}


async def test_what_a_repair_finds_wrong_is_sealed_as_well(archive: SealedArchive) -> None:
    await archive.begin()
    await archive.end("s-1", files={"a.wav": b"first"})
    (row,) = await archive.fetch("SELECT queue_id, store_key FROM archived_recordings")
    findings = Findings(archive.database)
    await archive.sealer.finish()
    wrong, odd = Finding(row["store_key"], "missing", "gone"), Finding(row["store_key"], "unreadable", "?")
    for found, event in (([odd], []), ([wrong], ["damaged"]), ([wrong], []), ([], ["repaired"]), ([], [])):
        before = len(await events(archive))
        await findings.keep(row["queue_id"], found, actor="ana@desk")
        assert [name for name, _ in await events(archive)][before:] == event
        assert await findings.remembered(row["queue_id"]) == found


async def test_a_file_that_was_moved_meanwhile_gets_no_verdict(archive: SealedArchive) -> None:
    files = Files(archive)
    (key,) = await files.add(1)
    (row,) = await archive.fetch("SELECT queue_id, sha256 FROM archived_recordings")
    findings = Findings(archive.database)
    for place, digest in (("elsewhere", row["sha256"]), (key, "0" * 64)):
        await findings.write([FileRead(row["queue_id"], place, digest, "missing", "gone")], actor="x")
    assert await kept(archive) == {}
    assert await archive.value("SELECT verified_at FROM archived_recordings") is None


async def test_two_at_once_keep_one_truth(archive: SealedArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "KEPT_TOGETHER", 5)
    await archive.begin()
    files = Files(archive, each=3)
    keys = await files.add(90)
    for key in keys[::9]:
        (archive.root / key).unlink()
    await asyncio.gather(*(verified(archive) for _ in range(3)))
    assert await kept(archive) == dict.fromkeys(keys[::9], "missing")
    assert Counter(await events(archive)) == Counter({("damaged", f"s-{number:04}"): 1 for number in range(0, 30, 3)})


async def test_a_circle_of_locks_with_sql_of_others_costs_another_try(archive: SealedArchive, database_url: str) -> None:
    await Files(archive).add(2)
    first, last = [row["id"] for row in await archive.fetch("SELECT id FROM archive_queue ORDER BY id")]
    lock = "UPDATE archive_queue SET metadata = '{}' WHERE id = $1"
    others = await asyncpg.connect(database_url)
    try:
        await others.execute("SET deadlock_timeout = '1h'")  # the verify is the one that is undone
        transaction = others.transaction()
        await transaction.start()
        await others.execute(lock, last)
        running = asyncio.create_task(verified(archive))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        while not await others.fetchval(waiting):
            await asyncio.sleep(0.01)
            await others.execute("SELECT pg_stat_clear_snapshot()")
        await others.execute(lock, first)
        await transaction.commit()
        assert [one.verdict for one in await running] == ["equal", "equal"]
    finally:
        await others.close()
    assert await archive.value("SELECT count(*) FROM archived_recordings WHERE verified_at IS NOT NULL") == 2


async def test_what_was_read_before_the_end_came_is_kept(archive: SealedArchive) -> None:
    await archive.begin()
    files = Files(archive)
    keys = await files.add(300)
    (archive.root / keys[0]).unlink()
    read: list[str] = []
    verification = Verification(archive.database, archive.store, Terms(jobs=2), actor="ana@desk")

    def on_file(file: Verified) -> None:
        read.append(file.store_key)
        if len(read) == 40:
            running.cancel()

    running = asyncio.create_task(verification.run(on_file))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 40 <= len(read) < 300
    marked = await archive.fetch("SELECT store_key FROM archived_recordings WHERE verified_at IS NOT NULL")
    assert {row["store_key"] for row in marked} == set(read)
    assert await kept(archive) == {keys[0]: "missing"}
    (note,) = await archive.fetch("SELECT body FROM archive_ledger_outbox WHERE event = 'fixity'")
    assert (note["body"]["files"], note["body"]["wrong"]) == (len(read), 1)
    rest = await verified(archive, not_since=verification.not_since)
    assert {one.store_key for one in rest} == set(keys) - set(read)


async def test_a_database_that_goes_away_ends_it(archive: SealedArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "PAGE", 10)
    files = Files(archive)
    await files.add(100)

    def on_file(_file: Verified) -> None:
        raise RuntimeError("whatever it is")

    with pytest.raises(RuntimeError):
        await Verification(archive.database, archive.store, Terms(), actor="x").run(on_file)
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert others == [], "nobody reads on"


async def test_a_role_that_may_not_write_keeps_nothing(archive: SealedArchive, database_url: str) -> None:
    assert await Findings(archive.database).can_be_kept()
    name = f"reader_{database_url.rpartition('/')[2]}"
    await archive.fetch(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        await archive.fetch(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
        await archive.fetch(f"GRANT INSERT, UPDATE, DELETE ON archive_findings, archive_ledger_outbox TO {name}")
        place = database_url.rpartition("@")[2]
        async with Database(f"postgresql://{name}:x@{place}", writes=False) as theirs:
            assert not await Findings(theirs).can_be_kept()
            files = Files(archive)
            keys = await files.add(3)
            found: list[Verified] = []
            await Verification(theirs, archive.store, Terms()).run(found.append)
            assert {one.store_key for one in found} == set(keys)
    finally:
        await archive.fetch(f"DROP OWNED BY {name}")
        await archive.fetch(f"DROP ROLE {name}")


async def test_where_nothing_is_recorded_there_is_no_oldest(archive: SealedArchive) -> None:
    assert await archive.reports.oldest_verification() is None
    assert await verified(archive, sample=Fraction(1, 30)) == []
    await archive.begin()
    await verified(archive)
    assert await archive.fetch("SELECT FROM archive_ledger_outbox WHERE event = 'fixity'") == []


async def test_a_store_that_goes_away_has_lost_nothing(archive: SealedArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk drops out in the middle: what is missing then is not, and is neither kept nor sealed."""
    monkeypatch.setattr(verify, "KEPT_TOGETHER", 5)
    await archive.begin()
    files = Files(archive)
    await files.add(200)
    read: list[Verified] = []

    def on_file(file: Verified) -> None:
        read.append(file)
        if len(read) == 40:
            archive.root.rename(archive.root.with_name("unmounted"))

    async def check() -> None:
        if not archive.root.exists():
            raise WrongStore("it is gone")

    with pytest.raises(WrongStore):
        await Verification(archive.database, archive.store, Terms(jobs=1), actor="x", check=check).run(on_file)
    assert await kept(archive) == {}
    assert await events(archive) == []
    marked = await archive.value("SELECT count(*) FROM archived_recordings WHERE verified_at IS NOT NULL")
    assert 0 < marked <= sum(one.verdict == "equal" for one in read)
    (note,) = await archive.fetch("SELECT body FROM archive_ledger_outbox WHERE event = 'fixity'")
    assert {name: note["body"][name] for name in ("files", "equal", "wrong")} == {"files": marked, "equal": marked, "wrong": 0}


class Away:
    """A store that cannot be reached, or of which so many files can be read."""

    def __init__(self, store: Store, readable: int = 0) -> None:
        self.store = store
        self.left = readable
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def at_once(self) -> AtOnce:
        return AtOnce(calls=2, small=1)

    async def digests(self, objects: list[tuple[str, int]], pay: Any = None) -> list[Any]:
        self.asked += len(objects)
        self.left -= len(objects)
        return await self.store.digests(objects, pay) if self.left >= 0 else [StoreUnavailable("no network") for _ in objects]

    async def check(self) -> None:
        if self.left < 0:
            raise StoreUnavailable("no network")


@pytest.mark.parametrize("actor", ["x", None])
@pytest.mark.parametrize("terms", [Terms(jobs=2), Terms(jobs=2, sample=Fraction(1, 10))], ids=["all", "sample"])
async def test_a_store_that_cannot_be_reached_is_not_asked_for_every_file(
    archive: SealedArchive, monkeypatch: pytest.MonkeyPatch, actor: str | None, terms: Terms
) -> None:
    monkeypatch.setattr(verify, "KEPT_TOGETHER", 5)
    await archive.begin()
    await Files(archive).add(300)
    for readable in (0, 20):
        store: Any = Away(archive.store, readable)
        with pytest.raises(StoreUnavailable):
            await Verification(archive.database, store, terms, actor=actor, check=store.check).run(lambda _: None)
        assert store.asked < 100
    # What was written together with files that were read: of the five where the last ones were, and of those where the one was
    # that the other reader still had in hand.
    found = await kept(archive)
    assert (len(found) <= 2 * 4, set(found.values()) <= {"unreadable"}) == (True, True)
    notes = await archive.fetch("SELECT body FROM archive_ledger_outbox WHERE event = 'fixity'")
    assert all(note["body"]["equal"] >= 16 for note in notes)
    assert len(notes) == (actor is not None)


async def test_files_that_cannot_be_read_where_others_can_end_nothing(archive: SealedArchive) -> None:
    await archive.begin()
    keys = await Files(archive).add(30)
    store: Any = Away(archive.store, 20)

    async def check() -> None:
        """The store is there."""

    found: list[Verified] = []
    await Verification(archive.database, store, Terms(jobs=1), actor="x", check=check).run(found.append)
    unreadable = {one.store_key for one in found if one.verdict == "unreadable"}
    assert {one.store_key for one in found} == set(keys)
    assert await kept(archive) == dict.fromkeys(unreadable, "unreadable")


# --- buckets


@pytest.fixture(params=[pytest.param("seaweedfs", marks=pytest.mark.once), pytest.param("azurite", marks=pytest.mark.once)])
async def bucket(request: pytest.FixtureRequest) -> AsyncIterator[StoreHarness]:
    if request.param == "azurite":
        server: AzureServer = request.getfixturevalue("azurite")
        async with azure_harness(server) as container:
            yield container
        return
    s3: S3Server = request.getfixturevalue("seaweedfs")
    async with s3_harness(s3) as found:
        yield found


async def test_a_bucket_is_verified_as_a_folder_is(archive: SealedArchive, bucket: StoreHarness) -> None:
    files = Files(archive)
    keys = await files.add(30)
    for key in keys:
        bucket.put(key, (archive.root / key).read_bytes())
    bucket.remove(keys[3])
    bucket.put(keys[4], b"other")
    bucket.put(keys[5], (archive.root / keys[5]).read_bytes() * 2)
    paid: list[int] = []

    async def pay(size: int) -> None:
        paid.append(size)

    found = await verified(archive, bucket.store, pay=pay)
    wrong = {keys[3]: "missing", keys[4]: "changed", keys[5]: "changed"}
    assert {one.store_key: one.verdict for one in found} == {**dict.fromkeys(keys, "equal"), **wrong}
    assert await kept(archive) == wrong
    assert sum(paid) == sum(one.bytes_read for one in found)
