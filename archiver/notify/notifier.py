"""What tells the operator's receiver: a look for what is to be told, then what is due is sent, one message after the other.

Of a fleet any process may do either, and only one does at a time. Nothing that is archived waits for it, and none of its failures
ends anything but the round.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from archiver import __version__
from archiver.config import NotifySettings
from archiver.errors import DatabaseError
from archiver.notify import signing
from archiver.notify.receiver import NotDelivered, Receiver, opened_receiver
from archiver.observe.logs import logger
from archiver.observe.redact import redact
from archiver.postgres.database import Database
from archiver.postgres.features import Feature, Features
from archiver.queue.notifications import COLLECT_PAUSE, LONGEST_PAUSE, Message, Notifications
from archiver.runtime.network import Network

log = logger(__name__)

FIRST_PAUSE = timedelta(seconds=30)
LAST_REFUSALS = 3
"""So many end the round of a command that ends with it."""

PRUNE_EVERY = 3600.0

ROUND_SECONDS = 15.0
"""After that a round begins no other message: what comes about is to be looked for, however slow the receiver is."""

NO_TABLE = "nothing is told until `archiver migrate` of this release was run"
UNFORESEEN = "it is tried again; please report it, with this line"
FULL = "nothing is added until the receiver takes what waits: `archiver doctor --notify` tries it"
DIFFER = "let all processes of this archive have the same [notify]: what one of them finds any of them sends, and once"


def pause_after(attempts: int) -> timedelta:
    """Before the next attempt: half a minute, doubling, up to six hours; less by up to a quarter, by chance."""
    pause: timedelta = min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 20), LONGEST_PAUSE)
    return pause * random.uniform(0.75, 1)  # noqa: S311


class Notifier:
    """Of one process. `run` is a worker's helper; `tell` makes one round."""

    def __init__(self, settings: NotifySettings, database: Database, network: Network) -> None:
        self._settings = settings
        self._key = settings.key()
        self._network = network
        self._notifications = Notifications(database)
        self._features = Features(database)
        self._sender = uuid.uuid4()
        self._hash = hashlib.sha256(repr((settings.url.get_secret_value(), settings.events)).encode()).hexdigest()[:16]
        self._prune_at = 0.0
        self._said: set[str] = set()

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self.tell()
            await asyncio.sleep(COLLECT_PAUSE.total_seconds())

    async def tell(self, *, at_once: bool = False) -> None:
        """Write down what is to be told, and send what is due until the receiver refuses one. `at_once`: however short a time ago
        anybody did, as nobody may come after; then one that is refused for good keeps no other. Raises nothing: the log says
        what could not be done, and it is tried again next time.
        """
        try:
            if not await self._features.has(Feature.NOTIFICATIONS):
                self._say("notifications_unavailable", hint=NO_TABLE)
                return
            self._said.discard("notifications_unavailable")
            await self._collect(at_once)
            await self._send(at_once)
            if time.monotonic() >= self._prune_at:
                await self._notifications.prune()
                self._prune_at = time.monotonic() + PRUNE_EVERY
        except DatabaseError as error:
            self._say("notifications_stuck", error=error.message, hint=error.hint)
        except Exception as error:  # noqa: BLE001  # of whatever kind: nobody's archiving ends by it
            self._say("notifications_stuck", error=redact(f"{type(error).__name__}: {error}"), hint=UNFORESEEN)
        else:
            self._said.discard("notifications_stuck")

    async def _collect(self, at_once: bool) -> None:
        collected = await self._notifications.collect(self._settings.events, self._hash, at_once=at_once)
        if collected is None:
            return
        if collected.settings_before not in (None, self._hash):
            self._say("notify_settings_differ", hint=DIFFER)
        if collected.full:
            self._say(
                "notifications_full", hint="nothing is added until the receiver takes what waits: `archiver doctor --notify`"
            )
        else:
            self._said.discard("notifications_full")

    async def _send(self, at_once: bool) -> None:
        message = await self._notifications.take(self._sender, at_once=at_once)
        if message is None:
            return
        until, refusals_left, accepted = time.monotonic() + ROUND_SECONDS, LAST_REFUSALS if at_once else 1, True
        try:
            async with opened_receiver(self._settings, self._network) as receiver:
                while message is not None:
                    accepted = await self._deliver(receiver, message)
                    refusals_left -= not accepted
                    onward = refusals_left and time.monotonic() < until
                    message = await self._notifications.take(self._sender) if onward else None
        finally:
            with suppress(DatabaseError):
                # A receiver that is down is asked once a round of the whole fleet, not by each process in turn.
                await self._notifications.release(self._sender, timedelta(0) if accepted else COLLECT_PAUSE)

    async def _deliver(self, receiver: Receiver, message: Message) -> bool:
        """Whether the receiver takes messages."""
        message_id, body = signing.id_of(message), signing.body_of(message)
        facts = {"notification": message_id, "about": message.event, "attempt": message.attempts}
        try:
            await receiver.post(body, signing.headers_of(self._key, message_id, int(time.time()), body, message.attempts))
        except NotDelivered as error:
            pause = pause_after(message.attempts)
            if await self._notifications.failed(message, error.message, pause):
                log.error("notification_given_up", **facts, error=error.message, hint=error.hint)  # noqa: TRY400
            else:
                again = round(pause.total_seconds())
                log.warning("notification_failed", **facts, error=error.message, hint=error.hint, again_seconds=again)
            return False
        await self._notifications.sent(message)
        log.info("notification_sent", **facts)
        return True

    def _say(self, event: str, **facts: str) -> None:
        """Once, until it is over."""
        if event not in self._said:
            self._said.add(event)
            log.warning(event, **facts)


async def send_test(settings: NotifySettings, network: Network) -> None:
    """One message that says nothing, beside those that wait. Raises NotDelivered, ConfigError."""
    body, message_id = signing.trial_body(datetime.now(UTC), __version__), f"msg_{uuid.uuid4().hex}"
    async with opened_receiver(settings, network) as receiver:
        await receiver.post(body, signing.headers_of(settings.key(), message_id, int(time.time()), body, 1))
