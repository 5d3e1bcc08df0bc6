"""What the tests of messages share: a receiver, what sends to it, and matters to tell of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from archiver.config.notify import NotifySettings
from archiver.notify.notifier import Notifier
from archiver.postgres.database import Database
from archiver.queue.accounts import AccountDay, Accounts, NewAccount
from archiver.queue.notifications import Notifications
from archiver.runtime.network import DIRECT
from tests.webhooks import SECRET, WebhookServer, webhook_server


class NotifyHarness:
    """A database in which something comes about, and its receiver."""

    def __init__(self, database: Database, server: WebhookServer) -> None:
        self.database = database
        self.server = server
        self.notifications = Notifications(database)

    def settings(self, **changes: Any) -> NotifySettings:
        return NotifySettings.model_validate({"url": self.server.url, "secret": SECRET, **changes})

    def notifier(self, **changes: Any) -> Notifier:
        """One of a process of its own."""
        return Notifier(self.settings(**changes), self.database, DIRECT)

    async def told(self, notifier: Notifier | None = None) -> list[dict[str, Any]]:
        """What one more round tells."""
        before = len(self.server.received)
        await (notifier or self.notifier()).tell(at_once=True)
        return [one.document for one in self.server.received[before:]]

    async def rows(self, query: str, *args: Any) -> list[asyncpg.Record]:
        async with self.database.connection() as connection:
            return await connection.fetch(query, *args)

    async def waiting(self) -> list[asyncpg.Record]:
        return await self.rows("SELECT * FROM archive_notifications WHERE sent_at IS NULL AND given_up_at IS NULL ORDER BY id")

    async def make_due(self) -> None:
        """As if every pause, and the lease of whoever sends, had passed."""
        await self.rows("UPDATE archive_notifications SET due_at = now() - interval '1 second' WHERE sent_at IS NULL")
        await self.rows("UPDATE archive_notifier SET sending_until = '-infinity'")

    async def write(self, matter: str, **payload: Any) -> None:
        """A message that waits."""
        await self.rows(
            "INSERT INTO archive_notifications (matter, event, payload) VALUES ($1, 'hold', $2::jsonb)", matter, payload
        )

    async def hold(self, bot: str = "bot", kind: str = "recording", **detail: Any) -> None:
        await self.rows(
            "INSERT INTO archive_holds (bot, kind, reason, detail, probe_at)"
            " VALUES ($1, $2, 'credentials_rejected', $3::jsonb, now())",
            bot,
            kind,
            detail,
        )

    async def account(self, *days: AccountDay, command: str = "nightly", failed: dict[str, str] | None = None) -> None:
        """An account as nightly or reconcile leaves one."""
        complete = not failed and all(day.complete for day in days)
        start = datetime(2026, 3, 2, tzinfo=UTC)
        account = NewAccount(
            command, "0", start, start + timedelta(days=1), complete, {"calls": 3}, [{"problem": "p"}], failed or {}, days
        )
        await Accounts(self.database).keep(account, actor="test")

    async def damage(self, *names: str) -> None:
        """Archived sessions of which verify found a file wrong."""
        for name in names:
            await self.rows(
                "WITH made AS (INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1) RETURNING id)"
                " INSERT INTO archive_findings (queue_id, source, found_by, findings)"
                " SELECT id, 'verify', 'test', $2::jsonb FROM made",
                name, [{"store_key": f"{name}.wav", "verdict": "missing", "message": "it is gone"}],
            )  # fmt: skip


def day(number: int = 0, bot: str = "bot", *, open_calls: int = 0, whole: bool = True) -> AccountDay:
    """A day in an account."""
    start = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(days=number)
    counts = {"calls": 3, "failed": open_calls}
    return AccountDay(
        bot, start.date(), "UTC", start, start + timedelta(days=1), whole, whole and not open_calls, open_calls, counts
    )


@pytest.fixture
async def webhooks() -> AsyncIterator[WebhookServer]:
    async with webhook_server() as server:
        yield server


@pytest.fixture
def notify(database: Database, webhooks: WebhookServer) -> NotifyHarness:
    return NotifyHarness(database, webhooks)
