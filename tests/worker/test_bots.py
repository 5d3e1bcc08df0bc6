"""What concerns a bot or the store as a whole, and not one session: nobody's attempts are used up for it."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import StoreUnavailable
from archiver.queue import quota as quota_module
from archiver.queue.operators import Operators
from archiver.stores.local.store import LocalStore
from archiver.worker import claiming, store_gate
from archiver.worker import loop as worker_module
from tests.worker.conftest import Logged, WorkerHarness, session_id


async def assert_untouched(harness: WorkerHarness, count: int) -> None:
    sessions = await harness.sessions()
    assert [(row["state"], row["failures"], row["crashes"]) for row in sessions.values()] == [("pending", 0, 0)] * count


async def test_rejected_credentials_hold_the_bot_and_cost_nobody_an_attempt(harness: WorkerHarness, logged: Logged) -> None:
    await harness.scripted(40)
    harness.simulator.reject_credentials = True
    ended = await harness.drained()
    assert not ended.complete
    assert ended.left_pending == [{"bot": "bot", "kind": "recording", "sessions": 40, "because": "held"}]
    await assert_untouched(harness, 40)
    # Two calls a session, a second one with a token signed afresh, and no session beyond those that ran already; and one
    # harmless call, likewise.
    calls = harness.simulator.report()["api"]["calls"]
    assert calls <= 2 * 8 + 2
    (held,) = logged.named("bot_held")
    assert (held["bot"], held["kind"], held["reason"]) == ("bot", "recording", "credentials_rejected")
    again = await harness.drained()
    assert again.left_pending == ended.left_pending
    assert harness.simulator.report()["api"]["calls"] == calls


async def test_rejected_credentials_hold_a_bot_of_few_calls_too(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call of a session, with a token signed afresh, was never to be had: each began anew, for ever."""
    monkeypatch.setattr(quota_module, "MIN_PATIENCE", timedelta(0))
    monkeypatch.setattr(quota_module, "LONG_WAIT", timedelta(0))
    await harness.scripted(5)
    harness.simulator.reject_credentials = True
    ended = await harness.drained(harness.settings(bot={"rate_limits": ["1/second"]}))
    assert ended.left_pending == [{"bot": "bot", "kind": "recording", "sessions": 5, "because": "held"}]
    await assert_untouched(harness, 5)
    assert harness.simulator.report()["api"]["calls"] == 4, "no other session takes the calls that one in hand waits for"


async def test_resume_releases_a_held_bot_while_a_worker_runs(harness: WorkerHarness) -> None:
    await harness.scripted(5)
    harness.simulator.reject_credentials = True
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 FROM archive_holds")
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_sessions WHERE state = 'claimed')")
        harness.simulator.reject_credentials = False
        await Operators(harness.database).resume(["bot"], actor="me")
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 5")
        await shift.stopped()


async def test_a_probe_that_succeeds_releases_the_bot(harness: WorkerHarness, logged: Logged) -> None:
    await harness.scripted(5)
    harness.simulator.reject_credentials = True
    await harness.drained()
    harness.simulator.reject_credentials = False
    await harness.rows("UPDATE archive_holds SET probe_at = now()")
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 5")
        await shift.stopped()
    assert len(logged.named("bot_released")) == 1
    assert await harness.rows("SELECT * FROM archive_holds") == []


async def test_a_probe_that_fails_leaves_the_bot_held(harness: WorkerHarness) -> None:
    await harness.scripted(5)
    harness.simulator.reject_credentials = True
    await harness.drained()
    calls = harness.simulator.report()["api"]["calls"]
    await harness.rows("UPDATE archive_holds SET probe_at = now()")
    async with harness.shift() as shift:
        await harness.simulator.wait_for(lambda report: report["api"]["calls"] == calls + 4)
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_sessions WHERE state = 'claimed')")
        await shift.stopped()
    assert len(await harness.rows("SELECT * FROM archive_holds WHERE probe_at > now()")) == 1
    assert harness.simulator.report()["api"]["calls"] == calls + 4, "its own two, and those of the harmless call"
    await assert_untouched(harness, 5)


