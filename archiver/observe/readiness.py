"""Why a process is not ready, as far as it knows, and since when. Kept in memory: to ask costs nothing, and hangs on nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archiver.observe.redact import redact

REASONS = {
    "starting": "it has not begun to work yet",
    "stopping": "it claims nothing more, and ends",
    "database": "the database cannot be reached, or does not answer",
    "schema": "the database's tables are not those that this program works with",
    "lease": "it has lost its lease, and registers anew",
    "store": "the store cannot be read or written, or does not answer",
    "budget": "the platform lets no bot of it make calls for minutes",
    "sealing": "what happened cannot be sealed, or waits for that for longer than an hour",
}
"""Every reason, and what it means."""

MAX_MESSAGE = 500
"""Characters of a message that are shown."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """A reason, in words with the facts of this case, and since when."""

    reason: str
    message: str
    since: datetime


class Readiness:
    """Of one process. It begins as `starting`."""

    def __init__(self) -> None:
        self._found: dict[str, NotReady] = {}
        self.set("starting", REASONS["starting"])

    def set(self, reason: str, message: str) -> None:
        """It is not ready for this reason. Of one that is known already the message alone is new."""
        assert reason in REASONS, reason
        known = self._found.get(reason)
        since = datetime.now(UTC) if known is None else known.since
        self._found[reason] = NotReady(reason, redact(message)[:MAX_MESSAGE], since)

    def clear(self, reason: str) -> None:
        """That is over."""
        self._found.pop(reason, None)

    def update(self, found: Mapping[str, str], among: Mapping[str, Any] | tuple[str, ...]) -> None:
        """What was found (messages by their reasons) of these reasons, and none of the others of them."""
        for reason in among:
            if reason in found:
                self.set(reason, found[reason])
            else:
                self.clear(reason)

    def has(self, reason: str) -> bool:
        """Whether it is one."""
        return reason in self._found

    @property
    def ready(self) -> bool:
        """Whether nothing is known that speaks against it."""
        return not self._found

    @property
    def reasons(self) -> list[NotReady]:
        """In the order of REASONS."""
        return [self._found[reason] for reason in REASONS if reason in self._found]

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        told = [
            {"reason": one.reason, "message": one.message, "since": one.since.isoformat(timespec="seconds")}
            for one in self.reasons
        ]
        return {"ready": self.ready, "reasons": told}
