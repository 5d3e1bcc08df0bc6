"""Repair: what is lost or damaged comes back as it was recorded, or is named; what is there is never touched."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pytest

from archiver.archive.audio import first_bytes
from archiver.archive.mended import Means, Mended
from archiver.archive.repair import MAX_CANDIDATES, MAX_REFUSALS, Repair
from archiver.archive.route import archive_session
from archiver.errors import DatabaseError, StoreUnavailable
from archiver.evidence.verify import Terms, Verification, Verified
from archiver.outcome import classify
from archiver.postgres.database import Database
from archiver.queue.findings import Findings
from archiver.queue.repairs import Repairs
from archiver.queue.sessions import NewSession, Queue
from archiver.session import Attempt, Session
from archiver.stores.local.store import LocalStore
from tests.archive.conftest import LAST, SESSION, SessionHarness, wav
from tests.audio_files import flac
from tests.conftest import RETRY
from tests.stores.harnesses import LocalHarness, MemoryHarness, StoreHarness

pytestmark = pytest.mark.once  # what the parts that it is made of do has tests on every Python

A = {"file_name": "a.wav", "audio": {"bytes": 5000, "seed": 1}}
B = {"file_name": "b.wav", "audio": {"bytes": 6000, "seed": 2}}
PAGE = "<html><body>" + "sorry " * 100 + "</body></html>"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@dataclass
class RepairHarness:
    """A session's way through a real queue, and repairs of it."""

    way: SessionHarness
    queue: Queue
    database: Database
    store: StoreHarness

    async def claimed(self) -> Session:
        worker = await self.queue.start_worker(host="h", pid=1, version="0", lease=RETRY.not_ready_give_up, bots=["bot"])
        (session,) = (await self.queue.claim(worker, {"bot": self.way.bot.quota}, 1)).sessions
        return session

    async def archive(self, *recordings: dict[str, Any], kind: str = "recording", last: bool = False, **fields: Any) -> None:
        """Enqueue, claim, archive and settle the session."""
        self.way.script(*recordings, **fields)
        await self.queue.enqueue([NewSession("bot", SESSION, kind)], actor="test")
        if last:
            await self.sql("UPDATE archive_queue SET failures = $1", LAST)
        attempt = Attempt(await self.claimed())
        try:
            outcome = await archive_session(attempt, self.way.bot, self.way.archive, lambda: None)
        except Exception as error:  # noqa: BLE001  # as the worker does
            outcome = classify(error)
        await self.queue.settle([(attempt, outcome)])

    async def verify(self) -> dict[str, str]:
        found: list[Verified] = []
        await Verification(self.database, self.store.store, Terms(), actor="verifier").run(found.append)
        return {one.store_key: one.verdict for one in found if one.verdict != "equal"}

    def means(self, **means: Any) -> Means:
        repairs, findings = Repairs(self.database, RETRY, actor="me"), Findings(self.database)
        bots = means.pop("bots", {"bot": self.way.bot})
        return Means(self.way.archive, bots, repairs, findings, "me", **means)

    async def repair(self, **means: Any) -> list[Mended]:
        (row,) = await self.sql("SELECT id FROM archive_queue")
        return await Repair(self.means(**means)).session(row["id"])

    async def sql(self, text: str, *args: object) -> list[Any]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(text, *args))

    async def keys(self) -> dict[str, str]:
        """Where each file is recorded to be, by its source's name."""
        return {row["source_name"]: row["store_key"] for row in await self.sql("SELECT * FROM archived_recordings")}

    async def state(self) -> tuple[str, str | None]:
        (row,) = await self.sql("SELECT state, reason FROM archive_queue")
        return row["state"], row["reason"]

    async def findings(self) -> list[dict[str, str]]:
        return [one for row in await self.sql("SELECT findings FROM archive_findings") for one in row["findings"]]

    async def told(self) -> list[dict[str, str]]:
        events = await self.sql("SELECT actor, data FROM archive_history WHERE event = 'repaired' ORDER BY id")
        assert all(event["actor"] == "me" for event in events)
        return [event["data"] for event in events]


