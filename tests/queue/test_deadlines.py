"""What the platform deletes before it can be archived."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.cli.listing import warn_of_deadlines
from archiver.config import BotSettings
from archiver.queue import deadlines as deadlines_module
from archiver.queue.deadlines import Deadlines, read_deadlines
from tests.queue.conftest import QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

KEPT = timedelta(days=90)


def bot(name: str, **fields: object) -> BotSettings:
    """One whose recordings the platform keeps for 90 days, at one call a minute."""
    data = {"name": name, "bot_id": f"st-{name}", "client_id": "cs-1", "client_secret": "secret-1", "rate_limits": ["1/minute"]}
    return BotSettings.model_validate({**data, "source_retention": "90d", **fields})


async def waiting(harness: QueueHarness, name: str, count: int, *, left: str, more: str = "interval '0'", **columns: str) -> None:
    """So many waiting sessions, the nth of which the platform deletes after `left` and n times `more`."""
    extra = "".join(f", '{value}'" for value in columns.values())
    await harness.fetch(
        f"""INSERT INTO archive_queue (bot, session_id, started_at{"".join(f", {column}" for column in columns)})
            SELECT $1, $1 || gen_random_uuid(), now() - $2::interval + {left} + {more} * n{extra}
            FROM generate_series(1, $3::integer) n""",
        name, KEPT, count,
    )  # fmt: skip


async def read(harness: QueueHarness, *bots: BotSettings) -> list[Deadlines]:
    await harness.queue.record_bots([each.name for each in bots], complete=True)
    return await read_deadlines(harness.database, bots)


async def test_what_comes_too_late_at_the_limits_in_force_is_counted(harness: QueueHarness) -> None:
    # A call a minute: of a hundred that are deleted in an hour and a half the last ones come too late.
    await waiting(harness, "a", 100, left="interval '90.5 minutes'")
    await waiting(harness, "a", 20, left="interval '2 hours'", priority="low", kind="voicemail")
    await waiting(harness, "a", 5, left="interval '1 day'")
    await waiting(harness, "a", 3, left="interval '-1 day'")
    await harness.fetch("UPDATE archive_queue SET state = 'cancelled', reason = 'x', finished_at = now() WHERE id = 100")
    (found,) = await read(harness, bot("a"))
    assert (found.past, found.lost, found.at_least) == (3, 9, False)
    assert found.lost_from is not None
    assert timedelta(minutes=89) < found.lost_from - await harness.queue.clock() <= timedelta(minutes=90.5)
    assert found.warning == (
        f"9 recordings will be deleted by the platform before they can be archived at the limits in force, "
        f"from {found.lost_from:%Y-%m-%d} on; 3 waiting calls are older than source_retention (90d): probably deleted"
    )


async def test_what_is_all_in_time_is_no_warning_and_unknown_is_not_guessed(harness: QueueHarness) -> None:
    await waiting(harness, "a", 200, left="interval '10 minutes'", more="interval '1 minute'")
    await waiting(harness, "b", 10, left="interval '-1 day'")
    (found,) = await read(harness, bot("a"), bot("b", source_retention=""))
    assert (found.bot, found.past, found.lost, found.lost_from, found.warning) == ("a", 0, 0, None, "")


async def test_bots_of_one_budget_that_wait_share_it(harness: QueueHarness) -> None:
    await waiting(harness, "a", 60, left="interval '60.5 minutes'")
    same = [bot("a"), bot("b", bot_id="st-a", source_retention=""), bot("c", bot_id="st-a", source_retention="")]
    assert [each.lost for each in await read(harness, *same)] == [0]
    await waiting(harness, "b", 1, left="interval '1 hour'")
    assert [each.lost for each in await read(harness, *same)] == [30]


async def test_without_a_limit_nothing_comes_too_late(harness: QueueHarness) -> None:
    await waiting(harness, "a", 60, left="interval '1 minute'")
    assert [each.lost for each in await read(harness, bot("a", rate_limits=[]))] == [0]


async def test_no_more_is_read_than_is_bounded(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines_module, "MAX_READ", 50)
    await waiting(harness, "a", 60, left="interval '5 seconds'")
    (found,) = await read(harness, bot("a"))
    assert (found.lost, found.at_least) == (50, True)
    assert found.warning.startswith("at least 50 recordings")


async def test_what_is_too_late_already_is_bounded_over_all_lists(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines_module, "MAX_READ", 50)
    for priority in ("high", "normal", "low"):
        await waiting(harness, "a", 40, left="interval '-1 day'", priority=priority)
    (found,) = await read(harness, bot("a"))
    assert (found.past, found.at_least) == (50, True)


async def test_no_night_fails_because_a_figure_cannot_be_had(harness: QueueHarness, capsys: pytest.CaptureFixture[str]) -> None:
    await harness.fetch("ALTER TABLE archive_queue RENAME archive_date TO elsewhere")
    await warn_of_deadlines(harness.database, [bot("a")])
    assert "warning: what will be deleted before it can be archived is not known: " in capsys.readouterr().err
