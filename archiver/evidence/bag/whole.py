"""An export from beginning to end: plan, copy, prove, list, and record that it was done."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archiver import __version__
from archiver.errors import ArchiverError, DatabaseError, StoreError, StoreUnavailable, UsageError
from archiver.evidence.audit.fetching import in_order
from archiver.evidence.bag.choosing import UNKNOWN, Choice, NothingChosen, write_plan
from archiver.evidence.bag.folder import remove_tree, writing
from archiver.evidence.bag.plan import ELSEWHERE, FORM, PAGE, Plan, Planned
from archiver.evidence.bag.session import Copier, Handed, LeftOut, check_named, read_proven
from archiver.evidence.bag.tables import Tables
from archiver.evidence.bag.tags import Bag, finish
from archiver.evidence.proving import Proof, Proofs, Sealed, read_sealed
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.exports import Exports
from archiver.queue.ledger import Ledger
from archiver.runtime.buffers import Buffers
from archiver.stores import Store

log = logger(__name__)

AT_ONCE = 8
"""Sessions that are copied at a time."""

MAX_FAILED = 10
"""So many sessions in a row that cannot be read for what seems to be the whole store: then it is the whole store."""

SMALL = 64 * 1024
"""Bytes of a session besides its recordings, roughly, for the question whether there is room."""

TOLD = 20
"""Sessions that are left out, of which a report keeps the names."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. `what`: planning, reading the ledger, or copying."""

    what: str
    done: int
    total: int | None = None
    bytes: int = 0
    total_bytes: int = 0


@dataclass
class Exported:
    """What a bag has. `left_out`: sessions that were chosen and are not in it; `told`: the first of them, with why;
    `manifest_sha256` is empty where there is no bag, as no session could be handed out;
    `taken_over`: sessions that were there already; `unrecorded`: why the database did not take that it was done, if it did not.
    """

    folder: Path
    sealed: Sealed
    sessions: int = 0
    files: int = 0
    bytes: int = 0
    taken_over: int = 0
    left_out: int = 0
    told: list[dict[str, str]] = field(default_factory=list)
    manifest_sha256: str = ""
    unrecorded: str | None = None

    def leave_out(self, session: dict[str, Any], why: str) -> None:
        """One that is not in it."""
        self.left_out += 1
        if len(self.told) < TOLD:
            self.told.append({"session_id": session["session"], "bot": session["bot"], "kind": session["kind"], "why": why})


