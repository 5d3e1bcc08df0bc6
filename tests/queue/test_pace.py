"""How fast it goes, and for how long it will."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from archiver.config import BotSettings, account_budgets
from archiver.queue.pace import MINUTE, Pace, Paces, Waiting
from archiver.queue.quota import Quota
from archiver.queue.sql import sql
from tests.queue.conftest import QueueHarness, nodes_of


def bot(name: str = "bot", *limits: str, bot_id: str = "", **more: Any) -> BotSettings:
    data = {"name": name, "bot_id": bot_id or name, "client_id": "cs-1", "client_secret": "secret-1", "rate_limits": limits}
    return BotSettings.model_validate(data | more)


async def end(harness: QueueHarness, state: str, count: int, age: float, name: str = "bot") -> None:
    """So many sessions that ended so many seconds ago, as a worker's do."""
    async with harness.database.connection() as connection, connection.transaction():
        await connection.execute("ALTER TABLE archive_queue DISABLE TRIGGER USER")
        await connection.execute(
            """INSERT INTO archive_queue (bot, session_id, state, reason, claimed_at, finished_at)
            SELECT $1, gen_random_uuid(), $2, 'r', now(), now() - make_interval(secs => $4) FROM generate_series(1, $3)""",
            name, state, count, age,
        )  # fmt: skip
        await connection.execute("ALTER TABLE archive_queue ENABLE TRIGGER USER")


async def left(harness: QueueHarness, bots: list[BotSettings], *waiting: Waiting, working: bool = True) -> dict[str, int | None]:
    paces = await Paces.read(harness.database, bots)
    forecast = paces.forecast(waiting, paused=["paused"], held=[("held", "recording")], working=working)
    return {**forecast.bots, "all": forecast.whole}


async def test_what_ended_is_counted_by_bot_state_and_window(harness: QueueHarness) -> None:
    await end(harness, "archived", 3, 10)
    await end(harness, "archived", 4, 300)
    await end(harness, "archived", 100, 700)
    await end(harness, "failed", 2, 30, "other")
    await end(harness, "unavailable", 1, 100, "other")
    await end(harness, "cancelled", 50, 5)
    await harness.add("not an id")
    paces = await Paces.read(harness.database, [bot()])
    assert paces.bots["bot"].minute == {"archived": 3, "unavailable": 0, "failed": 0}
    assert paces.bots["bot"].ten_minutes == {"archived": 7, "unavailable": 0, "failed": 0}
    assert paces.bots["other"].minute == {"archived": 0, "unavailable": 0, "failed": 2}
    assert paces.whole.ten_minutes == {"archived": 7, "unavailable": 1, "failed": 2}


@pytest.mark.parametrize(("seconds", "per_second"), [(1, 2.0), (60, 2.0), (240, 0.5), (600, 0.2), (601, 0.2)])
def test_a_pace_is_taken_since_the_first_end_but_for_a_minute_at_least(seconds: float, per_second: float) -> None:
    pace = Pace()
    pace.add("archived", 0, 100, seconds)
    pace.add("failed", 0, 20, 0.1)
    assert pace.per_second == pytest.approx(per_second)


async def test_the_time_left_is_what_waits_over_the_pace(harness: QueueHarness) -> None:
    await end(harness, "archived", 60, 300)
    assert await left(harness, [bot()], Waiting("bot", "recording", 20), Waiting("bot", "voicemail", 10)) == {
        "bot": pytest.approx(150, abs=5),
        "all": pytest.approx(150, abs=5),
    }


async def test_it_is_unknown_while_nothing_ends_or_nobody_works_and_none_where_nothing_waits(harness: QueueHarness) -> None:
    assert await left(harness, [bot()]) == {"bot": 0, "all": 0}
    assert await left(harness, [bot()], Waiting("bot", "recording", 5)) == {"bot": None, "all": None}
    await end(harness, "archived", 60, 300)
    assert await left(harness, [bot()], Waiting("bot", "recording", 5), working=False) == {"bot": None, "all": None}


async def test_one_bot_that_stands_makes_the_whole_unknown_and_else_the_slowest_counts(harness: QueueHarness) -> None:
    await end(harness, "archived", 600, 600 - 5)
    bots = [bot(), bot("slow"), bot("idle")]
    waiting = [Waiting("bot", "recording", 10), Waiting("slow", "recording", 10)]
    assert (await left(harness, bots, *waiting))["all"] is None
    await end(harness, "archived", 6, 600 - 5, "slow")
    found = await left(harness, bots, *waiting)
    assert found == {"bot": 10, "slow": pytest.approx(1000, abs=10), "idle": 0, "all": found["slow"]}


async def test_what_waits_for_a_person_is_not_counted_and_said(harness: QueueHarness) -> None:
    bots = [bot(), bot("paused"), bot("held")]
    await end(harness, "archived", 60, 60, "held")
    paces = await Paces.read(harness.database, bots)
    waiting = [Waiting(name, kind, 10) for name in ("paused", "held", "stranger") for kind in ("recording", "voicemail")]
    forecast = paces.forecast(waiting, paused=["paused"], held=[("held", "recording")], working=True)
    assert forecast.bots == {"bot": 0, "paused": None, "held": pytest.approx(10, abs=2), "stranger": None}
    assert forecast.whole == forecast.bots["held"]
    assert [(out["bot"], out["kind"], out["because"]) for out in forecast.left_out] == [
        ("paused", "recording", "paused"),
        ("paused", "voicemail", "paused"),
        ("held", "recording", "held"),
        ("stranger", "recording", "unknown_bot"),
        ("stranger", "voicemail", "unknown_bot"),
    ]
    assert (await left(harness, bots, Waiting("paused", "recording", 1)))["all"] is None


