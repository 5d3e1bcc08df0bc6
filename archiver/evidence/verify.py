"""Fixity: every recorded file is read again and hashed again, and held against what was recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from archiver.postgres.database import Database
from archiver.queue.findings import Finding, Findings
from archiver.queue.reports import Reports
from archiver.stores import Store
from archiver.stores.fixity import Verdict, read_again


@dataclass(frozen=True)
class Verified:
    """One recorded file, read to its end, or as far as it is longer than it should be."""

    bot: str
    session_id: str
    store_key: str
    verdict: Verdict
    bytes_recorded: int
    bytes_read: int
    sha256_recorded: str
    sha256_read: str | None
    message: str = ""


async def verify(database: Database, store: Store, *, bot: str | None, actor: str | None = None) -> AsyncIterator[Verified]:
    """Verify every recorded file of `bot` (None: of all), in the order of their rows, with constant memory. With an `actor` the
    database remembers what was found: each session's findings once its last file is read, and when all are read, that nothing
    else was found.
    """
    keeper = await _Keeper.begun(database, actor) if actor is not None else None
    async for file in Reports(database).recordings(bot=bot):
        found = await read_again(store, file.store_key, file.bytes, file.sha256)
        if keeper is not None:
            wrong = found.verdict != "equal"
            await keeper.take(file.queue_id, Finding(file.store_key, found.verdict, found.message) if wrong else None)
        yield Verified(
            file.bot,
            file.session_id,
            file.store_key,
            found.verdict,
            file.bytes,
            found.bytes,
            file.sha256,
            found.sha256,
            found.message,
        )
    if keeper is not None:
        await keeper.end(bot)


class _Keeper:
    """Writes down what is found. The files of a session come one after another."""

    BATCH = 500
    """So many sessions in which nothing is wrong are said to be so at once."""

    def __init__(self, findings: Findings, actor: str, began: datetime) -> None:
        self._findings = findings
        self._actor = actor
        self._began = began
        self._session = 0
        self._found: list[Finding] = []
        self._equal: list[int] = []

    @classmethod
    async def begun(cls, database: Database, actor: str) -> Self:
        findings = Findings(database)
        return cls(findings, actor, await findings.clock())

    async def take(self, session: int, found: Finding | None) -> None:
        """The next file; None: it is equal."""
        if session != self._session:
            await self._end_session()
            self._session = session
        if found is not None:
            self._found.append(found)

    async def end(self, bot: str | None) -> None:
        """There are no more files of `bot`."""
        await self._end_session()
        await self._findings.remove(self._equal)
        await self._findings.remove_older(self._began, bot)

    async def _end_session(self) -> None:
        if not self._session:
            return
        if self._found:
            await self._findings.keep(self._session, self._found, actor=self._actor)
            self._found = []
        else:
            self._equal.append(self._session)
            if len(self._equal) >= self.BATCH:
                await self._findings.remove(self._equal)
                self._equal = []