@dataclass(frozen=True)
class Export:
    """What an export works with. `actor`: who does it; `on_progress` hears how far it is; `check` is called before a bag is ended
    from which sessions are left out for what the store has of them, and raises where the whole store is at fault.
    """

    database: Database
    store: Store
    buffers: Buffers
    actor: str
    on_progress: Callable[[Progress], None] = lambda progress: None
    check: Callable[[], Awaitable[None]] | None = None

    async def run(self, folder: Path, choice: Choice) -> Exported:
        """Export into `folder`, or go on with what was begun there. Raises NothingSealed, UsageError for a folder that is
        anything else, EvidenceError, StoreError, ArchiverError where the folder cannot be written.
        """
        ledger = Ledger(self.database)
        fingerprint = choice.fingerprint()
        async with AsyncExitStack() as stack:
            with writing(folder):
                plan = Plan.begun(folder)
                if plan is not None:
                    stack.callback(plan.close)
                    _end_finished(plan)
            planned = plan is not None and plan.about("planned") is not None
            sealed = await read_sealed(ledger, self.store, int(plan.about("size") or 0) if plan and planned else None)
            if plan is None:
                with writing(folder):
                    plan = Plan.make(folder)
                stack.callback(plan.close)
            about = {"form": str(FORM), "choice": fingerprint, "origin": sealed.checkpoint.origin, "note": sealed.note.decode()}
            if planned:
                _check_same(plan, about)
            else:
                await self._plan(plan, choice, sealed, about)
            return await self._fill(plan, sealed, ledger)

    async def _plan(self, plan: Plan, choice: Choice, sealed: Sealed, about: dict[str, str]) -> None:
        await write_plan(
            self.database, plan, choice, sealed.checkpoint.size, lambda count: self.on_progress(Progress("planning", count))
        )
        for name, value in about.items():
            plan.set(name, value)
        plan.set("size", str(sealed.checkpoint.size))
        plan.set("date", datetime.now(UTC).date().isoformat())
        plan.set("planned", "")
        plan.end()

    async def _fill(self, plan: Plan, sealed: Sealed, ledger: Ledger) -> Exported:
        totals = plan.totals()
        result = Exported(plan.folder, sealed)
        if not totals.sessions and not totals.left_out and not totals.unknown:
            plan.remove()
            raise NothingChosen("no session is chosen", hint="`archiver list` shows what there is")
        with writing(plan.folder):
            # What was half copied when an export was ended.
            await asyncio.to_thread(shutil.rmtree, plan.work / "sessions", ignore_errors=True)
            await asyncio.to_thread(_check_room, plan.folder, totals.bytes + totals.sessions * SMALL)
        tiles = await ledger.tiles() if totals.sessions else {}
        digits = digits_of(totals.sessions)
        with writing(plan.folder):
            tables = Tables.begun(plan.work)
        with tables:
            if totals.sessions:
                proofs = await Proofs.of(
                    Exports(self.database),
                    self.store,
                    sealed.checkpoint,
                    tiles,
                    lambda count: self.on_progress(Progress("ledger", count, sealed.checkpoint.size)),
                )
                await self._copy(plan, proofs, tables, result, digits)
                if result.left_out and self.check is not None:
                    await self._check(self.check)
            for planned in plan.left_out():
                assert planned.why is not None
                result.leave_out(planned.session, planned.why)
                with writing(plan.folder):
                    tables.account(planned.session, planned.seq, planned.why)
                if result.left_out % PAGE == 0:
                    await asyncio.sleep(0)
            for session_id in plan.unknown():
                unknown = dict.fromkeys(("bot", "kind", "state"), "") | {"session": session_id}
                result.leave_out(unknown, UNKNOWN)
                with writing(plan.folder):
                    tables.account(unknown, None, UNKNOWN)
            with writing(plan.folder):
                tables.save()
        if not result.sessions:
            with suppress(OSError):
                (plan.folder / "data").rmdir()
            plan.remove()
            return result
        bag = Bag(sealed, result.sessions, result.files, tables.octets, tables.payload, plan.about("date") or "", __version__)
        with writing(plan.folder):
            result.manifest_sha256 = await asyncio.to_thread(finish, plan, bag, None)
        await self._record(plan, ledger, result)
        with writing(plan.folder):
            await asyncio.to_thread(finish, plan, bag, result.manifest_sha256)
            plan.remove()
        return result

    async def _check(self, check: Callable[[], Awaitable[None]]) -> None:
        try:
            await check()
        except StoreError as error:
            raise type(error)(
                error.message, hint=f"{error.hint}; when the store is there again, the same command goes on"
            ) from None

    # --- copying

    async def _copy(self, plan: Plan, proofs: Proofs, tables: Tables, result: Exported, digits: int) -> None:
        copier = Copier(self.store, self.buffers, result.sealed.note, plan.work / "sessions")
        totals, number, failed = plan.totals(), 0, 0

        async def work(numbered: tuple[int, Planned]) -> Handed | LeftOut:
            number, planned = numbered
            assert planned.seq is not None
            target = plan.folder / "data" / f"{number:0{digits}}"
            try:
                proven = await read_proven(self.store, made[planned.seq])
                said = planned.session
                check_named(proven, said["bot"], said["session"], said["kind"])
                return await copier.bring(proven, target)
            except LeftOut as error:
                with writing(target):  # an export that was ended may have brought what cannot be proven any more
                    await asyncio.to_thread(remove_tree, target)
                return error

        for page in plan.pages():
            made: dict[int, Proof] = await proofs.prove(planned.seq for planned in page if planned.seq is not None)
            numbered = list(enumerate(page, number + 1))
            number += len(page)
            async with aclosing(in_order(numbered, work, AT_ONCE)) as results:
                async for (place, planned), handed in results:
                    if isinstance(handed, LeftOut):
                        failed = failed + 1 if handed.unavailable is not None else 0
                        if handed.unavailable is not None and failed > MAX_FAILED:
                            raise StoreUnavailable(
                                handed.unavailable.message,
                                hint=f"{handed.unavailable.hint}; when the store can be read, the same command goes on",
                            )
                        result.leave_out(planned.session, str(handed))
                        with writing(plan.folder):
                            tables.account(planned.session, planned.seq, str(handed))
                        continue
                    failed = 0
                    with writing(plan.folder):
                        tables.add(f"data/{place:0{digits}}", handed)
                    _count(result, handed)
                    self.on_progress(Progress("copying", result.sessions, totals.sessions, result.bytes, totals.bytes))

    # --- what it took is recorded

    async def _record(self, plan: Plan, ledger: Ledger, result: Exported) -> None:
        """In the ledger and in the sessions' history, once; where the database takes no writes, that is said."""
        if plan.about("recorded") == result.manifest_sha256:
            return
        said = {"sessions": result.sessions, "files": result.files, "bytes": result.bytes}
        name = os.fsencode(plan.folder.resolve().name).decode(errors="replace")
        data = {"bag": name, "manifest_sha256": result.manifest_sha256}
        exports = Exports(self.database)
        try:
            await ledger.note("exported", {**said, "manifest_sha256": result.manifest_sha256, "by": self.actor})
            for ids in _handed_out(plan):
                await exports.note(ids, actor=self.actor, data=data)
        except DatabaseError as error:
            result.unrecorded = error.message
            log.info("export_not_recorded", message=error.message)
            return
        plan.set("recorded", result.manifest_sha256)


