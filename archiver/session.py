"""A session of the platform on its way through the archive, and the states it can be in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from archiver.observe.redact import redact

SESSION_ID_ALPHABET = "1 to 200 characters of A-Z a-z 0-9 . _ : -"

MAX_USER_ID = 500
"""Characters of a user ID; the database has the same limit."""

MAX_METADATA = 65_536
"""Bytes of a session's metadata as JSON; the database has the same limit."""


MAX_SOURCE_NAME = 1000
"""Characters of the platform's file name that are kept."""


class State(StrEnum):
    """States that a reader sees. Every session ever enqueued is in exactly one."""

    PENDING = "pending"
    CLAIMED = "claimed"
    ARCHIVED = "archived"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.CLAIMED, State.CANCELLED}),
    State.CLAIMED: frozenset(set(State) - {State.CLAIMED}),
    State.ARCHIVED: frozenset({State.PENDING}),
    State.UNAVAILABLE: frozenset({State.PENDING}),
    State.FAILED: frozenset({State.PENDING}),
    State.CANCELLED: frozenset({State.PENDING}),
}
"""Allowed transitions, whatever else the row says. The database refuses all others but for the two below."""

OF_A_RECHECK = {State.UNAVAILABLE: frozenset({State.ARCHIVED, State.FAILED})}
"""Also allowed while a worker holds an unavailable session to ask again."""

OF_ONE_ARCHIVED_BEFORE = {State.PENDING: frozenset({State.ARCHIVED})}
"""Also allowed where `archiver retry` brought an archived session back, and a person cancels that."""


@dataclass(frozen=True)
class StoredFile:
    """One recording that the store has confirmed."""

    ordinal: int
    source_name: str
    file_name: str
    store_key: str
    bytes: int
    sha256: str
    media_type: str | None
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    """Length of its audio; None where the format doesn't say, nor the next two."""
    sample_rate: int | None = None
    channels: int | None = None

    def as_row(self) -> dict[str, Any]:
        """JSON for its row."""
        return {
            "ordinal": self.ordinal,
            "source_name": self.source_name,
            "file_name": self.file_name,
            "store_key": self.store_key,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "flags": list(self.flags),
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
        }


@dataclass(frozen=True)
class KnownFile:
    """A recording of this session that an earlier attempt stored: it is not fetched again."""

    ordinal: int
    source_name: str
    file_name: str
    store_key: str
    bytes: int = 0


@dataclass(frozen=True)
class Session:
    """A claimed session. `epoch` identifies this claim: every write names it, and a later claim invalidates it."""

    id: int
    epoch: int
    worker_id: int
    bot: str
    session_id: str
    kind: str
    user_id: str | None
    archive_date: datetime
    claimed_at: datetime
    failures: int
    checks: int
    crashes: int
    known: tuple[KnownFile, ...] = ()
    began_at: datetime | None = None
    """When its call began, as far as anybody knows, and no earlier than that."""
    unanswered: str | None = None
    """Outcome of a campaign's call that nobody answered, of which there is no recording; None for any other call."""
    unavailable_since: datetime | None = None
    """In a recheck: when the platform first said that there is no recording."""
    put_back_for: str | None = None
    """Why the last attempt put it back, if it did."""
    probe: bool = False
    """Claimed to try a held bot again."""
    recheck: bool = False
    """Unavailable, and asked for again; `failures` and `checks` then count within this recheck."""
    claimed_tick: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        """The database's clock, carried on from the claim: this machine's own may be wrong."""
        return self.claimed_at + timedelta(seconds=time.monotonic() - self.claimed_tick)

    def naming(self) -> dict[str, Any]:
        """Its fields in log lines."""
        return {
            "session": self.session_id,
            "bot": self.bot,
            "kind": self.kind,
            "attempt": self.failures + 1,
            "epoch": self.epoch,
            **({"recheck": True} if self.recheck else {}),
        }

    @property
    def part_name(self) -> str:
        """The name of the one temporary file that this claim may have at a time."""
        return part_name(self.id, self.worker_id, self.epoch)


def part_name(session: int, worker: int, epoch: int) -> str:
    """Hidden, and telling whose it is, so that it can be found again from the database alone. What a folder's store adds to it
    when it begins the file nobody needs to know for that.
    """
    return f".session-{session}.worker-{worker}.epoch-{epoch}.part"


@dataclass
class Attempt:
    """What one claim has done so far; its outcome is written together with this, or not at all."""

    session: Session
    stored: list[StoredFile] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    listed: int | None = None
    """Number of files in the platform's last answer; None: no answer listed any."""
    missing: set[tuple[int, str]] = field(default_factory=set)
    """Ordinal and name of files in the answer that are not stored yet."""

    def note(self, event: str, **data: Any) -> None:
        """Add a line to the session's history. The caller makes `data` JSON-safe and redacts it."""
        self.events.append({"event": event, "at": self.session.now().isoformat(), "data": data})


def source_name(given: str) -> str:
    """The name that identifies a file of the platform across attempts: its name there, without secrets, as the database keeps it.
    A signed URL loses its query, as each attempt gets another signature. Idempotent.
    """
    # Cut before redacting: two hundred long names of a hostile answer would block the event loop.
    name = given[: 4 * MAX_SOURCE_NAME].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if redact(name) != name:
        name = redact(name.partition("?")[0].partition("#")[0])
    return name[:MAX_SOURCE_NAME]
