"""What `doctor` says of messages to a receiver."""

from __future__ import annotations

from typing import Any

from archiver.account.status import status_document
from archiver.config import NotifySettings, Settings
from archiver.health.notify_checks import check_notifications, check_receiver
from archiver.postgres.database import Database
from tests.webhooks import SECRET, webhook_server


async def execute(database: Database, query: str, *args: Any) -> None:
    async with database.connection() as connection:
        await connection.execute(query, *args)


def told(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"notify": NotifySettings.model_validate({"url": url, "secret": SECRET})})


async def test_what_waits_is_told_and_whether_anybody_sends_it(settings: Settings, database: Database) -> None:
    assert await check_notifications(settings, database) == []
    with_receiver = told(settings, "https://hooks.example/Zinnia-12-quartz-token")
    (found,) = await check_notifications(with_receiver, database)
    assert (found.verdict, "night, gap, damage, hold to https://hooks.example; none yet" in found.message) == ("ok", True)
    assert "Zinnia" not in str(found)
    await execute(database, "INSERT INTO archive_notifications (matter, event, payload) VALUES ('m-1', 'hold', '{}')")
    (found,) = await check_notifications(with_receiver, database)
    assert (found.verdict, "1 waiting" in found.message) == ("ok", True)
    await execute(database, "UPDATE archive_notifications SET created_at = now() - interval '2 hours'")
    (found,) = await check_notifications(with_receiver, database)
    assert (found.verdict, "the oldest for 2:00:00" in found.message) == ("warning", True)
    (found,) = await check_notifications(settings, database)
    assert (found.verdict, "nothing is sent from here" in found.message) == ("warning", True)
    await execute(database, "UPDATE archive_notifications SET given_up_at = now()")
    (found,) = await check_notifications(with_receiver, database)
    assert (found.verdict, "1 given up in the last week" in found.message) == ("warning", True)
    assert (await status_document(database, settings.bots))["notifications"]["given_up"] == 1


async def test_a_database_of_the_release_before_has_none(settings: Settings, database: Database) -> None:
    await execute(database, "DROP TABLE archive_notifications, archive_notifier")
    assert await check_notifications(settings, database) == []
    (found,) = await check_notifications(told(settings, "https://hooks.example"), database)
    assert (found.verdict, "archiver migrate" in found.hint) == ("warning", True)
    assert (await status_document(database, settings.bots))["notifications"] is None


async def test_a_trial_says_what_came_of_it(settings: Settings) -> None:
    assert (await check_receiver(settings)).verdict == "failure"
    async with webhook_server() as server:
        assert (await check_receiver(told(settings, server.url))).verdict == "ok"
        server.mode = "redirect"
        found = await check_receiver(told(settings, server.url))
        assert (found.verdict, "redirects are not followed" in found.message) == ("failure", True)
    assert (await check_receiver(told(settings, server.url))).verdict == "failure"