@pytest.fixture(params=["folder", "memory"])
async def harness(
    request: pytest.FixtureRequest, harness: SessionHarness, queue: Queue, database: Database
) -> AsyncIterator[RepairHarness]:
    store: StoreHarness = LocalHarness(harness.root) if request.param == "folder" else MemoryHarness()
    harness.archive = replace(harness.archive, store=store.store)
    yield RepairHarness(harness, queue, database, store)
    assert not [key for key in store.objects() if key.endswith(".part")]


async def test_what_is_missing_comes_back_under_its_key_and_what_is_changed_stays_beside(harness: RepairHarness) -> None:
    await harness.archive(A, B)
    keys = await harness.keys()
    a, b = (harness.store.get(keys[name]) for name in ("a.wav", "b.wav"))
    harness.store.remove(keys["a.wav"])
    harness.store.remove(keys["b.wav"])
    harness.store.put(keys["b.wav"], b"damaged")
    assert await harness.verify() == {keys["a.wav"]: "missing", keys["b.wav"]: "changed"}

    planned = await harness.repair(dry_run=True)
    assert [one.outcome for one in planned] == ["would_ask", "would_ask"]
    assert len(await harness.findings()) == 2
    calls = harness.way.simulator.report()["api"]["calls"]
    found = await harness.repair()

    beside = str(PurePosixPath(keys["b.wav"]).with_name("b.repaired.wav"))
    assert [(one.outcome, one.store_key, one.from_key) for one in found] == [
        ("repaired", keys["a.wav"], keys["a.wav"]),
        ("repaired", beside, keys["b.wav"]),
    ]
    assert (harness.store.get(keys["a.wav"]), harness.store.get(beside)) == (a, b)
    assert harness.store.get(keys["b.wav"]) == b"damaged"
    assert await harness.keys() == {"a.wav": keys["a.wav"], "b.wav": beside}
    assert harness.way.simulator.report()["api"]["calls"] == calls + 1
    assert (await harness.verify(), await harness.findings(), await harness.state()) == ({}, [], ("archived", None))
    assert await harness.told() == [
        {"store_key": keys["a.wav"], "from_key": keys["a.wav"], "sha256": sha256(a), "source": "platform"},
        {"store_key": beside, "from_key": keys["b.wav"], "sha256": sha256(b), "source": "platform"},
    ]
    (name,) = await harness.sql("SELECT file_name FROM archived_recordings WHERE source_name = 'b.wav'")
    assert name["file_name"] == "b.repaired.wav"
    assert await harness.repair() == []


async def test_a_repaired_file_that_is_damaged_again_gets_another_number(harness: RepairHarness) -> None:
    await harness.archive(B)
    original = (await harness.keys())["b.wav"]
    body = harness.store.get(original)
    for name in ("b.repaired.wav", "b.repaired~2.wav"):
        key = (await harness.keys())["b.wav"]
        harness.store.remove(key)
        harness.store.put(key, b"damaged")
        await harness.repair()
        assert PurePosixPath((await harness.keys())["b.wav"]).name == name
    assert harness.store.get((await harness.keys())["b.wav"]) == body


async def test_what_an_earlier_repair_put_there_is_taken_without_a_call(harness: RepairHarness) -> None:
    await harness.archive(B)
    key = (await harness.keys())["b.wav"]
    beside = str(PurePosixPath(key).with_name("b.repaired.wav"))
    harness.store.put(beside, harness.store.get(key))
    harness.store.remove(key)
    harness.store.put(key, b"damaged")
    calls = harness.way.simulator.report()["api"]["calls"]
    assert [one.outcome for one in await harness.repair()] == ["repaired"]
    assert await harness.keys() == {"b.wav": beside}
    assert harness.way.simulator.report()["api"]["calls"] == calls


