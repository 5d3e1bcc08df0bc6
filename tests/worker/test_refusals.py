"""What the platform refuses to one session must not end the night of the others, and what it refuses to the bot must cost no
session an attempt: a harmless call tells which it is.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from archiver.config import Settings
from archiver.kore import client as client_module
from archiver.queue import quota as quota_module
from archiver.queue import sessions as sessions_module
from archiver.queue.operators import Operators
from archiver.queue.sessions import Queue
from archiver.simulator.limits import GENERAL_MESSAGE
from archiver.worker import holds, judging
from tests.conftest import settings_data
from tests.worker.conftest import Logged, WorkerHarness, session_id

PROBE_SESSION = "archiver-doctor-0"

DENIED = {"fault": "unauthorized", "http_status": 403}
A_DAY = {"fault": "rate_limited", "retry_after": 86400}


def harmless_calls(harness: WorkerHarness) -> int:
    return int(harness.simulator.report()["api"]["by_session"].get(PROBE_SESSION, 0))


async def held(harness: WorkerHarness) -> list[dict[str, Any]]:
    return await harness.rows("SELECT * FROM archive_holds")


# --- 401 and 403


@pytest.mark.parametrize("status", [401, 403])
async def test_a_session_that_is_refused_alone_fails_alone(harness: WorkerHarness, status: int) -> None:
    await harness.scripted(12)
    denied = session_id(5)
    harness.simulator.script({"session_id": denied, "answers": [DENIED | {"http_status": status}]})
    ended = await harness.drained()
    assert (ended.failed, ended.left_pending) == (1, [])
    assert await harness.states() == {"archived": 11, "failed": 1}
    row = (await harness.sessions())[denied]
    assert (row["reason"], row["failures"]) == ("access_denied", 3)
    assert row["detail"]["harmless_call"] == "let in: media_unavailable"
    assert row["detail"]["http_status"] == status
    assert "credentials" not in row["detail"]["message"]
    assert "client_secret" not in row["detail"]["hint"]
    assert await held(harness) == []


async def test_many_that_are_refused_at_once_make_one_harmless_call(harness: WorkerHarness) -> None:
    await harness.scripted(16)
    for number in range(16):
        harness.simulator.script({"session_id": session_id(number), "answers": [DENIED]})
    ended = await harness.drained(harness.settings(worker={"concurrency": 16}, retry={"max_attempts": 1}))
    assert ended.failed == 16
    assert harmless_calls(harness) == 1


@pytest.mark.parametrize("unclear", [{"http_status": 500}, {"raw": "<html>"}], ids=["away", "not the platform"])
async def test_while_nobody_can_say_a_refused_session_waits_and_then_it_counts(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, unclear: dict[str, Any]
) -> None:
    monkeypatch.setattr(judging, "ALONE_SECONDS", 3600.0)
    await harness.scripted(3)
    denied = session_id(1)
    harness.simulator.script({"session_id": denied, "answers": [DENIED]})
    harness.simulator.script({"session_id": PROBE_SESSION, "answers": [unclear]})
    await harness.drained(max_wait=timedelta(0))
    row = (await harness.sessions())[denied]
    assert (row["state"], row["reason"], row["failures"]) == ("pending", "access_unclear", 0)
    assert await harness.states() == {"archived": 2, "pending": 1}
    assert await held(harness) == []
    await harness.rows("UPDATE archive_queue SET run_at = now() WHERE state = 'pending'")
    assert (await harness.drained()).failed == 1
    row = (await harness.sessions())[denied]
    assert (row["state"], row["reason"], row["failures"]) == ("failed", "access_unclear", 3)


async def test_a_harmless_call_that_meets_the_rate_limit_costs_nobody_an_attempt(harness: WorkerHarness) -> None:
    await harness.scripted(3)
    denied = session_id(1)
    harness.simulator.script({"session_id": denied, "answers": [DENIED | {"times": 2}, {"status": "success"}]})
    limited = {"fault": "rate_limited", "times": 1}
    harness.simulator.script({"session_id": PROBE_SESSION, "answers": [limited, {"status": "media_unavailable"}]})
    assert (await harness.drained()).complete
    row = (await harness.sessions())[denied]
    assert (row["state"], row["failures"]) == ("archived", 0)
    assert await held(harness) == []


async def test_a_session_that_is_refused_alone_keeps_no_bot_held(harness: WorkerHarness) -> None:
    """Claimed to try a held bot again, it proves as well as any other that the credentials are good."""
    await harness.scripted(4)
    harness.simulator.reject_credentials = True
    await harness.drained()
    harness.simulator.reject_credentials = False
    denied = session_id(0)
    harness.simulator.script({"session_id": denied, "answers": [DENIED]})
    await harness.rows("UPDATE archive_queue SET run_at = now() - interval '1 hour' WHERE session_id = $1", denied)
    await harness.rows("UPDATE archive_holds SET probe_at = now()")
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 3")
        await shift.stopped()
    assert await held(harness) == []


# --- 404 and 412


@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_bot_id_holds_the_bot_and_costs_nobody_an_attempt(harness: WorkerHarness, status: int) -> None:
    harness.simulator.alter({"unknown_bot_status": status})
    await harness.scripted(12)
    ended = await harness.drained(harness.settings(bot={"bot_id": "st-nobody"}))
    assert ended.left_pending == [{"bot": "bot", "kind": "recording", "sessions": 12, "because": "held"}]
    assert {row["failures"] for row in (await harness.sessions()).values()} == {0}
    (hold,) = await held(harness)
    assert hold["reason"] == "credentials_rejected"
    assert "bots.bot.bot_id" in hold["detail"]["hint"]
    assert (await harness.drained()).complete, "with the right one it is tried at once"


async def test_a_session_that_is_not_found_fails_alone(harness: WorkerHarness) -> None:
    await harness.scripted(6)
    gone = session_id(2)
    harness.simulator.script({"session_id": gone, "answers": [{"http_status": 404, "body": "Session not found"}]})
    assert (await harness.drained()).failed == 1
    row = (await harness.sessions())[gone]
    assert (row["reason"], row["failures"]) == ("api_http_404", 3)
    assert await harness.states() == {"archived": 5, "failed": 1}
    assert await held(harness) == []


async def test_a_session_whose_404_is_that_of_a_missing_bot_keeps_no_bot_held(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform may look for the session before the bot. Nearest to its deletion, that one comes first whenever it is due."""
    for module in (sessions_module, judging):
        monkeypatch.setattr(module, "PROBE_EVERY", timedelta(milliseconds=200))
    harness.simulator.alter({"unknown_bot_status": 404})
    await harness.scripted(6)
    gone = session_id(2)
    not_found = {"http_status": 404, "body": '{"errors": [{"msg": "Bot not found", "code": 404}]}'}
    for one in (gone, PROBE_SESSION):
        harness.simulator.script({"session_id": one, "answers": [not_found]})
    await harness.rows("UPDATE archive_queue SET archive_date = now() - interval '3 days' WHERE session_id = $1", gone)
    async with harness.shift(harness.settings(bot={"source_retention": "90d"}, worker={"concurrency": 1})):
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state IN ('archived', 'failed') HAVING count(*) = 6")
    row = (await harness.sessions())[gone]
    assert (row["state"], row["reason"], row["failures"]) == ("failed", "api_http_404", 3)
    assert "handed_back" in await harness.events(gone), "at first nobody could know"
    assert await held(harness) == []


