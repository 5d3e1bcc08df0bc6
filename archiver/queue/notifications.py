"""Messages to the operator's receiver, as they wait in the database: what is to be told, and what became of telling it.

Guarantees: a matter is written down once, whoever looks; of the whole fleet one process at a time takes messages to send; an
attempt is counted before it is made. Who looks reads what the tables say already, so nothing that makes a matter knows of this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from archiver.postgres.database import Database
from archiver.queue.sql import sql

COLLECT_PAUSE = timedelta(seconds=30)
"""Between two looks of the whole fleet."""

LEASE = timedelta(seconds=60)
"""So long who sends may be silent; then somebody else does, and the message it had is due again."""

LONGEST_PAUSE = timedelta(hours=6)
"""Between two attempts at a message."""

GIVE_UP_AFTER = timedelta(days=3)
"""Since its first attempt; then a message is given up."""

LOOK_BACK = timedelta(days=3)
"""Accounts that are older are not told of, where nobody looked for so long."""

HOLD_LOOK_BACK = timedelta(days=30)
DAMAGE_AGAIN = timedelta(days=1)
KEEP = timedelta(days=90)
"""So long it is known what was told."""

LATELY = timedelta(days=7)
"""Messages that were given up before that are no concern any more."""

MAX_WAITING = 1000
"""While so many wait nothing is added: what can still be told is found by a later look."""

MAX_LISTED = 100
"""Days, holds or bots that one message lists; it says how many there are."""

MAX_HOLDS = 1000
"""Holds that one message tells of."""

LATEST_ACCOUNTS = 200
"""Which are looked through, once each."""

MAX_ACCOUNTS = 20
"""Of them at a time, the oldest first."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of a look. `new`: messages that were written down; `full`: so many wait that none were; `settings_before`: the
    hash of the settings of whoever looked just before.
    """

    new: int
    full: bool
    settings_before: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """One to send, of this attempt: 1 is the first."""

    id: int
    matter: str
    event: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    archive_id: UUID


@dataclass(frozen=True, slots=True)
class NotificationStanding:
    """What waits, and for how long the oldest has; what was given up lately; what the last attempts came to."""

    waiting: int
    oldest_seconds: float | None
    given_up: int
    last_sent_at: datetime | None
    last_error: str | None

    @property
    def line(self) -> str:
        """See line_of."""
        return line_of(self.as_document())

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        return {
            "waiting": self.waiting,
            "oldest_seconds": None if self.oldest_seconds is None else round(self.oldest_seconds),
            "given_up": self.given_up,
            "last_sent_at": self.last_sent_at and self.last_sent_at.isoformat(),
            "last_error": self.last_error,
        }


def line_of(standing: Mapping[str, Any]) -> str:
    """What is worth a line of a standing as JSON, in words; empty: nothing is."""
    told = []
    if standing["waiting"]:
        told.append(f"{standing['waiting']:,} waiting, the oldest for {timedelta(seconds=standing['oldest_seconds'] or 0)}")
    if standing["given_up"]:
        told.append(f"{standing['given_up']:,} given up in the last week")
    if told and standing["last_error"]:
        told.append(standing["last_error"])
    return "; ".join(told)


class Notifications:
    """The rows of `archive_notifications`. All raise DatabaseError; a database without the table is not asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def collect(self, events: Collection[str], settings: str, *, at_once: bool = False) -> Collected | None:
        """Write down what is to be told of `events`; None: it was looked a moment ago, or somebody does. `settings` is a hash of
        the caller's.
        """
        turn = await self._database.row(
            sql("notify/turn"),
            events=list(events),
            settings=settings,
            pause=COLLECT_PAUSE,
            at_once=at_once,
            most=MAX_WAITING,
        )
        if turn is None:
            return None
        if turn["waiting"] >= MAX_WAITING:
            return Collected(0, True, turn["settings_before"])
        # Each by itself, and those first that cost nothing: what takes too long keeps the others from nothing.
        new = await self._collect_holds() if "hold" in events else 0
        new += await self._collect_accounts(events)
        new += await self._collect_damage() if "damage" in events else 0
        return Collected(new, False, turn["settings_before"])

    async def _collect_holds(self) -> int:
        async with self._database.transaction() as run:
            await run(sql("notify/lock"))
            return len(await run(sql("notify/holds"), listed=MAX_LISTED, most=MAX_HOLDS, look_back=HOLD_LOOK_BACK))

    async def _collect_accounts(self, events: Collection[str]) -> int:
        """Look through accounts, each once: an account of years that is made every hour costs what one costs."""
        async with self._database.transaction() as run:
            rows = await run(sql("notify/accounts"), accounts=LATEST_ACCOUNTS, most=MAX_ACCOUNTS)
            ids, new = [row["id"] for row in rows], 0
            if ids:
                for event, statement in (("night", "notify/nights"), ("gap", "notify/gaps")):
                    if event in events:
                        new += len(await run(sql(statement), ids=ids, listed=MAX_LISTED, look_back=LOOK_BACK))
                await run(sql("notify/seen"), ids=ids, accounts=LATEST_ACCOUNTS)
            return new

    async def _collect_damage(self) -> int:
        async with self._database.transaction() as run:
            await run(sql("notify/lock"))
            return len(await run(sql("notify/damage"), again=DAMAGE_AGAIN))

    async def take(self, sender: UUID, *, at_once: bool = False) -> Message | None:
        """A message to send now, if one is due and `sender` may send for the fleet: it has LEASE to say what came of it.
        `at_once`: though the receiver has just refused one.
        """
        row = await self._database.row(
            sql("notify/take"), sender=sender, lease=LEASE, at_once=at_once, longest_pause=LONGEST_PAUSE
        )
        return None if row is None else Message(**dict(row))

    async def sent(self, message: Message) -> bool:
        """The receiver has it. False: somebody else took it meanwhile."""
        return await self._database.row(sql("notify/sent"), id=message.id, attempt=message.attempts) is not None

    async def failed(self, message: Message, error: str, pause: timedelta) -> bool:
        """This attempt came to nothing: again after `pause`. True: it is given up."""
        row = await self._database.row(
            sql("notify/failed"),
            id=message.id,
            attempt=message.attempts,
            error=error,
            pause=pause,
            give_up_after=GIVE_UP_AFTER,
        )
        return row is not None and bool(row["given_up"])

    async def release(self, sender: UUID, pause: timedelta) -> None:
        """`sender` sends nothing more for now, and until `pause` has passed nobody does but at once."""
        await self._database.rows(sql("notify/release"), sender=sender, pause=pause)

    async def prune(self) -> None:
        """Forget messages that ended long ago."""
        await self._database.rows(sql("notify/prune"), keep=KEEP)

    async def standing(self) -> NotificationStanding:
        """What waits, and what was given up lately."""
        row = await self._database.row(sql("notify/standing"), lately=LATELY)
        assert row is not None
        return NotificationStanding(**dict(row))
