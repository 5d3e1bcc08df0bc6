"""Which sessions are to be exported, and how they stand in the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from archiver.errors import UsageError
from archiver.evidence.bag.plan import Plan, Planned
from archiver.evidence.canonical import canonical, utc
from archiver.postgres.database import Database
from archiver.queue.exports import ChosenSession, Exports, LedgerStanding, RecordedFileKey
from archiver.queue.search import Chosen, FoundSession, People, Search

PAGE = 500

NOT_ENDED = "not ended yet: nothing of it is sealed"
NOT_SEALED = "its newest state is not sealed yet"
NO_RECORD = "the ledger has no record of it: its ID is none of the platform's, or too much is known of it"
UNKNOWN = "no session of this ID"


class NothingChosen(UsageError):
    """There is no such session."""


@dataclass(frozen=True)
class Choice:
    """`ids`: session IDs, read anew at each call; else those that `chosen` and `people` find. `said`: what the command line said,
    by which an export that goes on is known.
    """

    said: dict[str, Any]
    chosen: Chosen
    people: People | None = None
    ids: Callable[[], Iterable[str]] | None = None

    def fingerprint(self) -> str:
        """The same for the same choice."""
        digest = hashlib.sha256(canonical(self.said))
        for each in self.ids() if self.ids is not None else ():
            digest.update(b"\0" + each.encode())
        return digest.hexdigest()


async def write_plan(database: Database, plan: Plan, choice: Choice, size: int, on_progress: Callable[[int], None]) -> None:
    """Plan what is chosen, to be proven by the ledger's first `size` entries."""
    exports = Exports(database)
    count = 0
    async with aclosing(_pages(database, exports, plan, choice)) as pages:
        async for page in pages:
            standing = await exports.standing([each.queue_id for each in page], size)
            for each in page:
                stands = standing[each.queue_id]
                why = why_not(each, stands)
                plan.add(Planned(each.queue_id, stands.seq, why, _document(each)), each.bytes)
            count += len(page)
            on_progress(count)


def why_not(session: ChosenSession, stands: LedgerStanding) -> str | None:
    """Why a session cannot be proven as it is now, if it cannot."""
    if session.state in ("pending", "claimed"):
        return NOT_ENDED
    if stands.newer or stands.seq is None:
        return NOT_SEALED
    return NO_RECORD if stands.edition is None else None


def _document(session: ChosenSession) -> dict[str, Any]:
    return {
        "session": session.session_id,
        "bot": session.bot,
        "kind": session.kind,
        "state": session.state,
        "reason": session.reason,
        "started_at": None if session.started_at is None else utc(session.started_at),
        "files": session.files,
        "accepted_by": session.accepted_by,
        "accept_reason": session.accept_reason,
    }


async def recorded_files(database: Database, choice: Choice) -> AsyncGenerator[list[RecordedFileKey], None]:
    """What is recorded of the chosen sessions, page by page."""
    async with aclosing(Search(database).find(choice.chosen, choice.people, limit=None)) as sessions:
        ids: list[int] = []
        async for session in sessions:
            ids.append(session.queue_id)
            if len(ids) == PAGE:
                yield await Exports(database).files(ids)
                ids = []
    if ids:
        yield await Exports(database).files(ids)


async def _pages(
    database: Database, exports: Exports, plan: Plan, choice: Choice
) -> AsyncGenerator[Sequence[ChosenSession], None]:
    if choice.ids is not None:
        given: Iterator[str] = iter(choice.ids())
        while ids := list(islice(given, PAGE)):
            found = await exports.find_sessions(ids, choice.chosen.bots, choice.chosen.kinds)
            for missing in set(ids) - {each.session_id for each in found}:
                plan.add_unknown(missing)
            yield found
        return
    page: list[ChosenSession] = []
    async with aclosing(Search(database).find(choice.chosen, choice.people, limit=None)) as sessions:
        async for session in sessions:
            page.append(_chosen(session))
            if len(page) == PAGE:
                yield page
                page = []
    if page:
        yield page


def _chosen(found: FoundSession) -> ChosenSession:
    started_at: datetime | None = found.started_at
    return ChosenSession(
        found.queue_id,
        found.bot,
        found.session_id,
        found.kind,
        found.state,
        found.reason,
        started_at,
        found.accepted_by,
        found.accept_reason,
        found.files,
        found.bytes,
    )