@pytest.mark.parametrize(
    ("recordings", "fields", "reason"),
    [
        ([], {"answers": [{"status": "media_unavailable"}]}, "media_unavailable"),
        ([], {"answers": [{"status": "call_in_progress"}]}, "call_in_progress"),
        ([{**A, "audio": {"bytes": 5000, "seed": 9}}], {}, "recording_differs"),
        ([{**A, "audio": {"raw": PAGE}}], {}, "recording_is_page"),
        ([B], {}, "no_longer_listed"),
        ([A], {"answers": [{"fault": "unauthorized", "times": 9}]}, "credentials_rejected"),
    ],
    ids=["none", "in progress", "other hash", "page", "not listed", "refused"],
)
async def test_a_loss_that_cannot_be_repaired_stays_named(
    harness: RepairHarness, recordings: list[dict[str, Any]], fields: dict[str, Any], reason: str
) -> None:
    await harness.archive(A)
    key = (await harness.keys())["a.wav"]
    harness.store.remove(key)
    await harness.verify()
    harness.way.script(*recordings, **fields)
    (one,) = await harness.repair()
    assert (one.outcome, one.store_key, one.reason) == ("not_repaired", key, reason)
    assert one.message
    assert [finding["verdict"] for finding in await harness.findings()] == ["missing"]
    assert harness.store.objects() == set(), "nothing that was refused is kept"
    assert await harness.state() == ("archived", None)
    assert await harness.told() == []


async def test_a_file_is_known_by_its_name_where_the_list_has_changed(harness: RepairHarness) -> None:
    await harness.archive(A, B)
    keys = await harness.keys()
    harness.store.remove(keys["a.wav"])
    harness.way.script({**B, "file_name": "new.wav"}, B, A)
    assert [one.outcome for one in await harness.repair()] == ["repaired"]
    assert await harness.verify() == {}


async def test_a_bot_that_nobody_configured_is_said(harness: RepairHarness) -> None:
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])
    (one,) = await harness.repair(bots={})
    assert (one.outcome, one.reason) == ("not_repaired", "unknown_bot")


async def test_a_session_that_a_worker_holds_is_left_alone(harness: RepairHarness) -> None:
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])
    await harness.sql("UPDATE archive_queue SET state = 'pending', finished_at = NULL, archived_before = true")
    await harness.claimed()
    (one,) = await harness.repair()
    assert (one.outcome, one.reason) == ("left_alone", "claimed")
    assert harness.store.objects() == set()


async def test_two_repairs_at_once_record_one_file_once(harness: RepairHarness) -> None:
    await harness.archive(B)
    key = (await harness.keys())["b.wav"]
    harness.store.remove(key)
    harness.store.put(key, b"damaged")
    both = await asyncio.gather(harness.repair(), harness.repair())
    assert [one.outcome for found in both for one in found].count("repaired") == 1
    assert len(await harness.told()) == 1
    assert await harness.verify() == {}


async def test_what_a_voicemail_says_comes_back_too(harness: RepairHarness) -> None:
    await harness.archive(A, kind="voicemail", voicemail=True, transcriptions=[{"text": "hello"}])
    keys = await harness.keys()
    for key in keys.values():
        harness.store.remove(key)
    assert [one.outcome for one in await harness.repair()] == ["repaired", "repaired"]
    assert (await harness.verify(), await harness.keys()) == ({}, keys)


@pytest.mark.parametrize("harness", ["folder"], indirect=True)
async def test_what_is_no_file_stays_and_what_may_be_whole_is_not_replaced(harness: RepairHarness) -> None:
    assert isinstance(harness.store, LocalHarness)
    await harness.archive(A, B)
    keys = await harness.keys()
    link, folder = (harness.store.root / keys[name] for name in ("a.wav", "b.wav"))
    target = harness.store.root / "elsewhere.wav"
    link.rename(target)
    link.symlink_to(target)
    (one,) = await harness.repair()
    assert (one.outcome, PurePosixPath(one.store_key).name) == ("repaired", "a.repaired.wav")
    assert link.is_symlink()
    parent = folder.parent
    parent.rename(harness.store.root / "moved")
    parent.symlink_to(harness.store.root / "moved")
    found = await harness.repair()
    assert {(one.outcome, one.reason) for one in found} == {("not_repaired", "unreadable")}
    assert len(await harness.findings()) == 2


async def test_a_session_that_moves_meanwhile_keeps_its_row(harness: RepairHarness) -> None:
    """Its epoch rises while the file is on its way."""
    await harness.archive(B)
    key = (await harness.keys())["b.wav"]
    harness.store.remove(key)
    harness.store.put(key, b"damaged")
    repairs = Repairs(harness.database, RETRY, actor="me")
    (row,) = await harness.sql("SELECT id FROM archive_queue")
    before = await repairs.read(row["id"])
    assert before is not None
    await harness.sql("UPDATE archive_queue SET epoch = epoch + 1")
    assert not await repairs.move(before.session, before.files[0], key="other", file_name="other", source="platform")
    now = await repairs.read(row["id"])
    assert now is not None
    damaged = replace(now.files[0], store_key="not this one")
    assert not await repairs.move(now.session, damaged, key="other", file_name="other", source="platform")
    assert not await repairs.settle(before.session)
    assert (await harness.keys(), await harness.told()) == ({"b.wav": key}, [])


