"""Figures of the whole archive: what they say, who reads them, and what becomes of them when something is wrong."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from archiver.config import BotSettings
from archiver.errors import DatabaseError
from archiver.observe.figures import Figures, Notifications
from archiver.outcome import Archived
from archiver.postgres.database import Database
from archiver.queue import figures as module
from archiver.queue.accounts import AccountDay, Accounts, NewAccount
from archiver.queue.figures import FleetFigures
from archiver.queue.quota import Quota
from archiver.queue.sql import sql
from archiver.session import Attempt
from tests.queue.conftest import QueueHarness, stored_file

pytestmark = pytest.mark.once  # what the database says is the same under every Python

DAY = timedelta(days=1)


def bots(*names: str, **fields: object) -> list[BotSettings]:
    made = {"host": "https://platform.kore.ai", "client_id": "cs-1", "client_secret": "secret", **fields}
    return [BotSettings.model_validate({"name": name, "bot_id": f"st-{name}", **made}) for name in names]


@pytest.fixture
async def configured(harness: QueueHarness) -> QueueHarness:
    """Two bots that a configuration names, and one that none names any more."""
    await harness.fetch("INSERT INTO archive_bots (name, configured) VALUES ('bot', true), ('idle', true), ('former', false)")
    return harness


async def read(harness: QueueHarness, **fields: object) -> Figures:
    fleet = FleetFigures(harness.database, bots("bot", "idle", **fields))
    await fleet.look()
    assert fleet.latest is not None
    return fleet.latest


async def test_they_say_what_waits_and_what_was_archived(configured: QueueHarness) -> None:
    done = await configured.claim_one("done")
    attempt = Attempt(done, calls=6, stored=[stored_file(1, "a"), stored_file(2, "b")])
    await configured.settle(attempt, Archived())
    await configured.add("due", run_at=datetime.now(UTC) - timedelta(hours=2), started_at=datetime.now(UTC) - 20 * DAY)
    await configured.add("later", run_at=datetime.now(UTC) + DAY)
    await configured.add("backfilled", priority="low", run_at=datetime.now(UTC) - 9 * DAY)
    await configured.add("of-former", bot="former", run_at=datetime.now(UTC) - 9 * DAY)
    figures = await read(configured, source_retention="30d")
    assert set(figures.bots) == {"bot", "idle"}, "names that no configuration has are nobody's label"
    bot, idle = figures.bots["bot"], figures.bots["idle"]
    assert bot.sessions == {"pending": 3, "archived": 1}
    assert bot.oldest_ready == pytest.approx(7200, abs=60)
    assert bot.last_archived == pytest.approx(figures.at, abs=60)
    assert bot.calls_per_recording == 3
    assert bot.configured is not None
    assert bot.configured.source_deadline == pytest.approx(10 * DAY.total_seconds(), abs=60)
    assert (idle.sessions, idle.oldest_ready, idle.last_archived, idle.calls_per_recording) == ({}, 0, None, None)
    assert idle.configured is not None
    assert idle.configured.source_deadline is None
    assert figures.schema_version >= 17
    assert figures.oldest_verification is not None
    assert (figures.workers, figures.unsealed, figures.damaged_sessions, figures.holds) == (1, None, 0, ())


async def test_what_cannot_be_claimed_is_not_ready(configured: QueueHarness) -> None:
    await configured.add("s-1", run_at=datetime.now(UTC) - DAY)
    await configured.fetch("INSERT INTO archive_holds (bot, kind, reason, probe_at) VALUES ('bot', 'recording', 'why', now())")
    figures = await read(configured)
    assert figures.bots["bot"].oldest_ready == 0
    assert [asdict(hold) for hold in figures.holds] == [{"bot": "bot", "kind": "recording", "reason": "why"}]
    await configured.fetch("DELETE FROM archive_holds")
    await configured.fetch("UPDATE archive_figures SET at = '-infinity'")
    await configured.fetch("UPDATE archive_bots SET paused_at = now()")
    paused = (await read(configured)).bots["bot"]
    assert (paused.oldest_ready, paused.paused) == (0, True)


async def keep(harness: QueueHarness, ago: int, *, command: str = "nightly", **changes: Any) -> None:
    """An account of the day that ended so many days ago, an hour ago if that is 0."""
    ended = datetime.now(UTC) - ago * DAY - timedelta(hours=1)
    day = {"bot": "bot", "day": date.fromordinal(ended.date().toordinal()), "time_zone": "UTC", "from_at": ended - DAY,
           "to_at": ended, "whole": True, "complete": True, "open_calls": 0, "counts": {}, **changes}  # fmt: skip
    account = NewAccount(command, "v", ended - DAY, ended, True, {}, [], {}, [AccountDay(**day)])
    await Accounts(harness.database).keep(account, actor="test")


async def test_a_gap_is_a_day_that_is_over_and_not_complete(configured: QueueHarness) -> None:
    hour = timedelta(hours=1).total_seconds()
    bot = (await read(configured)).bots["bot"]
    assert (bot.gap_days, bot.oldest_gap, bot.last_complete_night) == (None, None, None), "it was never accounted for"

    async def gaps() -> tuple[int | None, float | None]:
        await configured.fetch("UPDATE archive_figures SET at = '-infinity'")
        bot = (await read(configured)).bots["bot"]
        return bot.gap_days, bot.oldest_gap and round(bot.oldest_gap / hour)

    await keep(configured, 4)
    assert await gaps() == (3, 24 * 3 + 1), "three days that no night accounts for; the fourth has its time"
    await keep(configured, 3, complete=False, open_calls=2)
    await keep(configured, 2)
    await keep(configured, 1)
    assert await gaps() == (1, 24 * 3 + 1)
    await keep(configured, 3, command="reconcile")
    assert await gaps() == (0, 0), "the latest account of the whole day says it"
    await keep(configured, 2, command="reconcile", whole=False, complete=False, open_calls=1)
    assert await gaps() == (1, 24 * 2 + 1), "a later account of a part found something open"
    await keep(configured, 0)
    await configured.fetch("UPDATE archive_figures SET at = '-infinity'")
    figures = await read(configured)
    assert figures.bots["bot"].last_complete_night == pytest.approx(figures.at - hour, abs=60)


async def test_a_budget_says_what_is_left_and_for_how_long_it_is_blocked(configured: QueueHarness) -> None:
    (bot,) = mine = bots("bot", rate_limits=["6000/minute", "4/hour"])
    quota = Quota(configured.database, bot.budget_key, bot.rate_limits or (), backoff_base=timedelta(seconds=1))

    async def account() -> Any:
        await configured.fetch("UPDATE archive_figures SET at = '-infinity'")
        fleet = FleetFigures(configured.database, mine)
        await fleet.look()
        assert fleet.latest is not None
        found = fleet.latest.bots["bot"].configured
        assert found is not None
        return found.budgets["account"]

    assert (await account()).remaining == 1
    await quota.draw()
    left = await account()
    assert (left.remaining, left.blocked, left.wait) == (0.75, 0, 0)
    for _ in range(3):
        await quota.draw(timedelta(minutes=1))
    spent = await account()
    assert (spent.remaining, spent.blocked) == (0, 0)
    assert 3500 < spent.wait <= 3600, "until the first call has left the window"
    await quota.block(timedelta(seconds=90))
    assert 80 < (await account()).blocked <= 90


async def test_they_say_what_waits_to_be_told(configured: QueueHarness) -> None:
    assert (await read(configured)).notifications == Notifications(0, 0)
    await configured.fetch(
        """INSERT INTO archive_notifications (matter, event, payload, created_at, sent_at, given_up_at) VALUES
           ('waits', 'night', '{}', now() - interval '1 hour', NULL, NULL),
           ('sent', 'night', '{}', now() - interval '1 day', now(), NULL),
           ('given up', 'night', '{}', now() - interval '1 day', NULL, now())"""
    )
    await configured.fetch("UPDATE archive_figures SET at = '-infinity'")
    found = (await read(configured)).notifications
    assert found is not None
    assert (found.waiting, round(found.oldest / 60)) == (1, 60)


async def test_one_reads_them_for_all(configured: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[FleetFigures] = []
    original = FleetFigures._read

    async def count(self: FleetFigures, before: Any) -> Figures:
        counted.append(self)
        return await original(self, before)

    monkeypatch.setattr(FleetFigures, "_read", count)
    fleet = [FleetFigures(configured.database, bots("bot", "idle")) for _ in range(6)]
    await asyncio.gather(*(each.look() for each in fleet))
    assert len(counted) == 1
    for each in fleet:
        await each.look()
    assert len(counted) == 1
    assert len({each.latest and each.latest.at for each in fleet}) == 1
    await configured.fetch("UPDATE archive_figures SET at = at - interval '16 seconds'")
    await asyncio.gather(*(each.look() for each in fleet))
    assert len(counted) == 2


async def test_a_turn_of_which_nothing_comes_is_anybodys(configured: QueueHarness) -> None:
    dead, other = (FleetFigures(configured.database, bots("bot")) for _ in range(2))
    assert await configured.database.row(sql("figures/take"), fresh=module.FRESH, turn=module.TURN, me=dead._me)
    await other.look()
    assert not other.latest, "it is being read"
    await configured.fetch("UPDATE archive_figures SET taken_until = now()")
    await other.look()
    assert other.latest is not None
    figures = other.latest
    await dead._write(Figures.of({**figures.as_document(), "workers": 99}), dead._me)
    assert await configured.value("SELECT document ->> 'workers' FROM archive_figures") == "0", (
        "whoever lost the turn writes nothing"
    )


@pytest.mark.parametrize("column", ["at", "taken_until"])
@pytest.mark.parametrize("when", ["infinity", "2999-01-01", "-infinity"])
async def test_a_clock_that_was_set_back_does_not_stop_them(configured: QueueHarness, column: str, when: str) -> None:
    await configured.fetch(f"UPDATE archive_figures SET {column} = $1::text::timestamptz", when)
    figures = await read(configured)
    assert abs(figures.at - (await configured.value("SELECT now()")).timestamp()) < 60


async def test_what_a_clock_that_was_ahead_said_is_forgotten(configured: QueueHarness) -> None:
    await configured.settle(Attempt(await configured.claim_one("done"), calls=1), Archived())
    was = (await read(configured)).bots["bot"].last_archived
    await configured.fetch(
        "UPDATE archive_figures SET at = '-infinity', document = jsonb_set(document, '{bots,bot,last_archived}', '32503680000')"
    )
    assert (await read(configured)).bots["bot"].last_archived == was


@pytest.mark.parametrize(
    "change", ["DELETE FROM archive_figures", "UPDATE archive_figures SET document = '{\"at\": []}', at = now() - interval '1 h'"]
)
async def test_a_row_that_is_lost_or_unreadable_is_written_anew(configured: QueueHarness, change: str) -> None:
    await configured.fetch(change)
    await read(configured)
    figures = await read(configured)
    document = await configured.value("SELECT document FROM archive_figures")
    assert Figures.of(document) == figures


async def test_figures_of_a_program_that_keeps_others_are_read_beside_them(configured: QueueHarness) -> None:
    await configured.fetch("UPDATE archive_figures SET document = '{\"other\": 1}', at = now()")
    await read(configured)
    assert await configured.value("SELECT document FROM archive_figures") == {"other": 1}


async def test_without_the_table_each_reads_for_itself(configured: QueueHarness) -> None:
    await configured.fetch("DROP TABLE archive_figures")
    fleet = FleetFigures(configured.database, bots("bot"))
    await fleet.look()
    assert fleet.latest is not None
    await fleet.read_now()


async def test_a_role_that_only_reads_has_them_all_the_same(configured: QueueHarness, database_url: str) -> None:
    options = "?options=-c%20default_transaction_read_only%3Don"
    fleet = FleetFigures(configured.database, bots("bot"))
    async with Database(database_url + options, writes=False) as reader:
        only = FleetFigures(reader, bots("bot"))
        await only.look()
        assert only.latest is not None
        await only.read_now()
        await fleet.look()
        await only.look()
        assert only.latest == fleet.latest


async def test_figures_that_cannot_be_read_are_not_shown_for_long(
    configured: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is locked stands for a database that is slow: the turn runs out, and what was seen grows old."""
    fleet = FleetFigures(configured.database, bots("bot"))
    await fleet.read_now()
    figures, seen_at = fleet.latest, fleet.seen_at
    monkeypatch.setattr(module, "READ_SECONDS", 0.1)
    await configured.fetch("UPDATE archive_figures SET at = at - interval '1 hour'")
    async with configured.database.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE archive_workers IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError):
            await fleet.look()
        await fleet.look()  # somebody else's turn, as far as anybody knows
    assert fleet.latest is not None
    monkeypatch.setattr(module, "MAX_AGE_SECONDS", -1.0)
    assert fleet.seen_at == seen_at
    assert fleet.latest is not figures


async def test_what_only_another_configuration_knows_is_kept_for_a_while(configured: QueueHarness) -> None:
    one, other = FleetFigures(configured.database, bots("bot")), FleetFigures(configured.database, bots("idle"))
    await one.look()
    await configured.fetch("UPDATE archive_figures SET at = at - interval '1 minute'")
    await other.look()
    await one.look()
    assert one.latest is not None
    assert one.latest.bots["bot"].configured is not None
    assert one.latest.bots["idle"].configured is not None


async def test_a_database_that_is_gone_is_an_error_of_ours(configured: QueueHarness) -> None:
    fleet = FleetFigures(configured.database, bots("bot"))
    await fleet.look()
    async with configured.database.connection() as connection:
        await connection.execute("UPDATE archive_figures SET at = '-infinity'")
        await connection.execute("ALTER VIEW archive_counts RENAME TO gone")
    with pytest.raises(DatabaseError):
        await fleet.look()
    assert fleet.latest is not None