async def test_a_request_that_is_called_invalid_is_made_once(harness: WorkerHarness) -> None:
    await harness.scripted(3)
    invalid = session_id(1)
    body = '{"errors": [{"msg": "Validation errors/ Invalid arguments", "code": 412}]}'
    harness.simulator.script({"session_id": invalid, "answers": [{"http_status": 412, "body": body}]})
    assert (await harness.drained()).failed == 1
    row = (await harness.sessions())[invalid]
    assert (row["state"], row["reason"], row["failures"]) == ("failed", "api_http_412", 1)
    assert "Invalid arguments" in row["detail"]["message"]


# --- other credentials


async def test_a_worker_with_other_credentials_than_those_refused_tries_at_once(harness: WorkerHarness, logged: Logged) -> None:
    await harness.scripted(6)
    wrong = harness.settings(bot={"client_secret": "a-secret-of-long-ago-0123456789"})
    assert (await harness.drained(wrong)).left_pending
    calls = harness.simulator.report()["api"]["calls"]
    assert (await harness.drained(wrong)).left_pending
    assert harness.simulator.report()["api"]["calls"] == calls, "the same ones wait for their turn"
    assert (await harness.drained()).complete
    assert await harness.states() == {"archived": 6}
    assert len(logged.named("bot_released")) == 1


