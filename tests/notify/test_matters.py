"""What is told: each matter once, nothing that was before, much at once in one message."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from archiver.queue import notifications
from tests.notify.conftest import NotifyHarness, day


async def test_a_hold_is_told_once_and_again_when_it_begins_anew(notify: NotifyHarness) -> None:
    notifier = notify.notifier()
    assert await notify.told(notifier) == []
    await notify.hold(message="the platform says <b>no</b>")
    (message,) = await notify.told(notifier)
    assert message["type"] == "hold"
    (hold,) = message["data"]["holds"]
    assert (hold["bot"], hold["kind"], hold["reason"]) == ("bot", "recording", "credentials_rejected")
    assert "platform" not in str(message), "what others wrote stays in the database"
    assert message["data"]["holds_total"] == 1
    assert await notify.told(notifier) == [] == await notify.told(), "whoever looks"
    await notify.rows("DELETE FROM archive_holds")
    assert await notify.told(notifier) == []
    await notify.hold()
    assert [one["type"] for one in await notify.told(notifier)] == ["hold"]


async def test_many_holds_at_once_are_one_message(notify: NotifyHarness) -> None:
    await notify.told()
    await notify.rows(
        "INSERT INTO archive_holds (bot, kind, reason, probe_at)"
        " SELECT 'bot-' || n, 'recording', 'r', now() FROM generate_series(1, 2500) n"
    )
    told = [message["data"] for message in [*await notify.told(), *await notify.told(), *await notify.told()]]
    assert [len(data["holds"]) for data in told] == [notifications.MAX_LISTED] * 3
    assert sum(data["holds_total"] for data in told) == 2500
    assert await notify.told() == []


async def test_a_night_is_told_once_and_names_who_was_refused(notify: NotifyHarness) -> None:
    await notify.account(day())
    assert await notify.told() == [], "it was before anybody wanted to know"
    await notify.account(day(1), day(2, open_calls=2), failed={"b-two": "the platform says: secret=abc"})
    await notify.account(day(), command="reconcile")
    told = await notify.told(notify.notifier(events=["night"]))
    (night,) = (message["data"] for message in told)
    assert (night["complete"], night["counts"], night["open_days"], night["problems"]) == (False, {"calls": 3}, 1, 1)
    assert (night["failed_bots"], night["failed_bots_total"]) == (["b-two"], 1)
    assert "secret" not in str(night)
    assert await notify.told(notify.notifier(events=["night"])) == []


async def test_a_gap_is_told_when_it_is_new(notify: NotifyHarness) -> None:
    notifier = notify.notifier(events=["gap"])
    await notify.account(day(0, open_calls=1))
    assert await notify.told(notifier) == []
    # The night after sees the day before again; what is part of a day and has nothing open is no gap.
    await notify.account(day(0, open_calls=1), day(1, open_calls=2), day(2, whole=False))
    (gap,) = await notify.told(notifier)
    assert gap["data"]["days"] == [{"bot": "bot", "day": "2026-03-03", "open_calls": 2}]
    assert gap["data"]["days_total"] == 1
    await notify.account(day(1, open_calls=2), day(2))
    assert await notify.told(notifier) == []
    await notify.account(day(1))
    await notify.account(day(1, open_calls=1), day(3, "other", whole=False), command="reconcile", failed={"other": "refused"})
    (gap,) = await notify.told(notifier)
    assert [(one["bot"], one["day"]) for one in gap["data"]["days"]] == [("other", "2026-03-05"), ("bot", "2026-03-03")]


async def test_a_complete_day_that_cannot_be_listed_again_is_no_gap(notify: NotifyHarness) -> None:
    notifier = notify.notifier(events=["gap"])
    await notify.told(notifier)
    await notify.account(day(0), day(0, "other", open_calls=1))
    assert len(await notify.told(notifier)) == 1
    await notify.account(day(0, whole=False), day(1, whole=False), failed={"bot": "refused"})
    (gap,) = await notify.told(notifier)
    assert [(one["bot"], one["day"]) for one in gap["data"]["days"]] == [("bot", "2026-03-03")]


async def test_a_year_of_gaps_is_one_message_of_a_bounded_length(notify: NotifyHarness) -> None:
    notifier = notify.notifier(events=["gap"])
    await notify.told(notifier)
    await notify.account(*(day(number, f"b{bot}", open_calls=1) for number in range(365) for bot in range(10)))
    (gap,) = await notify.told(notifier)
    assert (len(gap["data"]["days"]), gap["data"]["days_total"]) == (notifications.MAX_LISTED, 3650)


async def test_damage_is_told_once_while_any_is_open(notify: NotifyHarness) -> None:
    notifier = notify.notifier(events=["damage"])
    await notify.damage("s-old")
    assert await notify.told(notifier) == []
    await notify.damage("s-1")
    (told,) = await notify.told(notifier)
    assert (told["data"]["sessions"], told["data"]["told_before"]) == (2, None)
    await notify.damage("s-2")
    assert await notify.told(notifier) == []
    await notify.rows("UPDATE archive_notifier SET damage_told_at = now() - interval '25 hours'")
    (told,) = await notify.told(notifier)
    assert (told["data"]["sessions"], told["data"]["told_before"]) == (3, 2)
    await notify.rows("UPDATE archive_notifier SET damage_told_at = now() - interval '25 hours'")
    assert await notify.told(notifier) == [], "nothing changed"
    await notify.rows("DELETE FROM archive_findings")
    assert await notify.told(notifier) == []
    await notify.rows("DELETE FROM archive_queue")
    await notify.damage("s-3")
    assert [one["data"]["sessions"] for one in await notify.told(notifier)] == [1]


async def test_a_fleet_looks_once_and_sends_once(notify: NotifyHarness) -> None:
    fleet = [notify.notifier() for _ in range(6)]
    await notify.told()
    await notify.hold()
    await notify.account(day(open_calls=1))
    async with asyncio.TaskGroup() as group:
        for one in fleet:
            group.create_task(one.tell(at_once=True))
    await notify.told()
    assert sorted(one.document["type"] for one in notify.server.received) == ["gap", "hold", "night"]
    assert {one.attempt for one in notify.server.received} == {1}
    collected = await notify.notifications.collect(["hold"], "")
    assert collected is None, "it was looked a moment ago"


async def test_an_event_that_is_switched_on_later_tells_nothing_old(notify: NotifyHarness) -> None:
    await notify.told(notify.notifier(events=["hold"]))
    await notify.account(day(open_calls=1))
    assert await notify.told() == []
    await notify.account(day(open_calls=1), day(1, open_calls=1))
    assert [one["type"] for one in await notify.told()] == ["night", "gap"]


async def test_events_that_were_switched_on_by_a_clock_that_was_ahead_are_told(notify: NotifyHarness) -> None:
    await notify.told()
    await notify.rows("UPDATE archive_notifier SET floors = jsonb_build_object('hold', now() + interval '1 year')")
    await notify.told()
    await notify.hold()
    assert [each["type"] for each in await notify.told()] == ["hold"]


async def test_two_fleets_of_different_settings_are_told_so(notify: NotifyHarness) -> None:
    one, other = notify.notifier(), notify.notifier(url=f"{notify.server.url}/other")
    with capture_logs() as lines:
        for notifier in (one, one, other, other, one):
            await notifier.tell(at_once=True)
    told = [line for line in lines if line["event"] == "notify_settings_differ"]
    assert len(told) == 2
    assert notify.server.url not in str(lines)


async def test_while_too_many_wait_none_is_added(notify: NotifyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "MAX_WAITING", 3)
    notify.server.mode, notify.server.status = "refuse", 503
    notifier = notify.notifier()
    await notify.told(notifier)
    for number in range(3):
        await notify.write(f"m-{number}")
    await notify.hold()
    with capture_logs() as lines:
        await notifier.tell(at_once=True)
        await notifier.tell(at_once=True)
    assert [line["event"] for line in lines].count("notifications_full") == 1
    assert len(await notify.waiting()) == 3
    notify.server.mode, notify.server.status = "accept", 200
    await notify.make_due()
    await notify.told(notifier)
    (late,) = await notify.told(notifier)
    assert late["data"]["holds_total"] == 1, "it is found as long as it lasts"


async def test_a_database_of_the_release_before_is_left_alone(notify: NotifyHarness) -> None:
    await notify.rows("DROP TABLE archive_notifications, archive_notifier")
    notifier = notify.notifier()
    with capture_logs() as lines:
        await notifier.tell()
        await notifier.tell()
    assert [line["event"] for line in lines] == ["notifications_unavailable"]


async def test_what_ended_long_ago_is_forgotten(notify: NotifyHarness) -> None:
    for number in range(3):
        await notify.write(f"m-{number}")
    await notify.rows("UPDATE archive_notifications SET created_at = now() - interval '100 days' WHERE matter <> 'm-0'")
    await notify.rows("UPDATE archive_notifications SET sent_at = now() WHERE matter <> 'm-1'")
    await notify.notifications.prune()
    assert [row["matter"] for row in await notify.rows("SELECT matter FROM archive_notifications ORDER BY id")] == ["m-0", "m-1"]