async def test_recordings_that_lie_in_the_answer_come_back(inline: SessionHarness, queue: Queue, database: Database) -> None:
    harness = RepairHarness(inline, queue, database, LocalHarness(inline.root))
    await harness.archive(A, B)
    files = [row["store_key"] for row in await harness.sql("SELECT store_key FROM archived_recordings ORDER BY ordinal")]
    harness.store.remove(files[1])
    assert [(one.outcome, one.store_key) for one in await harness.repair()] == [("repaired", files[1])]
    assert await harness.verify() == {}


async def test_a_rate_limit_is_waited_out(harness: RepairHarness) -> None:
    await harness.archive(A)
    key = (await harness.keys())["a.wav"]
    harness.store.remove(key)
    harness.way.script(A, answers=[{"fault": "rate_limited"}, {"status": "success"}])
    assert [one.outcome for one in await harness.repair()] == ["repaired"]


async def test_no_more_is_had_than_was_recorded(harness: RepairHarness) -> None:
    """Whatever the platform lists under this name now, and however often."""
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])
    harness.way.script(*({**A, "audio": {"bytes": 3_000_000, "seed": seed}} for seed in range(5)))
    before, came = harness.way.simulator.report()["media"], harness.way.archive.transfers.bytes
    (one,) = await harness.repair()
    assert (one.outcome, one.reason) == ("not_repaired", "recording_differs")
    after = harness.way.simulator.report()["media"]
    assert harness.way.archive.transfers.bytes - came < 3_000_000
    assert after["requests"] - before["requests"] == MAX_CANDIDATES


async def test_damaged_files_whose_keys_would_meet_get_a_key_each(harness: RepairHarness) -> None:
    same = {"bytes": 5000, "seed": 1}
    await harness.archive({"file_name": "x.wav", "audio": same}, {"file_name": "x.repaired.wav", "audio": same})
    for key in (await harness.keys()).values():
        harness.store.remove(key)
        harness.store.put(key, b"damaged")
    assert [one.outcome for one in await harness.repair()] == ["repaired", "repaired"]
    assert {PurePosixPath(key).name for key in (await harness.keys()).values()} == {"x.repaired~2.wav", "x.repaired~3.wav"}
    assert await harness.verify() == {}


async def test_long_names_that_would_meet_get_a_key_each(harness: RepairHarness) -> None:
    names = [f"{'n' * 200}{number}.wav" for number in range(3)]
    await harness.archive(*({"file_name": name, "audio": {"bytes": 5000, "seed": n}} for n, name in enumerate(names)))
    for key in (await harness.keys()).values():
        harness.store.remove(key)
        harness.store.put(key, b"damaged")
    harness.way.archive = replace(harness.way.archive, longest_name=143)
    assert [one.outcome for one in await harness.repair()] == ["repaired"] * 3
    assert len(set((await harness.keys()).values())) == 3