async def test_several_refusals_of_one_public_media_host_hold_the_bot(harness: WorkerHarness, logged: Logged) -> None:
    """A short media_hosts list must not cost a night: nine sessions fail, then the others wait."""
    await harness.scripted(20, url="https://recordings.example.net/x.wav")
    ended = await harness.drained()
    sessions = await harness.sessions()
    failed = [row for row in sessions.values() if row["state"] == "failed"]
    assert [row["reason"] for row in failed] == ["media_host_refused"] * 9
    assert "media_hosts" in failed[0]["detail"]["hint"]
    assert ended.left_pending == [{"bot": "bot", "kind": "recording", "sessions": 11, "because": "held"}]
    assert {row["failures"] for row in sessions.values() if row["state"] == "pending"} == {0}
    (held,) = logged.named("bot_held")
    assert (held["reason"], held["host"]) == ("media_host_refused", "recordings.example.net")


@pytest.mark.parametrize(
    "urls",
    [
        ["https://recordings.example.net/x.wav"] * 9,
        ["https://a.example.net/x.wav", "https://b.example.net/x.wav"] * 6,
        ["http://169.254.169.254/latest/meta-data/"] * 12,
    ],
    ids=["too few", "not one host", "an inner address"],
)
async def test_other_refusals_fail_their_sessions_alone(harness: WorkerHarness, urls: list[str]) -> None:
    for number, url in enumerate(urls):
        harness.simulator.script({"session_id": session_id(number), "recordings": [{"url": url}]})
        await harness.enqueue(session_id(number))
    # One after the other: which host was refused last is a matter of order.
    ended = await harness.drained(harness.settings(worker={"concurrency": 1}))
    assert ended.failed == len(urls)
    assert ended.left_pending == []
    assert {row["reason"] for row in (await harness.sessions()).values()} == {"media_host_refused"}


async def test_a_rate_limit_blocks_the_bot_for_everyone_and_costs_no_attempt(harness: WorkerHarness, logged: Logged) -> None:
    limited = session_id(99)
    answers = [{"fault": "rate_limited", "retry_after": 2, "times": 1}, {"status": "success"}]
    harness.simulator.script({"session_id": limited, "answers": answers})
    await harness.enqueue(limited)
    async with harness.shift() as first, harness.shift() as second:
        began = time.monotonic()
        told = await logged.until("rate_limit_reached")
        assert 1.5 < told["wait_seconds"] <= 2.1
        calls = harness.simulator.report()["api"]["calls"]
        await harness.scripted(10)
        await harness.simulator.wait_for(lambda report: report["api"]["calls"] > calls)
        assert time.monotonic() - began > 1.5
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 11")
        await asyncio.gather(first.stopped(), second.stopped())
    row = (await harness.sessions())[limited]
    assert (row["failures"], row["calls"]) == (0, 2)


async def test_a_store_that_fails_in_the_middle_of_the_night_costs_nobody_an_attempt(
    harness: WorkerHarness, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_gate, "PATIENCE", 3)
    await harness.scripted(30, faults=[{"kind": "slow", "bytes_per_second": 4000}])
    aside = harness.root.with_name("aside")
    async with harness.shift(harness.settings(worker={"concurrency": 4}), drain=True) as shift:
        await harness.simulator.wait_for(lambda report: report["media"]["complete"] >= 4)
        harness.root.rename(aside)
        harness.root.write_bytes(b"not a folder")
        ended = await shift.ended()
    assert ended.store_unavailable
    assert not ended.complete
    assert ended.timed_out == (await harness.states())["pending"] > 0
    sessions = await harness.sessions()
    assert {(row["failures"], row["crashes"]) for row in sessions.values()} == {(0, 0)}
    assert {row["state"] for row in sessions.values()} <= {"archived", "pending"}
    # While the store fails nothing is asked of the platform: those that ran when it began, and no more.
    waves = [entry["failures"] for entry in logged.named("store_unavailable")]
    assert waves == [1, 2, 3]
    assert harness.simulator.report()["api"]["calls"] <= len([row for row in sessions.values() if row["state"] == "archived"]) + 4
    harness.root.unlink()
    aside.rename(harness.root)
    assert (await harness.drained()).complete
    assert await harness.states() == {"archived": 30}