async def test_other_credentials_that_are_refused_as_well_leave_the_bot_held_and_are_remembered(harness: WorkerHarness) -> None:
    await harness.scripted(6)
    first = harness.settings(bot={"client_secret": "a-secret-of-long-ago-0123456789"})
    second = harness.settings(bot={"client_secret": "another-one-of-long-ago-0123456"})
    await harness.drained(first)
    (before,) = await held(harness)
    assert (await harness.drained(second)).left_pending
    (after,) = await held(harness)
    assert after["since"] == before["since"]
    assert after["detail"]["credentials"] != before["detail"]["credentials"]
    calls = harness.simulator.report()["api"]["calls"]
    await harness.drained(second)
    assert harness.simulator.report()["api"]["calls"] == calls
    assert "long-ago" not in repr((before, after))


async def test_a_hold_that_does_not_say_whose_credentials_it_is_of_is_tried(harness: WorkerHarness) -> None:
    """Such as one from before they were remembered."""
    await harness.scripted(3)
    await Queue(harness.database, harness.settings().retry).hold("bot", "recording", "credentials_rejected", {"message": "401"})
    assert (await harness.drained()).complete


def with_another_bot(harness: WorkerHarness) -> Settings:
    """Besides the usual one, whose secret is wrong, "other", with its credentials."""
    data: dict[str, Any] = settings_data(harness.simulator, harness.database_url, harness.root)
    (bot,) = data["bots"]
    data["bots"] = [bot | {"client_secret": "a-secret-of-long-ago-0123456789"}, bot | {"name": "other"}]
    return Settings.model_validate(data)