async def test_a_store_that_takes_nothing_ends_the_repair(harness: RepairHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk does, or a service that is away."""
    await harness.archive(A, B)
    for key in (await harness.keys()).values():
        harness.store.remove(key)

    def full(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("No space left on device", hint="free space")

    monkeypatch.setattr(type(harness.store.store), "upload", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        await harness.repair()


async def test_an_error_of_one_session_is_its_own(harness: RepairHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])

    async def refused(*_: Any, **__: Any) -> bool:
        raise DatabaseError("the database refused: a trigger of somebody's")

    monkeypatch.setattr(Repairs, "move", refused)
    (one,) = await harness.repair()
    assert (one.outcome, one.session_id, one.store_key) == ("not_repaired", SESSION, "")
    assert "a trigger" in one.message


async def test_a_bot_that_is_refused_however_long_it_waits_is_asked_no_more(harness: RepairHarness) -> None:
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])
    harness.way.script(answers=[{"fault": "rate_limited", "times": 99}])
    (row,) = await harness.sql("SELECT id FROM archive_queue")
    repair = Repair(harness.means())
    refused = harness.way.simulator.report()["api"]["rate_limited"]
    for _ in range(2):
        assert [(one.outcome, one.reason) for one in await repair.session(row["id"])] == [("not_repaired", "rate_limited")]
        assert harness.way.simulator.report()["api"]["rate_limited"] == refused + MAX_REFUSALS


async def test_a_rate_limit_is_waited_out_where_urls_are_renewed(harness: RepairHarness) -> None:
    await harness.archive(A)
    harness.store.remove((await harness.keys())["a.wav"])
    answers = [{"status": "success", "times": 1}, {"fault": "rate_limited", "times": 1}, {"status": "success"}]
    harness.way.script({**A, "faults": [{"kind": "expired"}]}, answers=answers)
    assert [one.outcome for one in await harness.repair()] == ["repaired"]


# --- quarantine


async def refuse(harness: RepairHarness, *recordings: dict[str, Any], body: bytes, **facts: Any) -> str:
    """Archive the session of a page and more; then let its body be another, as if an earlier version had refused that."""
    await harness.archive({**A, "audio": {"raw": PAGE}}, *recordings, last=True)
    event, *_ = await harness.sql(
        "SELECT id, place, data FROM archive_history WHERE event = 'file_failed' ORDER BY at, id, place"
    )
    key: str = event["data"]["quarantined"]
    harness.store.remove(key)
    harness.store.put(key, body)
    facts = {"received": len(body), "quarantined_sha256": sha256(body), "whole": True, **facts}
    path = [str(event["place"] - 1), "2"]
    await harness.sql(
        "UPDATE archive_events SET lines = jsonb_set(lines, $3, (lines #> $3) || $1::jsonb) WHERE id = $2",
        facts,
        event["id"],
        path,
    )
    return key


def own_key(kept: str) -> str:
    """The key of the recording of which this body was refused."""
    return kept.removeprefix("quarantine/").rpartition("/")[0] + "/a.wav"


async def try_again(harness: RepairHarness, *recordings: dict[str, Any]) -> None:
    """Somebody retries the session; the platform serves these now."""
    harness.way.script(*recordings)
    await harness.sql("UPDATE archive_queue SET state = 'pending', finished_at = NULL, reason = NULL, epoch = epoch + 1")
    attempt = Attempt(await harness.claimed())
    try:
        outcome = await archive_session(attempt, harness.way.bot, harness.way.archive, lambda: None)
    except Exception as error:  # noqa: BLE001  # as the worker does
        outcome = classify(error)
    await harness.queue.settle([(attempt, outcome)])


async def test_a_recording_in_quarantine_is_taken_and_its_session_archived(harness: RepairHarness) -> None:
    body = flac()
    kept = await refuse(harness, B, body=body)
    assert await harness.state() == ("failed", "partial")
    assert [one.outcome for one in await harness.repair(dry_run=True)] == ["would_look"]
    found = await harness.repair()
    key = (await harness.keys())["a.wav"]
    assert [(one.outcome, one.store_key, one.from_key) for one in found] == [("repaired", key, kept), ("archived", "", "")]
    assert key == str(PurePosixPath(own_key(kept)).with_name("a.repaired.wav"))
    assert harness.store.get(key) == harness.store.get(kept) == body
    assert (await harness.state(), await harness.verify()) == (("archived", None), {})
    assert await harness.told() == [{"store_key": key, "from_key": kept, "sha256": sha256(body), "source": "quarantine"}]
    (row,) = await harness.sql("SELECT * FROM archived_recordings WHERE ordinal = 1")
    assert (row["media_type"], row["sha256"], row["flags"]) == ("audio/flac", sha256(body), ["type_differs", "name_differs"])
    events = await harness.sql("SELECT event FROM archive_history ORDER BY at DESC, id DESC, place DESC LIMIT 2")
    assert [event["event"] for event in events] == ["archived", "retried"]
    counts = await harness.sql("SELECT state, sessions, files, bytes FROM archive_counts")
    assert [tuple(row) for row in counts] == [("archived", 1, 2, len(body) + 6000)]
    assert await harness.repair() == []


async def test_what_has_the_recordings_key_is_left_there(harness: RepairHarness) -> None:
    kept = await refuse(harness, body=flac())
    key = own_key(kept)
    harness.store.put(key, b"other")
    (one,) = await harness.repair()
    assert (one.outcome, one.reason, one.from_key) == ("not_repaired", "conflict", kept)
    assert harness.store.get(key) == b"other"
    assert harness.store.objects() == {key, kept}


async def test_a_session_that_lacks_another_file_stays_failed(harness: RepairHarness) -> None:
    body = flac()
    await refuse(harness, {**B, "audio": {"raw": PAGE}}, body=body)
    found = await harness.repair()
    assert [one.outcome for one in found] == ["repaired", "refused"]
    assert (await harness.state())[0] == "failed"
    assert list(await harness.keys()) == ["a.wav"]


@pytest.mark.parametrize(
    ("body", "facts", "outcome"),
    [
        (PAGE.encode(), {}, "refused"),
        (wav(5000), {"received": 5001}, "refused"),
        (wav(5000) + b"tail" * 10, {}, "repaired"),
        (wav(5000) + b"tail" * 10, {"whole": None}, "refused"),
        (wav(5000)[:4000], {"whole": None}, "refused"),
    ],
    ids=["page", "not all of it", "whole", "unproven", "cut"],
)
async def test_what_is_no_recording_today_stays_in_quarantine(
    harness: RepairHarness, body: bytes, facts: dict[str, Any], outcome: str
) -> None:
    kept = await refuse(harness, body=body, **facts)
    found = await harness.repair()
    assert found[0].outcome == outcome
    assert (await harness.state())[0] == ("archived" if outcome == "repaired" else "failed")
    assert harness.store.get(kept) == body


async def test_failed_sessions_with_something_in_quarantine_are_found(harness: RepairHarness) -> None:
    await refuse(harness, body=flac())
    repairs = Repairs(harness.database, RETRY, actor="me")
    (row,) = await harness.sql("SELECT id FROM archive_queue")
    assert [one async for one in repairs.quarantined(bot=None, kind=None)] == [row["id"]]
    assert [one async for one in repairs.quarantined(bot="other", kind=None)] == []
    await harness.repair()
    assert [one async for one in repairs.quarantined(bot=None, kind=None)] == []


class Killed(BaseException):
    """As far as a process comes that is killed."""


async def killed(*_: Any, **__: Any) -> bool:
    raise Killed


async def test_a_repair_that_is_killed_keeps_no_recording_from_its_key(
    harness: RepairHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between the copy and its row; the session is retried, and the platform has the true file now."""
    await refuse(harness, body=flac())
    with monkeypatch.context() as patched:
        patched.setattr(Repairs, "add", killed)
        with pytest.raises(Killed):
            await harness.repair()
    await try_again(harness, A)
    assert await harness.state() == ("archived", None)
    key = (await harness.keys())["a.wav"]
    assert (PurePosixPath(key).name, len(harness.store.get(key))) == ("a.wav", 5000)
    assert (await harness.verify(), await harness.repair()) == ({}, [])


async def test_a_repair_that_is_killed_is_taken_up_by_the_next(harness: RepairHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await refuse(harness, body=flac())
    with monkeypatch.context() as patched:
        patched.setattr(Repairs, "add", killed)
        with pytest.raises(Killed):
            await harness.repair()
    assert [one.outcome for one in await harness.repair()] == ["repaired", "archived"]


async def test_a_session_that_moves_meanwhile_is_left_and_its_key_free(
    harness: RepairHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await refuse(harness, body=flac())
    add = Repairs.add

    async def moved(*args: Any, **named: Any) -> bool:
        await harness.sql("UPDATE archive_queue SET epoch = epoch + 1")
        return await add(*args, **named)

    monkeypatch.setattr(Repairs, "add", moved)
    (one,) = await harness.repair()
    assert (one.outcome, one.reason) == ("left_alone", "moved")
    assert "repair will find it" not in one.message
    assert own_key(kept) not in harness.store.objects()


async def test_of_bodies_in_conflict_none_is_chosen(harness: RepairHarness) -> None:
    """One was refused, something lay under the key, and what the platform serves now went to quarantine, too."""
    kept = await refuse(harness, body=flac())
    harness.store.put(own_key(kept), flac())
    await try_again(harness, A)
    assert await harness.state() == ("failed", "conflict")
    for _ in range(2):
        (one,) = await harness.repair()
        assert (one.outcome, one.reason) == ("not_repaired", "conflict")
        # Whatever became of what lay there, and of the session's own reason.
        if own_key(kept) in harness.store.objects():
            harness.store.remove(own_key(kept))
            await harness.sql("UPDATE archive_queue SET reason = 'recording_is_page', detail = '{}'")
    assert (await harness.keys(), (await harness.state())[0]) == ({}, "failed")


async def test_an_older_body_is_not_chosen_where_a_newer_one_differs(harness: RepairHarness) -> None:
    await refuse(harness, body=flac())
    await try_again(harness, {**A, "audio": {"raw": PAGE + "another"}})
    (one,) = await harness.repair()
    assert (one.outcome, one.reason) == ("not_repaired", "conflict")
    assert (await harness.keys(), (await harness.state())[0]) == ({}, "failed")


async def test_what_is_put_in_quarantine_in_place_of_a_body_is_not_taken(harness: RepairHarness) -> None:
    """Only its hash tells: it is of the same length, and a recording."""
    await harness.archive({**A, "audio": {"raw": PAGE}}, last=True)
    (event,) = await harness.sql("SELECT data FROM archive_history WHERE event = 'file_failed'")
    assert event["data"]["quarantined_sha256"] == sha256(PAGE.encode())
    harness.store.remove(event["data"]["quarantined"])
    harness.store.put(event["data"]["quarantined"], wav(len(PAGE)))
    (one,) = await harness.repair()
    assert (one.outcome, one.reason) == ("not_repaired", "recording_differs")
    assert (await harness.keys(), await harness.state()) == ({}, ("failed", "recording_is_page"))


@pytest.mark.parametrize("proven", [True, False], ids=["first bytes", "nothing"])
async def test_a_body_without_a_hash_is_told_by_its_first_bytes_and_flagged(harness: RepairHarness, proven: bool) -> None:
    noted = first_bytes(flac()) if proven else "RIFF"
    await refuse(harness, body=flac(), quarantined_sha256=None, first_bytes=noted)
    found = await harness.repair()
    assert [one.outcome for one in found] == (["repaired", "archived"] if proven else ["not_repaired"])
    flags = [row["flags"] for row in await harness.sql("SELECT flags FROM archived_recordings")]
    assert flags == ([["type_differs", "name_differs", "unproven"]] if proven else [])


async def test_what_a_killed_repair_brought_back_is_in_the_history(
    harness: RepairHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.archive(A)
    key = (await harness.keys())["a.wav"]
    body = harness.store.get(key)
    harness.store.remove(key)
    await harness.verify()
    with monkeypatch.context() as patched:
        patched.setattr(Repairs, "move", killed)
        with pytest.raises(Killed):
            await harness.repair()
    assert harness.store.get(key) == body
    assert await harness.repair(dry_run=True) == []
    assert [(one.outcome, one.source) for one in await harness.repair()] == [("repaired", "unknown")]
    assert await harness.told() == [{"store_key": key, "from_key": key, "sha256": sha256(body), "source": "unknown"}]
    assert (await harness.findings(), await harness.repair()) == ([], [])


@pytest.mark.parametrize("harness", ["folder"], indirect=True)
async def test_what_a_killed_repair_left_is_removed_whatever_came_since(
    harness: RepairHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary file: the session has another epoch by then."""
    assert isinstance(harness.store, LocalHarness)
    await harness.archive(A)
    key = (await harness.keys())["a.wav"]
    harness.store.remove(key)
    parts: list[str] = []

    def upload(*_: Any, part: str, **__: Any) -> Any:
        parts.append(part)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "upload", upload)
        with pytest.raises(Killed):
            await harness.repair()
    left = PurePosixPath(key).with_name(parts[0].replace(".part", ".0123456789abcdef.part"))
    harness.store.put(str(left), b"half of it")
    await harness.sql("UPDATE archive_queue SET epoch = epoch + 1")
    assert [one.outcome for one in await harness.repair()] == ["repaired"]
    assert str(left) not in harness.store.objects()
