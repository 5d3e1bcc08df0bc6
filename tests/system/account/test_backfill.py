"""`backfill`: a long past is archived, and first what the platform will delete first."""

from __future__ import annotations

import os
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.account.conftest import DAY, NEXT, account, made
from tests.system.conftest import Program


@pytest.mark.parametrize("order", ["--newest-first", "--oldest-first"])
async def test_a_backfill_until_now_that_was_killed_goes_on_and_takes_what_has_come_since(
    archiver: Program, simulator: Simulator, sql: Any, order: str
) -> None:
    simulator.set_history(made(calls=30))
    simulator.script_all([{"session_id": simulator.calls()[7].session_id, "answers": [{"fault": "hang"}]}])
    backfill = await archiver.start("backfill", "--from", DAY, order)
    await backfill.logged("calls_discovered")
    os.kill(backfill.process.pid, signal.SIGKILL)
    await backfill.ended()
    simulator.script_all([{"session_id": simulator.calls()[7].session_id}])
    asked = simulator.report()["listings"]["call_details"]
    gone_on = await archiver("backfill", "--from", DAY, order)
    assert gone_on.code == 0, gone_on
    assert "30 calls, 30 new" in gone_on.stdout
    assert simulator.report()["listings"]["call_details"] <= asked + 1, "at most the seconds that have passed since"
    assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == 30
    assert await sql.fetchval("SELECT count(*) FROM archive_discoveries WHERE finished_at IS NULL") == 0


async def test_what_will_be_gone_is_told_before_it_is_and_the_oldest_come_first(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    now = datetime.now(UTC)
    data["bots"][0] |= {"source_retention": "90d", "account_rate_limits": ["1/day"]}
    blank.configure(data)
    waits = "INSERT INTO archive_queue (bot, session_id, started_at) VALUES ('bot', $1, $2)"
    for number, age in enumerate((89.5, 89.5, 400)):
        await sql.execute(waits, f"s-{number}", now - timedelta(days=age))
    gone_from = now + timedelta(days=0.5)
    told = (
        f"2 recordings will be deleted by the platform before they can be archived at the limits in force, "
        f"from {gone_from:%Y-%m-%d} on; 1 waiting call is older than source_retention (90d): probably deleted"
    )
    document = (await blank("status", "--json")).document
    figures = document["bots"]["bot"]["source_retention"]
    assert datetime.fromisoformat(figures.pop("lost_from")) == gone_from
    assert figures == {"days": 90.0, "past": 1, "lost": 2, "at_least": False}
    assert [warning["message"] for warning in document["warnings"]] == [told]
    assert f"warning: bot bot: {told}; next: ask the platform's support for higher limits" in (await blank("status")).stdout
    [finding] = [each for each in (await blank("doctor", "--json")).document["findings"] if each["check"].endswith("retention")]
    assert (finding["verdict"], finding["message"]) == ("warning", told)
    assert "backfill --oldest-first" in finding["mend"]

    # What is done at once is in time; and the oldest is read first.
    await sql.execute("DELETE FROM archive_budgets")  # the call of `doctor` was that day's only one
    data["bots"][0]["account_rate_limits"] = ["60000/minute"]
    blank.configure(data)
    simulator.set_history(made(calls=30, unavailable=2, unanswered=1))
    [dial] = [each for each in simulator.calls() if each.unanswered]
    night = await blank("nightly", "--from", DAY, "--to", NEXT)
    assert "warning: bot bot: 1 waiting call is older than source_retention (90d): probably deleted; next:" in night.stderr
    assert (await blank("backfill", "--from", DAY, "--to", NEXT)).code == 0
    orders = await sql.fetch("SELECT purpose, newest_first FROM archive_discoveries ORDER BY id")
    assert [tuple(row) for row in orders] == [("nightly", False), ("backfill", False)]
    ends = await sql.fetch("SELECT reason, count(*), count(recheck_at) FROM archive_queue WHERE state = 'unavailable' GROUP BY 1")
    rechecks = {row[0]: row[2] for row in ends}
    assert (rechecks["probably_purged"], rechecks["not_answered"]) == (0, 0)
    unavailable = [item for item in (await account(blank, code=0))["items"] if item["state"] == "unavailable"]
    assert Counter(item["reason"] for item in unavailable) == {"probably_purged": 2, "not_answered": 1}
    because = {item["reason"]: item["because"] for item in unavailable}
    assert "probably deleted" in because["probably_purged"]
    assert because["not_answered"] == f"nobody answered this dial of a campaign ({dial.contact_status})"
