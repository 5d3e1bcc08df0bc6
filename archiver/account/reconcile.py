"""The closed account: what became of every call that the platform lists, and of what it no longer lists.

It asks the platform, the database and the store, changes no session, and believes none of them alone: an archived session is
held against its call (recorded seconds), against the platform's last answer (the number of files) and against the store (each
file's size). `verify` reads the files themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from archiver.account.counts import count_open
from archiver.account.items import Item, Items
from archiver.config import BotSettings
from archiver.errors import DatabaseError, DatabaseUnreachable, StoreError, StoreUnavailable
from archiver.kore.listings.calls import Call, Span
from archiver.kore.listings.reader import Listing
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.accounts import Accounts
from archiver.queue.reports import CallFile, CallStory, Reports, UnlistedSession
from archiver.runtime.days import day_of
from archiver.session import State
from archiver.stores import Store

log = logger(__name__)

LOOKS = 16
"""Files whose size is asked of the store at once."""


@dataclass
class Account:
    """Counts, items, and the counts of each day. `problems`: stretches that could not be listed as they should."""

    counts: Counter[str] = field(default_factory=Counter)
    days: dict[tuple[str, date], Counter[str]] = field(default_factory=dict)
    items: Items = field(default_factory=Items)
    problems: list[dict[str, Any]] = field(default_factory=list)
    developer_calls: int = 0
    """Calls that the platform lists as developers' tests. They are among the counts."""

    @property
    def complete(self) -> bool:
        """Whether every call is accounted for, for good. That the platform has forgotten old calls is no gap."""
        whole = not any(problem["gap"] for problem in self.problems)
        return whole and not count_open(self.counts)

    def add(self, other: Account) -> None:
        """Count another one in, of another bot."""
        self.counts.update(other.counts)
        self.days.update(other.days)
        self.items.extend(other.items)
        self.problems += other.problems
        self.developer_calls += other.developer_calls


async def reconcile(
    bot: BotSettings,
    stretches: AsyncIterator[Listing],
    database: Database,
    store: Store,
    account: Account,
    *,
    actor: str,
    on_stretch: Callable[[], None] = lambda: None,
) -> None:
    """Account for every call that `stretches` lists, and remember which archived sessions do not match. Memory grows with the
    calls of a stretch alone, and with the IDs of those that are missing. Raises KoreError, DatabaseError, StoreUnavailable; what
    was counted before stands in `account`.
    """
    books, reports, accounts = _Books(bot, account), Reports(database), Accounts(database)
    async for listing in stretches:
        account.problems += [{"bot": bot.name, **problem} for problem in listing.problems]
        account.developer_calls += listing.developer_calls
        calls = list(listing.calls.values())
        keys = [(call.session_id, call.kind) for call in calls]
        rows = await reports.find_calls(bot.name, keys)
        looked_at = await _sizes(store, [stored for row in rows.values() for stored in row.stored])
        try:
            for number, call in enumerate(calls, 1):
                books.enter(call, rows.get(number), looked_at, listing.span)
            for session in await reports.find_unlisted(bot.name, listing.span.start, listing.span.end, keys):
                books.unlisted(session)
        finally:
            books.close_stretch()
        found, fine = books.take_findings()
        try:
            await accounts.keep_findings(found, fine, actor=actor)
        except DatabaseUnreachable:
            raise
        except DatabaseError as error:  # such as a role that may only read: the account is none the worse
            log.warning("findings_not_kept", bot=bot.name, message=error.message)
        on_stretch()


async def _sizes(store: Store, files: Sequence[CallFile]) -> dict[str, int | StoreError | None]:
    """The size of each file in the store; None for one that is not there."""
    slots = asyncio.Semaphore(LOOKS)

    async def look(key: str) -> int | StoreError | None:
        async with slots:
            try:
                return await store.size(key)
            except StoreUnavailable:
                raise
            except StoreError as error:
                if error.facts.get("store_key") != key:
                    raise
                return error

    keys = [file["store_key"] for file in files]
    return dict(zip(keys, await asyncio.gather(*(look(key) for key in keys)), strict=True))


