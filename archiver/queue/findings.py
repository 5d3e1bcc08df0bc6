"""What `verify` found wrong with archived sessions, remembered until it is found right. Accounts remember theirs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from archiver.postgres.database import Database
from archiver.queue.sql import sql


@dataclass(frozen=True, slots=True)
class Finding:
    """A recorded file that is not what was recorded."""

    store_key: str
    verdict: str
    message: str


class Findings:
    """The rows of `archive_findings` whose source is `verify`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def can_be_kept(self) -> bool:
        """Whether this role, on this server, may write them."""
        row = await self._database.row(sql("verify/can_keep"))
        return row is not None and bool(row["can_keep"])

    async def clock(self) -> datetime:
        """The database's time."""
        row = await self._database.row(sql("report/clock"))
        assert row is not None
        now: datetime = row["now"]
        return now

    async def keep(self, session: int, found: Sequence[Finding], *, actor: str) -> None:
        """What is wrong with a session, in place of what was before; nothing: all is well."""
        if not found:
            await self.remove([session])
            return
        await self._database.rows(
            sql("verify/keep"), queue_id=session, findings=[asdict(finding) for finding in found], actor=actor
        )

    async def remembered(self, session: int) -> list[Finding]:
        """What was wrong with a session when it was looked at last."""
        row = await self._database.row(sql("repair/remembered"), queue_id=session)
        return [Finding(one["store_key"], one["verdict"], one["message"]) for one in row["findings"]] if row is not None else []

    async def remove(self, sessions: Sequence[int]) -> None:
        """All is well with these."""
        if sessions:
            await self._database.rows(sql("verify/remove"), queue_ids=list(sessions))

    async def remove_older(self, than: datetime, bot: str | None) -> None:
        """What was found of `bot` (None: of any) before that, and not again."""
        while (row := await self._database.row(sql("verify/remove_older"), than=than, bot=bot)) is not None and row["removed"]:
            pass

    async def list_sessions(self, *, bot: str | None, kind: str | None, after: int) -> list[int]:
        """Rows of sessions with something wrong, in their order, a page at a time, behind row `after`."""
        rows = await self._database.rows(sql("repair/found"), bot=bot, kind=kind, after=after)
        return [row["queue_id"] for row in rows]