async def test_a_store_that_vanishes_and_returns_is_used_again_and_tidied(harness: WorkerHarness, logged: Logged) -> None:
    # Long enough that something of each lies on the disk while it comes.
    await harness.scripted(12, audio={"bytes": 3_000_000}, faults=[{"kind": "slow", "bytes_per_second": 1_500_000}])
    aside = harness.root.with_name("aside")
    async with harness.shift(harness.settings(worker={"concurrency": 4}), drain=True) as shift:
        await harness.parts_are(4)
        harness.root.rename(aside)
        await logged.until("store_unavailable")
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_sessions WHERE state = 'claimed')")
        aside.rename(harness.root)
        ended = await shift.ended()
    assert ended.complete
    assert {(row["failures"], row["crashes"]) for row in (await harness.sessions()).values()} == {(0, 0)}
    assert harness.parts() == []
    await harness.assert_accounted_for()


async def test_a_store_that_refuses_single_keys_is_used_again(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = True
    usual = LocalStore.upload

    def upload(self: LocalStore, key: str, **options: Any) -> Any:
        if failing and not key.startswith(".check"):
            raise StoreUnavailable(f"{key} cannot be kept", store_key=key)
        return usual(self, key, **options)

    await harness.scripted(6)
    async with harness.shift(drain=True) as shift:
        monkeypatch.setattr(LocalStore, "upload", upload)
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE reason = 'store_unavailable'")
        failing = False
        ended = await shift.ended()
    assert ended.complete
    assert {row["failures"] for row in (await harness.sessions()).values()} == {0}
    await harness.assert_accounted_for()


async def test_one_recording_that_the_store_never_takes_fails_in_the_end_and_the_others_go_on(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = LocalStore.upload
    too_large = session_id(0)

    def upload(self: LocalStore, key: str, **options: Any) -> Any:
        if too_large in key:
            raise StoreUnavailable(f"{key} cannot be kept: no space left on device", store_key=key)
        return usual(self, key, **options)

    await harness.scripted(6)
    monkeypatch.setattr(LocalStore, "upload", upload)
    assert (await harness.drained()).failed == 1
    sessions = await harness.sessions()
    assert (sessions[too_large]["state"], sessions[too_large]["reason"]) == ("failed", "store_unavailable")
    # The first refusal is the store's fault as far as anybody knows; from the second on it is the session's.
    assert (sessions[too_large]["failures"], sessions[too_large]["calls"]) == (3, 4)
    assert {row["state"] for one, row in sessions.items() if one != too_large} == {"archived"}


async def test_rows_inserted_by_plain_sql_wake_a_worker_before_it_would_look(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "POLL_SECONDS", 3600.0)
    one = session_id(1)
    harness.simulator.script({"session_id": one})
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        for number in range(2):
            await harness.rows(
                "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1) ON CONFLICT DO NOTHING", session_id(number + 1)
            )
            await harness.eventually(
                "SELECT 1 FROM archive_sessions WHERE state <> 'pending' AND session_id = $1", session_id(number + 1), timeout=5
            )
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'", timeout=5)
        await shift.stopped()


async def test_a_listener_that_is_cut_comes_back(harness: WorkerHarness, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = (
        "SELECT pid FROM pg_stat_activity WHERE query ~ '^(LISTEN|SELECT 1$)' AND datname = current_database() AND pid <> $1"
    )
    monkeypatch.setattr(worker_module, "LISTENER_CHECK_SECONDS", 1.0)
    one = session_id(1)
    harness.simulator.script({"session_id": one})
    async with harness.shift() as shift:
        (row,) = await harness.eventually(listening, 0)
        await harness.rows("SELECT pg_terminate_backend($1)", row["pid"])
        await harness.enqueue(one)
        # Without it polling goes on.
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'", timeout=5)
        await harness.eventually(listening, row["pid"], timeout=25)
        await shift.stopped()
    assert len(logged.named("listener_disconnected")) == 1