def _end_finished(plan: Plan) -> None:
    """A bag that is whole needs no plan any more: the export was ended as it went."""
    if os.path.lexists(plan.folder / "bagit.txt"):
        plan.remove()
        raise UsageError(f"{plan.folder} is a finished bag", hint=ELSEWHERE)


def _count(result: Exported, handed: Handed) -> None:
    """Count a session that is in the bag."""
    result.sessions += 1
    result.files += len(handed.files)
    result.bytes += sum(file.bytes for _, file in handed.files)
    result.taken_over += not handed.copied


def _handed_out(plan: Plan) -> Iterator[list[int]]:
    """The rows of the sessions that the bag has, some hundred at a time."""
    number, digits = 0, digits_of(plan.totals().sessions)
    for page in plan.pages():
        folders = (plan.folder / "data" / f"{n:0{digits}}" for n in range(number + 1, number + len(page) + 1))
        yield [planned.queue_id for planned, folder in zip(page, folders, strict=True) if folder.exists()]
        number += len(page)


def digits_of(sessions: int) -> int:
    """Of the names of their folders."""
    return max(4, len(str(sessions)))


def _check_same(plan: Plan, about: dict[str, str]) -> None:
    if plan.about("form") != about["form"]:
        raise UsageError(f"{plan.folder} was begun by another version of this program", hint=ELSEWHERE)
    if plan.about("origin") != about["origin"]:
        raise UsageError(f"{plan.folder} was begun by an export of another archive, {plan.about('origin')}", hint=ELSEWHERE)
    if plan.about("note") != about["note"]:
        raise UsageError(f"{plan.folder} was begun under a checkpoint that the store does not have", hint=ELSEWHERE)
    if plan.about("choice") != about["choice"]:
        raise UsageError(
            f"{plan.folder} was begun by an export of another choice of sessions",
            hint="give the options of then, in which case it goes on; or choose another folder",
        )


def _check_room(folder: Path, needed: int) -> None:
    """Raises ArchiverError where what is missing surely does not fit."""
    there = sum(
        file.stat(follow_symlinks=False).st_size
        for session in (os.scandir(folder / "data") if (folder / "data").is_dir() else ())
        for file in os.scandir(session)
    )
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise ArchiverError(
            f"{folder}: {(needed - there) / 1e6:,.1f} MB are needed, and {free / 1e6:,.1f} MB are free",
            hint="free disk space, or choose a folder on another disk",
        )