async def test_a_long_drain_beside_a_held_bot_comes_to_its_end(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the held one is tried meanwhile."""
    monkeypatch.setattr(sessions_module, "PROBE_EVERY", timedelta(milliseconds=100))
    await harness.scripted(3)
    slow = [session_id(number) for number in range(20, 24)]
    answers = [{"status": "call_in_progress", "times": 4}, {"status": "success"}]
    for one in slow:
        harness.simulator.script({"session_id": one, "answers": answers})
    await harness.enqueue(*slow, bot="other")
    ended = await harness.drained(with_another_bot(harness))
    assert (ended.left_pending, ended.complete) == (
        [{"bot": "bot", "kind": "recording", "sessions": 3, "because": "held"}],
        False,
    )
    assert await harness.states() == {"archived": 4, "pending": 3}


# --- Retry-After


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of tenths of a second in place of ten."""
    monkeypatch.setattr(quota_module, "LONG_WAIT", timedelta(seconds=0.2))
    monkeypatch.setattr(quota_module, "MIN_PROBE_PAUSE", timedelta(seconds=0.2))
    monkeypatch.setattr(holds, "BUDGET_LOOK_SECONDS", 0.1)


async def test_a_retry_after_of_a_day_makes_only_its_session_wait(
    harness: WorkerHarness, logged: Logged, quick_probes: None
) -> None:
    await harness.scripted(12)
    limited = session_id(3)
    harness.simulator.script({"session_id": limited, "answers": [A_DAY]})
    async with harness.shift() as first, harness.shift() as second:
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 11")
        await logged.until("budget_unblocked")
        await asyncio.gather(first.stopped(), second.stopped())
    row = (await harness.sessions())[limited]
    assert (row["state"], row["reason"], row["failures"], row["calls"]) == ("pending", "rate_limited", 0, 1)
    (left,) = await harness.rows("SELECT run_at - now() AS wait FROM archive_sessions WHERE session_id = $1", limited)
    assert timedelta(minutes=58) < left["wait"] <= timedelta(hours=1)
    assert harmless_calls(harness) == 1, "whichever worker had the turn"


async def test_a_retry_after_of_a_day_for_everybody_is_probed_in_growing_pauses(
    harness: WorkerHarness, logged: Logged, quick_probes: None
) -> None:
    await harness.scripted(4)
    for number in range(4):
        harness.simulator.script({"session_id": session_id(number), "answers": [A_DAY | {"times": 1}, {"status": "success"}]})
    harness.simulator.script({"session_id": PROBE_SESSION, "answers": [A_DAY | {"times": 3}, {"status": "media_unavailable"}]})
    async with harness.shift() as shift:
        await logged.until("rate_limit_reached")
        # What comes now waits as well, and goes on as soon as a probe passes.
        harness.simulator.script({"session_id": session_id(9)})
        await harness.enqueue(session_id(9))
        await harness.simulator.wait_for(lambda report: report["api"]["by_session"].get(PROBE_SESSION, 0) >= 2)
        assert session_id(9) not in harness.simulator.report()["api"]["by_session"]
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    assert harmless_calls(harness) == 4
    assert {row["failures"] for row in (await harness.sessions()).values()} == {0}


def of_one_account(harness: WorkerHarness, *changes: dict[str, Any]) -> Settings:
    """Bots "0", "1" and so on, each its own at the platform."""
    data: dict[str, Any] = settings_data(harness.simulator, harness.database_url, harness.root)
    (bot,) = data["bots"]
    account = {"account_id": harness.simulator.settings.account_id, "rate_limits": None, "account_rate_limits": ["60000/minute"]}
    data["bots"] = []
    for number, change in enumerate(changes):
        named = {"name": str(number), "bot_id": f"st-{number}"}
        harness.simulator.add_bot(named["bot_id"], bot["client_id"], bot["client_secret"])
        data["bots"].append(bot | account | named | change)
    return Settings.model_validate(data)


@pytest.mark.parametrize("unfit", ["refused", "paused", "held"])
async def test_a_bot_that_cannot_be_asked_does_not_keep_the_account_from_being_probed(
    harness: WorkerHarness, logged: Logged, quick_probes: None, unfit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who asks is drawn by lot, of three of which one may: with pauses that double, six draws are all that there is time for.
    monkeypatch.setattr(quota_module, "MAX_PROBE_PAUSE", timedelta(seconds=0.2))
    wrong = {"client_secret": "a-secret-of-long-ago-0123456789"}
    settings = of_one_account(harness, {}, wrong, wrong)
    queue = Queue(harness.database, settings.retry)
    await queue.record_bots(["0", "1", "2"], complete=False)
    if unfit == "paused":
        await Operators(harness.database).pause(["1", "2"], actor="me")
    if unfit == "held":
        for bot in ("1", "2"):
            for kind in ("recording", "voicemail"):
                await queue.hold(bot, kind, "credentials_rejected", {})
    limited = session_id(1)
    harness.simulator.script({"session_id": limited, "answers": [A_DAY]})
    harness.simulator.script({"session_id": session_id(2)})
    await harness.enqueue(limited, bot="0")
    async with harness.shift(settings) as shift:
        await logged.until("rate_limit_reached")
        await harness.enqueue(session_id(2), bot="0")
        await logged.until("budget_unblocked")
        assert harmless_calls(harness) == 1, "by the bot that may ask; a refusal of another one opens nothing"
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    assert logged.named("budget_unblocked")[0]["budget"] == settings.bots[0].account_budget_key


async def test_a_refusal_of_one_bot_stops_all_of_its_account(harness: WorkerHarness, logged: Logged) -> None:
    settings = of_one_account(harness, {}, {})
    harness.simulator.script({"session_id": "*"})
    limited = session_id(1)
    answers = [{"fault": "rate_limited", "retry_after": 2, "times": 1}, {"status": "success"}]
    harness.simulator.script({"session_id": limited, "answers": answers})
    await harness.enqueue(limited, bot="0")
    async with harness.shift(settings) as first, harness.shift(settings) as second:
        await logged.until("rate_limit_reached")
        began = time.monotonic()
        await harness.enqueue(*(session_id(number) for number in range(10, 20)), bot="1")
        await harness.simulator.wait_for(lambda report: report["api"]["calls"] > 1)
        assert time.monotonic() - began > 1.5
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 11")
        await asyncio.gather(first.stopped(), second.stopped())
    assert {row["failures"] for row in (await harness.sessions()).values()} == {0}


async def test_a_session_that_meets_the_rate_limit_again_and_again_stops_nobody_but_once(
    harness: WorkerHarness, logged: Logged
) -> None:
    limited = session_id(99)
    harness.simulator.script({"session_id": limited, "answers": [{"fault": "rate_limited", "retry_after": 1}]})
    await harness.enqueue(limited, priority="high")
    await harness.scripted(6)
    ended = await harness.drained(max_wait=timedelta(seconds=10))
    assert (ended.timed_out, ended.failed) == (1, 0)
    assert await harness.states() == {"archived": 6, "pending": 1}
    row = (await harness.sessions())[limited]
    assert (row["reason"], row["failures"], row["calls"]) == ("rate_limited", 0, 2)
    assert (len(logged.named("rate_limit_reached")), len(logged.named("session_rate_limited"))) == (1, 1)
    assert harmless_calls(harness) == 1


# --- texts


async def test_an_echo_of_a_refusal_in_another_answer_is_none(harness: WorkerHarness) -> None:
    """The platform repeats what it was asked for; here an ID that says what its rate limit says."""
    await harness.scripted(3)
    echo = session_id(1)
    body = f'{{"errors": [{{"msg": "Unknown user: {GENERAL_MESSAGE}", "code": 4004}}], "userId": "{GENERAL_MESSAGE}"}}'
    harness.simulator.script({"session_id": echo, "answers": [{"http_status": 400, "body": body}]})
    assert (await harness.drained()).failed == 1
    assert (await harness.sessions())[echo]["reason"] == "api_http_400"
    assert await harness.rows("SELECT 1 FROM archive_budgets WHERE blocked_until > '-infinity'") == []


# --- media hosts

ELSEWHERE = {"url": "https://recordings.example.net/x.wav"}


async def one_after_another(harness: WorkerHarness, urls: list[str | None]) -> None:
    """A drain of so many sessions, in this order; None: a recording that can be had."""
    for number, url in enumerate(urls):
        harness.simulator.script({"session_id": session_id(number), "recordings": [{} if url is None else {"url": url}]})
        await harness.enqueue(session_id(number))
    await harness.drained(harness.settings(worker={"concurrency": 1}))


async def test_nine_refusals_for_one_host_and_a_success_between_hold_nobody(harness: WorkerHarness) -> None:
    nine = [ELSEWHERE["url"]] * 9
    await one_after_another(harness, [*nine, None, *nine])
    assert await harness.states() == {"failed": 18, "archived": 1}
    assert await held(harness) == []


async def test_ten_for_one_host_hold_the_bot_also_with_others_between(harness: WorkerHarness) -> None:
    """A platform that spreads its recordings over several hosts."""
    await one_after_another(harness, [f"https://m{number % 2}.example.net/x.wav" for number in range(24)])
    assert await harness.states() == {"failed": 18, "pending": 6}
    assert [row["detail"]["host"] for row in await held(harness)] == ["m0.example.net"]


async def test_one_session_that_is_tried_again_and_again_counts_once(harness: WorkerHarness) -> None:
    ids = [session_id(number) for number in range(6)]
    for one in ids:
        harness.simulator.script({"session_id": one, "recordings": [ELSEWHERE]})
    await harness.enqueue(*ids)
    async with harness.shift() as shift:
        for _ in range(3):
            await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'failed' HAVING count(*) = 6")
            await Operators(harness.database).retry(actor="me")
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'failed' HAVING count(*) = 6")
        await shift.stopped()
    assert await held(harness) == []


def test_the_session_of_the_harmless_call_is_the_doctors() -> None:
    assert client_module.PROBE_SESSION == PROBE_SESSION