async def test_no_budget_is_outrun(harness: QueueHarness) -> None:
    await end(harness, "archived", 600, 60)  # ten a second
    limited = bot("bot", "60/minute", "1800/hour")
    assert (await left(harness, [limited], Waiting("bot", "recording", 3600)))["bot"] == 7200
    assert (await left(harness, [limited], Waiting("bot", "recording", 600)))["bot"] == 600, "the hour has room for them"
    await harness.fetch("INSERT INTO archive_calls SELECT $1, now() FROM generate_series(1, 1500)", limited.budget_key)
    assert (await left(harness, [limited], Waiting("bot", "recording", 600)))["bot"] == 1200
    twins = [bot("bot", "60/minute", bot_id="st-1"), bot("twin", "60/minute", bot_id="st-1")]
    found = await left(harness, twins, Waiting("bot", "recording", 600), Waiting("twin", "recording", 600))
    assert found["bot"] == 1200, "they share one budget"


async def test_bots_of_one_account_share_what_is_left_of_its_budget(harness: QueueHarness) -> None:
    bots = [bot(name, "600/minute", account_id="a", account_rate_limits=["60/minute", "1800/hour"]) for name in ("one", "two")]
    await end(harness, "archived", 600, 60, "one")
    await end(harness, "archived", 600, 60, "two")
    waiting = [Waiting("one", "recording", 1200), Waiting("two", "recording", 600)]
    found = await left(harness, bots, *waiting)
    assert found == {"one": 1800, "two": 1800, "all": 1800}, "at a call a second"
    await harness.fetch("INSERT INTO archive_calls SELECT $1, now() FROM generate_series(1, 50)", bots[0].account_budget_key)
    assert (await left(harness, bots, *waiting))["one"] == 3600, "more than the hour has room for"
    paces = await Paces.read(harness.database, bots)
    assert (paces.bots["one"].calls, paces.bots["two"].calls, paces.whole.calls) == (50, 50, 50)
    other = bot("other", account_id="b")
    assert await left(harness, [*bots, other], Waiting("other", "recording", 10)) == {
        "one": 0,
        "two": 0,
        "other": None,
        "all": None,
    }


async def test_calls_are_told_where_they_are_counted(harness: QueueHarness) -> None:
    several, one = bot("several", "60/minute", "1800/hour"), bot("one", "60/minute")
    await harness.fetch(
        "INSERT INTO archive_calls SELECT $1, now() - make_interval(secs => n * 20) FROM generate_series(0, 9) n",
        several.budget_key,
    )
    paces = await Paces.read(harness.database, [several, one])
    assert (paces.bots["several"].calls, paces.bots["one"].calls, paces.whole.calls) == (3, None, None)
    assert (await Paces.read(harness.database, [several])).whole.calls == 3


async def test_calls_of_an_account_are_counted_though_it_has_one_limit(harness: QueueHarness) -> None:
    """As the platform's own has, whose sessions history has two, of other calls."""
    with_account, without = (bot(name, rate_limits=None, account_id=name if name == "a" else "") for name in "ab")
    budgets = account_budgets([with_account, without])
    for budget in budgets.values():
        quota = Quota(harness.database, budget.key, budget.limits, backoff_base=MINUTE, counted=budget.counted)
        assert quota.seconds_for(3600) == 3600
        for _ in range(5):
            await harness.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
            await quota.draw()
    paces = await Paces.read(harness.database, [with_account, without])
    assert (paces.bots["a"].calls, paces.bots["b"].calls) == (5, None)
    assert await harness.value("SELECT count(*) FROM archive_calls") == 5, "else they would count against its sessions history"
    assert not account_budgets([bot("c", account_id="c", account_rate_limits=["6001/minute"])])["c"].counted


@pytest.mark.parametrize("analyzed", [True, False])
async def test_rates_and_failures_cost_the_same_however_much_has_ended(harness: QueueHarness, analyzed: bool) -> None:
    async with harness.database.connection() as connection:
        await connection.execute(
            """ALTER TABLE archive_queue DISABLE TRIGGER USER;
            INSERT INTO archive_queue (bot, session_id, state, reason, claimed_at, finished_at)
                SELECT 'bot', 's-' || n, CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'archived' END, 'r', now(),
                       now() - make_interval(secs => n * 10) FROM generate_series(1, 60000) n;
            ALTER TABLE archive_queue ENABLE TRIGGER USER"""
        )
        if analyzed:
            await connection.execute("ANALYZE archive_queue")
        since = await harness.queue.clock() - timedelta(minutes=10)
        for name, terms in {"report/rates": {}, "report/backlog": {"bots": ["bot"], "since": since, "night": True}}.items():
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql(name).text}"
            args = sql(name).arguments(terms)
            await connection.fetchval(explain, *args)
            (found,) = await connection.fetchval(explain, *args)
            nodes = [node for node in nodes_of(found["Plan"]) if node["Actual Loops"]]
            assert nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"] < 200, (name, found)
            assert not [n for n in nodes if n["Node Type"] == "Seq Scan" and n["Relation Name"] == "archive_queue"], (name, found)
    paces = await Paces.read(harness.database, [])
    assert sum(paces.whole.ten_minutes.values()) == 59