class _Books:
    """Where one bot's calls are entered."""

    def __init__(self, bot: BotSettings, account: Account) -> None:
        self._bot = bot
        self._account = account
        self._missing: set[tuple[str, str]] = set()
        self._found: dict[int, list[dict[str, Any]]] = {}
        self._fine: list[int] = []
        self._items: list[Item] = []

    def close_stretch(self) -> None:
        """Add the items of a stretch, all of whose calls are entered, to the account. Stretches come in order of time."""
        items, self._items = self._items, []
        items.sort(key=lambda item: (item.started_at.timestamp() if item.started_at else 0.0, item.session_id))
        self._account.items.extend(items)

    def take_findings(self) -> tuple[dict[int, list[dict[str, Any]]], list[int]]:
        """The mismatches of archived sessions since this was last called, by their queue IDs, and the sessions that have none."""
        found, fine = self._found, self._fine
        self._found, self._fine = {}, []
        return found, fine

    def enter(self, call: Call, row: CallStory | None, sizes: Mapping[str, int | StoreError | None], stretch: Span) -> None:
        """One call that is listed, its row in the queue, and the sizes of its files in the store. A call that is listed again
        where it was passed on counts where it began.
        """
        if row is None:
            if call.key in self._missing:
                return
            self._missing.add(call.key)
            self._count(call.started_at, "calls", "missing")
            self._item(call.session_id, call.kind, "missing", "never_enqueued", call.started_at, {"hint": "archiver discover"})
            return
        if row.started_at is not None and row.started_at < min(stretch.start, call.started_at):
            return
        state = "pending" if row.state == State.CLAIMED else row.state
        self._count(call.started_at, "calls", state)
        accepted = _acceptance(row) if row.accepted_at is not None else {}
        if state != State.ARCHIVED:
            self._count(call.started_at, *["accepted"] * bool(accepted))
            reason = row.reason or ("in_work" if row.state == State.CLAIMED else "waiting")
            self._item(call.session_id, call.kind, state, reason, call.started_at, {**_story(row), **accepted})
            return
        wrong = list(_mismatches(call, row, self._bot.length_tolerance, sizes))
        fine = [each for each in wrong if self._bot.shorter_is_fine and each["mismatch"] == "shorter_than_call"]
        wrong = [each for each in wrong if each not in fine]
        remarks = [{"remark": each["mismatch"], **{key: each[key] for key in each if key != "mismatch"}} for each in fine]
        if wrong:
            self._found[row.queue_id] = wrong
        else:
            self._fine.append(row.queue_id)
        if wrong or remarks:
            # What was found only since then is not accepted.
            accepted = accepted if wrong and all(each in (row.accepted or ()) for each in wrong) else {}
            names = (*["mismatched"] * bool(wrong), *["remarked"] * bool(remarks), *["accepted"] * bool(accepted))
            self._count(call.started_at, *names)
            reason = str((wrong or fine)[0]["mismatch"])
            facts = {"mismatches": wrong, "remarks": remarks, **accepted}
            self._item(
                call.session_id, call.kind, state, reason, call.started_at, {key: each for key, each in facts.items() if each}
            )

    def unlisted(self, row: UnlistedSession) -> None:
        """An archived session that the platform does not list."""
        self._count(row.started_at, "unlisted")
        self._item(row.session_id, row.kind, row.state, "unlisted", row.started_at, {})

    def _count(self, moment: datetime, *names: str) -> None:
        day = self._account.days.setdefault((self._bot.name, day_of(moment, self._bot.zone)), Counter())
        for name in names:
            self._account.counts[name] += 1
            day[name] += 1

    def _item(self, session: str, kind: str, state: str, reason: str, at: datetime, facts: Mapping[str, Any]) -> None:
        self._items.append(Item(self._bot.name, session, kind, state, reason, at, facts))


def _story(row: CallStory) -> dict[str, Any]:
    """What there is to say of a session that is not archived: first and last ask, number of asks, until when, by whom."""
    detail = row.detail
    told = {
        "first_asked_at": row.first_asked_at,
        "last_asked_at": row.last_asked_at,
        "asks": row.calls,
        "run_at": row.run_at if row.state == State.PENDING else None,
        "finished_at": row.finished_at,
        "cancelled_by": detail.get("cancelled_by"),
        "because": detail.get("reason") or detail.get("message"),
    }
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in told.items() if value is not None}


def _acceptance(row: CallStory) -> dict[str, Any]:
    """Who accepted that it stays as it is, when and why."""
    assert row.accepted_at is not None
    return {"accepted_at": row.accepted_at.isoformat(), "accepted_by": row.accepted_by, "accept_reason": row.accept_reason}


def _length(call: Call, row: CallStory) -> float | None:
    """Seconds from the first beginning of a call to its last end; None where nobody knows."""
    if call.ended_at is None:
        return None
    began = min(call.started_at, row.started_at or call.started_at)
    ended = max(call.ended_at, row.ended_at or call.ended_at)
    return float((ended - began).total_seconds())


def _mismatches(
    call: Call, row: CallStory, tolerance: timedelta, sizes: Mapping[str, int | StoreError | None]
) -> Iterator[dict[str, Any]]:
    """In what an archived session differs from its call, from the platform's last answer, from the store."""
    for file in row.stored:
        found = sizes[file["store_key"]]
        about = {"store_key": file["store_key"], "bytes": file["bytes"]}
        if found is None:
            yield {"mismatch": "file_missing", **about}
        elif isinstance(found, StoreError):
            yield {"mismatch": "file_unreadable", **about, "message": found.message}
        elif found != file["bytes"]:
            yield {"mismatch": "file_size", **about, "found": found}
    recordings = [file for file in row.stored if file["ordinal"] > 0]  # 0 is what the answer said besides its files
    listed = row.files
    if len(recordings) < (1 if listed is None else listed):
        yield {"mismatch": "fewer_files", "listed": listed, "stored": len(recordings)}
    if row.unanswered is not None:
        return  # nobody spoke, however long that is
    length, bound = _length(call, row), tolerance.total_seconds()
    for file in recordings:
        if file["seconds"] == 0 and (length is None or length > bound):
            yield {"mismatch": "zero_length", "store_key": file["store_key"]}
    seconds = [file["seconds"] for file in recordings if file["seconds"] is not None]
    if length is None or not seconds or len(seconds) < len(recordings):
        return
    compared = {"call_seconds": length, "recorded_seconds": [round(each, 3) for each in seconds]}
    # Several files may follow each other or be the sides of one call: together they must not fall short of it, none outlasts it.
    # A voicemail is what was said after the greeting.
    if call.kind == "recording" and sum(seconds) < length - bound:
        yield {"mismatch": "shorter_than_call", **compared}
    elif max(seconds) > length + bound:
        yield {"mismatch": "length", **compared}
