"""The checks of `doctor` that concern messages to a receiver: what waits, and whether one arrives."""

from __future__ import annotations

from archiver.config import Settings
from archiver.errors import ArchiverError
from archiver.health.findings import Finding, of_error
from archiver.notify.notifier import NO_TABLE, send_test
from archiver.notify.receiver import SECONDS
from archiver.postgres.database import Database
from archiver.postgres.features import Feature, Features
from archiver.queue.notifications import Notifications
from archiver.runtime.network import Network

LATE_SECONDS = 3600.0
"""A message that waits for longer than this has met a receiver that is down, or nobody who sends it."""


async def check_notifications(settings: Settings, database: Database) -> list[Finding]:
    """Whether what is to be told arrives. Nothing where nobody wants to be told, and nothing waits. Raises DatabaseError."""
    notify = settings.notify
    if not await Features(database).has(Feature.NOTIFICATIONS):
        return [Finding("notify", "warning", "the database has no room for messages yet", NO_TABLE)] if notify.on else []
    standing = await Notifications(database).standing()
    if not notify.on:
        hint = "let [notify] here be that of the workers; or it was switched off, and they are told once it is on again"
        return [Finding("notify", "warning", f"{standing.line}; nothing is sent from here", hint)] if standing.waiting else []
    what = f"{', '.join(notify.events)} to {notify.receiver}"
    if standing.given_up or (standing.oldest_seconds or 0) > LATE_SECONDS:
        hint = "`archiver doctor --notify` tries the receiver; some worker must run, or the next night"
        return [Finding("notify", "warning", f"{what}; {standing.line}", hint)]
    sent = f"the last one was accepted at {standing.last_sent_at:%Y-%m-%d %H:%M} UTC" if standing.last_sent_at else "none yet"
    return [Finding("notify", "ok", f"{what}; {standing.line or sent}")]


async def check_receiver(settings: Settings) -> Finding:
    """Send a message of type `test`, and say what came of it."""
    if not settings.notify.on:
        return Finding("notify: test", "failure", "notify.url or notify.events is empty", "set them; docs/notifications.md")
    try:
        await send_test(settings.notify, Network.of(settings.network))
    except ArchiverError as error:
        return of_error("notify: test", error)
    return Finding("notify: test", "ok", f"{settings.notify.receiver} accepted a message within {SECONDS:g} s")
