"""Messages to the receiver of [notify], from commands that end by themselves."""

from __future__ import annotations

from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.notify.notifier import Notifier
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.postgres.database import Database
from archiver.runtime.cancellation import within
from archiver.runtime.network import Network

log = logger(__name__)

TELL_SECONDS = 30.0
"""A night that is over does not wait longer for a receiver; what was not sent is sent by whoever runs next."""


async def tell_receiver(settings: Settings, database: Database) -> None:
    """Tell what has just come about, if that is wanted. Changes no exit code, and raises nothing: the log says what failed."""
    if not settings.notify.on:
        return
    try:
        notifier = Notifier(settings.notify, database, Network.of(settings.network))
    except ConfigError as error:  # its secret's file was there when the command began
        log.warning("notifications_left", **facts_of(error))
        return
    try:
        await within(TELL_SECONDS, notifier.tell(at_once=True))
    except TimeoutError:
        log.warning("notifications_left", seconds=TELL_SECONDS, hint="a worker sends them, or the next night")
