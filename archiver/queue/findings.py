"""What `verify` found wrong with archived sessions, remembered until it is found right. Accounts remember theirs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import asyncpg

from archiver.errors import DatabaseError
from archiver.postgres.database import DEADLOCK_TRIES, Database, pause_after_deadlock
from archiver.queue.recorded import ChosenFiles
from archiver.queue.sql import sql


@dataclass(frozen=True, slots=True)
class Finding:
    """A recorded file that is not what was recorded."""

    store_key: str
    verdict: str
    message: str


@dataclass(frozen=True, slots=True)
class FileRead:
    """What came of reading a recorded file: `sha256` is the recorded one, `verdict` may be "equal"."""

    queue_id: int
    store_key: str
    sha256: str
    verdict: str
    message: str


@dataclass(frozen=True, slots=True)
class DamagedSessions:
    """Sessions of which `verify` found files wrong that nobody mended: those that somebody has to see to, and those all of whose
    findings somebody accepted.
    """

    open: int
    accepted: int

    def as_document(self) -> dict[str, int]:
        """JSON."""
        return {"open": self.open, "accepted": self.accepted}

    @property
    def told(self) -> str:
        """The open ones, in words."""
        sessions = f"{self.open:,} session{' has' if self.open == 1 else 's have'}"
        return f"{sessions} files that were found wrong, and nobody mended or accepted them"


NEXT_FOR_DAMAGED = (
    "`archiver repair --dry-run` says which of it can be tried; `archiver list --open` names the sessions, "
    "`archiver accept` answers for what cannot be mended"
)


class Findings:
    """The rows of `archive_findings` whose source is `verify`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def can_be_kept(self) -> bool:
        """Whether this role, on this server, may write them."""
        row = await self._database.row(sql("verify/can_keep"))
        return row is not None and bool(row["can_keep"])

    async def keep(self, session: int, found: Sequence[Finding], *, actor: str) -> None:
        """What is wrong with a session, all of whose files were read, in place of what was before; nothing: all is well."""
        async with self._database.transaction() as run:
            await run(sql("verify/lock"), ids=[session])
            await run(sql("verify/keep"), queue_id=session, findings=[asdict(finding) for finding in found], actor=actor)

    async def remembered(self, session: int) -> list[Finding]:
        """What was wrong with a session when it was looked at last."""
        row = await self._database.row(sql("repair/remembered"), queue_id=session)
        return [Finding(one["store_key"], one["verdict"], one["message"]) for one in row["findings"]] if row is not None else []

    async def damaged(self, chosen: ChosenFiles | None = None) -> DamagedSessions:
        """How many sessions are known to have files that are wrong, of those that are chosen. Reads only what was found."""
        row = await self._database.row(sql("verify/damaged"), **(chosen or ChosenFiles()).parameters())
        assert row is not None
        return DamagedSessions(**row)

    async def write(self, read: Sequence[FileRead], *, actor: str) -> int:
        """What came of reading these files, all at once: when they were read, what is wrong with them, and what of it the ledger
        is to have. A file that is recorded no more, or otherwise, is passed over. Returns how many of them are wrong in a way
        that was not known.
        """
        # In an order: two that write at once wait for each other, and never in a circle. With SQL of others it may still be one.
        ordered = sorted(read, key=lambda each: (each.queue_id, each.store_key))
        for tries_left in reversed(range(DEADLOCK_TRIES)):
            try:
                return await self._write(ordered, actor)
            except DatabaseError as error:
                if not (tries_left and isinstance(error.__context__, asyncpg.DeadlockDetectedError)):
                    raise
                await pause_after_deadlock()
        raise AssertionError("the last try returns or raises")

    async def _write(self, ordered: Sequence[FileRead], actor: str) -> int:
        async with self._database.transaction() as run:
            await run(sql("verify/lock"), ids=sorted({each.queue_id for each in ordered}))
            (row,) = await run(
                sql("verify/write"),
                queue_ids=[each.queue_id for each in ordered],
                store_keys=[each.store_key for each in ordered],
                sha256s=[each.sha256 for each in ordered],
                verdicts=[each.verdict for each in ordered],
                messages=[each.message for each in ordered],
                actor=actor,
            )
        return int(row["news"])

    async def forget(self, bot: str | None) -> None:
        """What was found of files of `bot` (None: of any) that are recorded no more."""
        after: int | None = 0
        while after is not None:
            row = await self._database.row(sql("verify/forget"), bot=bot, after=after)
            after = None if row is None else row["last"]

    async def list_sessions(self, *, bot: str | None, kind: str | None, after: int) -> list[int]:
        """Rows of sessions with something wrong, in their order, a page at a time, behind row `after`."""
        rows = await self._database.rows(sql("repair/found"), bot=bot, kind=kind, after=after)
        return [row["queue_id"] for row in rows]
