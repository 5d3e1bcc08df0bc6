"""Sessions are found by what they are and by who spoke, the latest call first, and no look-up reads them all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from archiver.outcome import Archived, Unavailable
from archiver.queue import search
from archiver.queue.accounts import Accounts
from archiver.queue.call_times import CallTimes
from archiver.queue.findings import DamagedSessions, Findings
from archiver.queue.recorded import ChosenFiles
from archiver.queue.search import Chosen, People, Search
from archiver.queue.sessions import CallFacts
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

BEGAN = datetime(2026, 3, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)

MILLER = {"name": "Ann Miller", "email": "ann@example.com", "agentId": "a-1"}


async def found(harness: QueueHarness, chosen: Chosen | None = None, people: People | None = None, **limit: Any) -> list[str]:
    limit = limit or {"limit": None}
    return [each.session_id async for each in Search(harness.database).find(chosen or Chosen(), people, **limit)]


async def in_every_state(harness: QueueHarness) -> None:
    """Sessions of two bots, an hour apart: s-0 the earliest; each state with some."""
    ends = (
        ("s-0", "archived", None), ("s-1", "failed", "conflict"), ("s-2", "failed", "partial"), ("s-3", "unavailable", "none"),
        ("s-4", "cancelled", "a wrong list"), ("s-5", "pending", None), ("s-6", "claimed", None), ("s-7", "archived", None),
    )  # fmt: skip
    for place, (name, state, reason) in enumerate(ends):
        await harness.add(name, bot="bot" if place % 2 else "other", started_at=BEGAN + place * HOUR)
        await harness.fetch(
            "UPDATE archive_queue SET state = 'claimed', worker_id = 7, claimed_at = now() WHERE session_id = $1", name
        )
        if state == "pending":
            await harness.fetch("UPDATE archive_queue SET state = 'pending', worker_id = NULL WHERE session_id = $1", name)
        elif state != "claimed":
            query = """UPDATE archive_queue SET state = $2, reason = $3, worker_id = NULL, finished_at = now(),
                       detail = CASE $3 WHEN 'partial' THEN '{"reason": "conflict"}'::jsonb ELSE '{}' END WHERE session_id = $1"""
            await harness.fetch(query, name, state, reason)


async def test_the_latest_call_comes_first_and_pages_leave_none_out(
    harness: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_every_state(harness)
    everything = [f"s-{number}" for number in reversed(range(8))]
    assert await found(harness) == everything
    monkeypatch.setattr(search, "PAGE", 1)
    assert await found(harness) == everything
    assert await found(harness, limit=3) == everything[:3]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Chosen(states=["failed"]), ["s-2", "s-1"]),
        (Chosen(states=["archived", "claimed"]), ["s-7", "s-6", "s-0"]),
        (Chosen(states=["pending"]), ["s-5"]),
        (Chosen(bots=["other"]), ["s-6", "s-4", "s-2", "s-0"]),
        (Chosen(bots=["nobody"]), []),
        (Chosen(reasons=["conflict"]), ["s-2", "s-1"]),
        (Chosen(reasons=["partial"]), ["s-2"]),
        (Chosen(reasons=["a wrong list"], states=["cancelled"]), ["s-4"]),
        (Chosen(kinds=["voicemail"]), []),
        (Chosen(called=CallTimes(default=(BEGAN + HOUR, BEGAN + 3 * HOUR))), ["s-2", "s-1"]),
        (Chosen(called=CallTimes({"bot": (BEGAN, BEGAN + 2 * HOUR)}, (BEGAN + 4 * HOUR, None))), ["s-6", "s-4", "s-1"]),
        (Chosen(acceptance="open"), ["s-2", "s-1"]),
        (Chosen(acceptance="accepted"), []),
    ],
)
async def test_what_is_chosen(harness: QueueHarness, chosen: Chosen, expected: list[str]) -> None:
    await in_every_state(harness)
    assert await found(harness, chosen) == expected


async def test_what_was_accepted_is_not_open(harness: QueueHarness) -> None:
    await in_every_state(harness)
    (row,) = await harness.fetch("SELECT id FROM archive_queue WHERE session_id = 's-0'")
    finding = json.dumps([{"mismatch": "file_missing", "store_key": "k"}])
    keep = "INSERT INTO archive_findings (queue_id, source, found_by, findings) VALUES ($1, 'account', 'me', $2::text::jsonb)"
    await harness.fetch(keep, row["id"], finding)
    assert await found(harness, Chosen(acceptance="open")) == ["s-2", "s-1", "s-0"]
    assert await found(harness, Chosen(acceptance="open", reasons=["file_missing"])) == ["s-0"]
    dry = await harness.operators.accept(reason="gone", actor="me", dry_run=True, errors=["file_missing"])
    assert dry == ["s-0"]
    assert await harness.operators.accept(reason="gone for good", actor="me", ids=["s-0", "s-1", "s-7"]) == ["s-0", "s-1"]
    assert await harness.operators.accept(reason="again", actor="me", ids=["s-0", "s-1"]) == []
    assert await found(harness, Chosen(acceptance="open")) == ["s-2"]
    assert await found(harness, Chosen(acceptance="accepted")) == ["s-1", "s-0"]
    # What is found wrong only later is open again.
    await harness.fetch('UPDATE archive_findings SET findings = findings || \'[{"mismatch": "length"}]\'')
    assert await found(harness, Chosen(acceptance="open")) == ["s-2", "s-0"]
    assert await harness.operators.accept(reason="that, too", actor="me", ids=["s-0"]) == ["s-0"]
    assert (await harness.history("s-0"))[-2:] == ["accepted", "accepted"]
    assert await harness.operators.retry(actor="me", ids=["s-1"]) == ["s-1"]
    assert (await harness.row("s-1"))["accepted_by"] is None
    assert await found(harness, Chosen(acceptance="accepted")) == ["s-0"]


GONE = {"store_key": "k", "verdict": "missing", "message": "it is not there"}
CHANGED = {"store_key": "l", "verdict": "changed", "message": "recorded 9 bytes a, found 8 bytes b"}


async def verified(harness: QueueHarness, session_id: str, *findings: dict[str, str]) -> None:
    keep = """INSERT INTO archive_findings (queue_id, source, found_by, findings)
              SELECT id, 'verify', 'me', $2::text::jsonb FROM archive_queue WHERE session_id = $1
              ON CONFLICT (queue_id, source) DO UPDATE SET findings = excluded.findings"""
    await harness.fetch(keep, session_id, json.dumps(findings))


async def reasons(harness: QueueHarness, acceptance: Literal["open", "accepted"]) -> dict[str, str | None]:
    chosen = Chosen(acceptance=acceptance, bots=["other", "bot"])
    return {each.session_id: each.reason async for each in Search(harness.database).find(chosen, limit=None)}


async def test_what_verify_found_is_open_until_it_is_accepted(harness: QueueHarness) -> None:
    """Whatever state the session is in; and beside what an account found of the same file."""
    await in_every_state(harness)
    findings, accept = Findings(harness.database), harness.operators.accept
    (row,) = await harness.fetch("SELECT id FROM archive_queue WHERE session_id = 's-0'")
    await Accounts(harness.database).keep_findings({row["id"]: [{"mismatch": "file_missing", "store_key": "k"}]}, [], actor="x")
    for name in ("s-0", "s-1", "s-5"):
        await verified(harness, name, GONE, CHANGED)
    assert await reasons(harness, "open") == {"s-5": "file_missing", "s-2": "partial", "s-1": "conflict", "s-0": "file_missing"}
    assert await findings.damaged() == DamagedSessions(3, 0)
    # Of a failed session the failure is open first; one that waits is to end first.
    assert await accept(actor="me", reason="lost", errors=["file_missing"]) == ["s-0"]
    assert await reasons(harness, "open") == {"s-5": "file_missing", "s-2": "partial", "s-1": "conflict", "s-0": "changed"}
    assert await accept(actor="me", reason="lost", ids=["s-0"]) == ["s-0"]
    assert await accept(actor="me", reason="lost", errors=["conflict"]) == ["s-1", "s-2"]
    assert await reasons(harness, "open") == {"s-5": "file_missing", "s-1": "file_missing"}
    assert await found(harness, Chosen(acceptance="open", reasons=["changed"])) == ["s-5", "s-1"]
    assert await accept(actor="me", reason="lost", ids=["s-1"], dry_run=True) == ["s-1"]
    assert await accept(actor="me", reason="lost") == ["s-1"]
    assert await reasons(harness, "accepted") == {"s-2": "partial", "s-1": "conflict", "s-0": "file_missing"}
    assert await findings.damaged() == DamagedSessions(1, 2)
    # What is found only later is open again, and what a retry undid; accepting one thing then is no word about another.
    await verified(harness, "s-0", GONE, {**CHANGED, "message": "recorded 9 bytes a, found 7 bytes c"})
    assert (await reasons(harness, "open"))["s-0"] == "changed"
    await accept(actor="me", reason="lost", ids=["s-0"])
    await harness.operators.retry(actor="me", ids=["s-0"])
    assert (await reasons(harness, "open"))["s-0"] == "file_missing"
    await harness.fetch("UPDATE archive_queue SET state = 'archived', finished_at = now() WHERE session_id = 's-0'")
    assert await accept(actor="me", reason="again", ids=["s-0"], errors=["changed"]) == ["s-0"]
    assert (await reasons(harness, "open"))["s-0"] == "file_missing"
    assert await findings.damaged() == DamagedSessions(2, 1)


async def test_what_verify_found_is_counted_as_it_is_chosen(harness: QueueHarness) -> None:
    await in_every_state(harness)
    findings = Findings(harness.database)
    await verified(harness, "s-0", GONE)
    await verified(harness, "s-7", GONE, CHANGED)
    await harness.operators.accept(actor="me", reason="lost", ids=["s-7"], errors=["file_missing"])
    for chosen, counted in (
        (ChosenFiles(), (2, 0)),
        (ChosenFiles(bot="bot"), (1, 0)),
        (ChosenFiles(bot="bot", prefix="k"), (0, 1)),
        (ChosenFiles(prefix="l"), (1, 0)),
        (ChosenFiles(kind="voicemail"), (0, 0)),
        (ChosenFiles(called=CallTimes(default=(BEGAN, BEGAN + HOUR))), (1, 0)),
        (ChosenFiles(called=CallTimes({"bot": (BEGAN, BEGAN)}, (BEGAN, None))), (1, 0)),
    ):
        assert await findings.damaged(chosen) == DamagedSessions(*counted), chosen


async def told(harness: QueueHarness, session_id: str, place: int, **facts: Any) -> None:
    await harness.add(session_id, user_id=f"user-{place}")
    called_at = BEGAN + place * HOUR
    await harness.queue.add_call_facts("bot", [CallFacts(session_id, "recording", called_at, called_at, None, facts)])


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        (People(caller="+49 30 1234567"), ["s-3", "s-1"]),
        (People(caller="0049301234567"), ["s-3", "s-1"]),
        (People(caller="030-1234567"), ["s-3", "s-1"]),
        (People(caller="sip:+49301234567@pbx.example"), ["s-3", "s-1"]),
        (People(caller="1234567"), ["s-4", "s-3", "s-1"]),
        (People(caller="234567"), []),
        (People(caller="200"), ["s-2"]),
        (People(caller="Alice@Example.com"), ["s-5"]),
        (People(callee="+49 89 7654321"), ["s-1"]),
        (People(agent="miller"), ["s-3", "s-2"]),
        (People(agent="Ann Miller"), ["s-3", "s-2"]),
        (People(agent="Miller Ann"), []),
        (People(agent="ANN@example.com"), ["s-3", "s-2"]),
        (People(agent="mill"), []),
        (People(agent="a-1"), ["s-3", "s-2"]),
        (People(caller="030 1234567", agent="miller"), ["s-3"]),
        (People(user_id="user-4"), ["s-4"]),
        (People(user_id="user-4", caller="0301234567"), []),
    ],
)
async def test_who_spoke(harness: QueueHarness, people: People, expected: list[str]) -> None:
    await told(harness, "s-1", 1, caller="+49301234567", callee="+49897654321")
    await told(harness, "s-2", 2, caller="200", agent=[MILLER])
    await told(harness, "s-3", 3, caller="sip:030/1234567@pbx", consulted=[{"name": "Bob Ray"}], joined=[MILLER])
    await told(harness, "s-4", 4, caller="+15551234567")
    await told(harness, "s-5", 5, caller="alice@example.com", agent=[{"name": "x" * 3000}])
    await told(harness, "s-6", 6)
    assert await found(harness, None, people) == expected
    assert await found(harness, Chosen(bots=["other"]), people) == []


async def test_the_platforms_word_for_when_a_call_began_stands_before_the_date_of_its_enqueueing(harness: QueueHarness) -> None:
    await told(harness, "s-1", 1, caller="200")
    await harness.fetch("UPDATE archive_queue SET state = 'cancelled', reason = 'x', finished_at = now()")
    day = CallTimes(default=(BEGAN, BEGAN + 2 * HOUR))
    assert await found(harness, Chosen(called=day)) == ["s-1"]
    assert await found(harness, Chosen(called=day), People(caller="200")) == ["s-1"]


async def test_a_long_reason_is_found(harness: QueueHarness) -> None:
    await harness.add("s-1")
    reason = "one of the test calls that the carrier made in March, see the minutes of the meeting of the ninth of April, item 4"
    await harness.operators.cancel(actor="me", reason=reason)
    assert await found(harness, Chosen(reasons=[reason])) == ["s-1"]


async def test_what_was_kept_is_found_by_its_reasons(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file()]), Archived())
    await harness.operators.retry(actor="me", states=[State.ARCHIVED])
    (again,) = await harness.claim(await harness.worker())
    await harness.settle(Attempt(again), Unavailable("media_unavailable"))
    assert (await harness.row("s-1"))["reason"] == "kept"
    assert (
        await found(harness, Chosen(reasons=["kept"])) == await found(harness, Chosen(reasons=["media_unavailable"])) == ["s-1"]
    )
    assert await found(harness, Chosen(states=["archived"])) == ["s-1"]


async def test_a_waiting_session_is_found_by_the_day_of_its_call(harness: QueueHarness) -> None:
    await told(harness, "s-1", 1)
    assert await found(harness, Chosen(called=CallTimes(default=(BEGAN, BEGAN + 2 * HOUR)))) == ["s-1"]


async def test_times_that_no_calendar_has_break_no_list(harness: QueueHarness) -> None:
    await told(harness, "s-1", 1)
    await told(harness, "s-2", 2)
    await harness.fetch("UPDATE archive_queue SET started_at = 'infinity', ended_at = '20000-01-01Z' WHERE session_id = 's-1'")
    await harness.fetch("UPDATE archive_queue SET state = 'cancelled', reason = 'x', finished_at = now()")
    assert await found(harness) == ["s-2"]
