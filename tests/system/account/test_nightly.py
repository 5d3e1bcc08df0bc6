"""`nightly`: one night's calls are found, archived and accounted for, whatever stops it or goes wrong."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.account.conftest import DAY, NEXT, account, call, counts_of, made
from tests.system.conftest import Program, eventually


async def test_a_night_closes_its_account(archiver: Program, simulator: Simulator) -> None:
    simulator.set_history(made(unavailable=20, in_progress=12, failing=3, other_channels=15, voicemails=0))
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    document = night.document
    assert counts_of(document) == {"calls": 285, "archived": 262, "unavailable": 20, "failed": 3}
    assert (document["from"], document["to"]) == (f"{DAY}T00:00:00+00:00", f"{NEXT}T00:00:00+00:00")
    assert Counter(item["state"] for item in document["items"]) == {"unavailable": 20, "failed": 3}
    for item in document["items"]:
        assert item.keys() >= {"session_id", "bot", "kind", "state", "reason", "first_asked_at", "asks"}
    assert [(day["day"], day["calls"], day["complete"]) for day in document["days"]] == [(DAY, 285, False)]

    simulator.set_history({"recovered": True})
    assert (await archiver("retry", "--all")).code == 0
    assert (await archiver("worker", "--drain")).code == 0
    assert counts_of(await account(archiver, code=0)) == {"calls": 285, "archived": 265, "unavailable": 20}
    assert (await archiver("nightly", "--to", NEXT)).code == 0


async def test_each_night_begins_where_the_last_one_ended_less_the_overlap(archiver: Program, simulator: Simulator) -> None:
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    if (left := midnight - datetime.now(UTC)) < timedelta(seconds=60):
        await asyncio.sleep(left.total_seconds() + 0.1)  # the night that ends now must stay the last one
    today = datetime.now(UTC).date()
    nights = [datetime.combine(today - timedelta(days=n), datetime.min.time(), UTC) for n in range(4)]
    late = call(9, nights[2] - timedelta(hours=3), appears_after=3)
    simulator.set_history({"calls": [call(1, nights[3]), call(2, nights[2]), call(3, nights[1]), call(4, nights[0]), late]})
    first = (await archiver("nightly", "--to", nights[2].isoformat(), "--format", "json")).document
    assert (first["from"], counts_of(first)) == (nights[3].isoformat(), {"calls": 1, "archived": 1})
    # What was listed late is found by the next night; the one before last is not read again.
    second = (await archiver("nightly", "--to", nights[1].isoformat(), "--format", "json")).document
    assert (second["from"], counts_of(second)) == (nights[3].isoformat(), {"calls": 3, "archived": 3})
    third = (await archiver("nightly", "--format", "json")).document
    assert (third["from"], third["to"]) == (nights[2].isoformat(), nights[0].isoformat())
    assert counts_of(third) == {"calls": 2, "archived": 2}
    gap = await archiver(
        "nightly", "--from", (nights[0] + timedelta(milliseconds=1)).isoformat(), "--to", datetime.now(UTC).isoformat()
    )
    gap.refused(2, "leave a gap", "--from")


async def test_two_nights_at_once_do_not_collide(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=120))
    results = await asyncio.gather(*(archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json") for _ in range(2)))
    assert [result.code for result in results] == [0, 0], results
    assert {result.document["archived"] for result in results} == {120}
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 120
    assert simulator.report()["media"]["complete"] == 120


async def test_a_night_that_is_stopped_goes_on(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=60))
    simulator.script_all([{"session_id": simulator.calls()[7].session_id, "answers": [{"fault": "hang"}]}])
    night = await archiver.start("nightly", "--from", DAY, "--to", NEXT)
    await eventually(lambda: sql.fetchval("SELECT count(*) = 59 FROM archive_queue WHERE state = 'archived'"))
    night.send(signal.SIGTERM)
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
    simulator.script_all([{"session_id": simulator.calls()[7].session_id}])
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == 60


async def test_a_night_does_not_wait_for_a_backfill(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=30))
    hung, sleeping = "65e7133a3242653c58d70001", "65e7133a3242653c58d70002"
    simulator.script_all([
        {"session_id": hung, "answers": [{"fault": "hang"}]},
        {"session_id": sleeping, "answers": [{"status": "media_in_progress"}]},
    ])  # fmt: skip
    assert (await archiver("enqueue", "--priority", "low", hung, sleeping)).code == 0
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 0, night
    assert counts_of(night.document) == {"calls": 30, "archived": 30}
    left = await sql.fetch("SELECT state FROM archive_queue WHERE priority = 'low'")
    assert {row["state"] for row in left} == {"pending"}


async def test_a_night_asks_again_for_what_was_unavailable(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=10, unavailable=2))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    await sql.execute("UPDATE archive_queue SET recheck_at = now() WHERE recheck_at IS NOT NULL")
    published = [each.session_id for each in simulator.calls() if each.recording == "unavailable"]
    simulator.script_all([{"session_id": each} for each in published])
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert counts_of(night.document)["archived"] == 10


async def test_what_a_stopped_night_has_not_accounted_for_the_next_one_does(archiver: Program, simulator: Simulator) -> None:
    days = [datetime(2025, 3, day, tzinfo=UTC) for day in range(1, 7)]
    simulator.set_history({"calls": [call(number, day) for number, day in enumerate(days)]})
    assert (await archiver("nightly", "--to", days[1].isoformat())).code == 0
    simulator.script_all([{"session_id": simulator.calls()[1].session_id, "answers": [{"fault": "hang"}]}])
    night = await archiver.start("nightly", "--to", days[4].isoformat())
    await night.logged("calls_discovered")
    night.send(signal.SIGTERM)
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
    simulator.script_all([{"session_id": simulator.calls()[1].session_id}])
    following = await archiver("nightly", "--to", days[5].isoformat(), "--format", "json")
    assert following.code == 0, following
    assert following.document["from"] == days[0].isoformat()
    assert counts_of(following.document) == {"calls": 5, "archived": 5}
    assert (await archiver("nightly", "--to", days[5].isoformat(), "--format", "json")).document["from"] == days[4].isoformat()


@pytest.mark.parametrize("form", ["json", "csv", "table"])
async def test_a_bot_that_is_refused_spoils_no_others_night(
    blank: Program, data: dict[str, Any], simulator: Simulator, form: str
) -> None:
    [bot] = data["bots"]
    data["bots"].append(bot | {"name": "refused", "client_secret": "not-the-secret-of-this-app-0123456789"})
    blank.configure(data)
    simulator.set_history(made(calls=8))
    night = await blank("nightly", "--from", DAY, "--to", NEXT, "--format", form)
    assert night.code == 3, night
    assert "bot refused" in night.stderr
    assert "Traceback" not in night.stderr
    if form == "json":
        assert counts_of(night.document) == {"calls": 8, "archived": 8}
        assert night.document["failed_bots"].keys() == {"refused"}
        assert not night.document["complete"]


async def test_a_bot_that_waits_for_its_budget_holds_up_nobody(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    [bot] = data["bots"]
    data["bots"] = [bot | {"name": "waits", "rate_limits": ["1/hour"], "discovery": "sessions"}, bot | {"name": "goes_on"}]
    blank.configure(data)
    await sql.execute(
        "INSERT INTO archive_budgets (key, blocked_until) VALUES ($1, now() + interval '1 hour')",
        f"{simulator.api_url}|{simulator.bot_id}",
    )
    other = simulator.bot_id + "-2"
    simulator.add_bot(other, simulator.client_id, simulator.client_secret)
    data["bots"][1]["bot_id"] = other
    blank.configure(data)
    simulator.set_history(made(calls=8))
    night = await blank.start("nightly", "--from", DAY, "--to", NEXT)
    await eventually(lambda: sql.fetchval("SELECT count(*) = 8 FROM archive_queue WHERE state = 'archived'"))
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143


async def test_a_call_that_began_at_another_time_than_was_asked_for_is_archived_and_no_account_is_complete(
    archiver: Program, simulator: Simulator, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archiver.simulator import listings, rows

    true_row = rows.details_row

    def in_another_zone(call_: Any, bot_id: str, offset: int, selected: Any) -> dict[str, Any]:
        return true_row(call_, bot_id, offset + 300, selected)

    monkeypatch.setattr(listings, "details_row", in_another_zone)
    simulator.set_history({"calls": [call(1, f"{DAY}T01:00:00Z"), call(2, f"{DAY}T12:00:00Z")]})
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    assert not night.document["complete"]
    assert {problem["problem"] for problem in night.document["problems"]} == {"calls_outside"}
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'archived'") == 2


async def test_a_listing_that_told_a_bots_calls_is_not_given_up_for_another(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.set_history({"calls": [call(1, f"{DAY}T01:00:00Z", voicemail=True)]})
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    assert [row["kind"] for row in await sql.fetch("SELECT kind FROM archive_queue")] == ["voicemail"]
    simulator.alter({"scopes": ["SmartAssist Recordings", "SmartAssist Voicemail", "Bot Sessions"]})
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    assert "SmartAssist Analytics" in night.stderr
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 1


async def test_sigterm_ends_a_night_that_is_being_closed(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["bots"][0] |= {"discovery": "sessions", "rate_limits": ["2/minute"]}
    blank.configure(data)
    simulator.set_history(made(calls=5))
    night = await blank.start("nightly", "--from", DAY, "--to", NEXT)
    await night.logged("worker_stopped")  # the account waits for the budget now
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
