"""The rebuild from beginning to end: read the ledger that the store has, put in what it says, enqueue what it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from archiver.config.path_template import PathTemplate
from archiver.errors import EvidenceError, LedgerRefused, NothingSealed, UsageError
from archiver.evidence.audit.chain import Chain
from archiver.evidence.audit.context import Audit, Wanted
from archiver.evidence.audit.fetching import Reader
from archiver.evidence.audit.fold import OPEN
from archiver.evidence.audit.listing import list_store
from archiver.evidence.audit.reached import Reached, Tree
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.scratch import Scratch, scratch
from archiver.evidence.audit.tables import read_salts
from archiver.evidence.audit.told import name_of
from archiver.evidence.audit.trust import Keys
from archiver.evidence.keys import PublicKey
from archiver.evidence.merkle import EMPTY_ROOT, TILE
from archiver.evidence.objects import checkpoint_key
from archiver.evidence.rebuild.behind import Behind
from archiver.evidence.rebuild.report import MAX_NAMED, Rebuilt
from archiver.evidence.rebuild.sessions import Restoring, Sessions
from archiver.evidence.rebuild.strays import Strays
from archiver.evidence.sealer import Sealer
from archiver.postgres.database import Database
from archiver.queue.audit import snapshot
from archiver.queue.ledger import Head, Ledger
from archiver.queue.rebuilding import Forgotten, Rebuilding, RestoredHead, rebuilding, standing
from archiver.stores import Store

BATCH = 500
"""Sessions that are put in at a time."""
MAX_BYTES = 16 * 2**20
"""Bytes of records after which no more are put in at a time: read they take several times as many."""


class Refused(EvidenceError):
    """Something is missing, and nobody said that it may be: nothing was written. `rebuilt` says what."""

    def __init__(self, rebuilt: Rebuilt) -> None:
        message = "the store does not have all that its ledger says: nothing was rebuilt"
        hint = "bring back what is missing from a backup or a replica of the store; if there is none: --accept-loss"
        if set(rebuilt.counts) == {"key"}:
            message = "evidence.key_file is not the key of the ledger: nothing was rebuilt"
            hint = (
                "let it name that key, or its copy, or no key until it is found; if nobody has it: --accept-loss, and "
                "evidence.key_file signs from now on"
            )
        super().__init__(message, hint=hint)
        self.rebuilt = rebuilt


@dataclass(frozen=True)
class Terms:
    """How to rebuild. `path` and `bots`: what keys of objects that nobody recorded are read by; `lease`: for how long a claim to
    the ledger's end may be somebody's who is at it; `key` and `trusted`: whose the ledger is; `by`: who does it.
    """

    path: PathTemplate
    bots: Sequence[str]
    recheck_unavailable: Sequence[timedelta]
    lease: timedelta
    key: PublicKey | None
    trusted: frozenset[str]
    by: str
    catch_up: bool = False
    accept_loss: bool = False


async def rebuild(
    database: Database,
    store: Store,
    sealer: Sealer | None,
    terms: Terms,
    on_progress: Callable[[str, int], None] = lambda what, count: None,
) -> Rebuilt:
    """Rebuild a database that has no sessions from its store, or catch up with it; all of it or nothing. With a sealer an entry
    says so. Raises Refused, UsageError where the database is another one's, LedgerRefused where the ledger is, NothingSealed,
    StoreError, DatabaseError.
    """
    head = await _check_database(database, terms)
    if head is not None and sealer is not None:
        await sealer.publish_left()
    base = 0 if head is None else head.size
    wanted = Wanted(terms.path, timedelta(0), key=terms.key, trusted=terms.trusted, rebuild_from=base)
    with scratch() as notes:
        audit = Audit(wanted, notes, Reader(store), Report(deep=False), datetime.now(UTC), on_progress=on_progress)
        return await _Rebuild(database, store, sealer, terms, audit, head).run()


async def _check_database(database: Database, terms: Terms) -> Head | None:
    """The ledger that it has. Raises UsageError."""
    found, head = await standing(database), await Ledger(database).head()
    if not found.owns_tables:
        raise UsageError("database.url names a role that does not own the tables", hint="rebuild as the role that runs `migrate`")
    if found.workers or found.is_sealing:
        workers = "a worker is" if found.workers == 1 else f"{found.workers} workers are"
        who = workers if found.workers else "a sealer is"
        raise UsageError(f"{who} at work on this database", hint="end them first; one that died is forgotten after its lease")
    if not terms.catch_up and (found.has_sessions or found.has_recordings or head is not None):
        raise UsageError(
            "this database has sessions, or a ledger, already",
            hint="with --catch-up it learns what the ledger says besides; to have all rebuilt, `archiver migrate` an empty one",
        )
    return head


def _is_same(head: Head | None, now: Head | None) -> bool:
    return (head and (head.size, head.root)) == (now and (now.size, now.root))


class _Rebuild:
    def __init__(
        self, database: Database, store: Store, sealer: Sealer | None, terms: Terms, audit: Audit, head: Head | None
    ) -> None:
        self._database = database
        self._store = store
        self._sealer = sealer
        self._terms = terms
        self._audit = audit
        self._head = head
        self._rebuilt = Rebuilt()
        self._again = 1
        self._barred: list[str] = []

    @property
    def _notes(self) -> Scratch:
        return self._audit.scratch

    async def run(self) -> Rebuilt:
        rebuilt = self._rebuilt
        objects = 0

        def count() -> None:
            nonlocal objects
            objects += 1
            self._audit.on_progress("objects", objects)

        await list_store(self._notes, self._store, count)
        async with snapshot(self._database) as seen:
            await read_salts(self._notes, seen)
        keys = Keys([] if self._terms.key is None else [self._terms.key], self._trusted)
        reached = await Chain(self._audit, keys).read()
        tree = await self._end(reached, keys)
        self._check_trust(keys)
        self._check_base(reached, tree)
        self._check_key(tree)
        rebuilt.origin, rebuilt.entries = reached.origin, tree.size
        self._notes.run("DELETE FROM unnamed WHERE seq >= ?", tree.size)
        (rebuilt.unnamed,) = self._notes.one("SELECT count(*) FROM unnamed") or (0,)
        async with rebuilding(self._database, self._terms.recheck_unavailable) as within:
            if not _is_same(self._head, within.head):
                raise LedgerRefused(
                    "the ledger of this database grew meanwhile", hint="end whoever is at work on it; run it again"
                )
            await self._put_in(within, tree)
            if rebuilt.counts and not self._terms.accept_loss:
                raise Refused(rebuilt)
        self._add_problems(reached)
        if tree is reached.claimed and self._sealer is not None:
            await self._sealer.finish_claimed(tree.size, tree.text)
        await self._seal(tree)
        return rebuilt

    @property
    def _base(self) -> int:
        return 0 if self._head is None else self._head.size

    @property
    def _trusted(self) -> frozenset[str]:
        key = self._terms.key
        return self._terms.trusted | ({key.fingerprint} if key is not None else set())

    # --- where the ledger ends

    async def _end(self, reached: Reached, keys: Keys) -> Tree:
        """As far as nothing is wrong. What follows is a loss."""
        tree = reached.claimed or reached.whole
        if reached.claimed is not None and (self._sealer is None or reached.claimed.signer != self._terms.key):
            tree = reached.whole  # its checkpoint is to be signed once more
        if tree is None and self._head is not None and not self._has_ledger():
            reached.origin = self._head.origin
            key = PublicKey.from_openssh(self._head.public_key)
            return Tree(0, 0, EMPTY_ROOT, b"", key, key, 0, [], {})  # the store is lost, and this is a new one
        if tree is None:
            raise NothingSealed(
                "the store has no ledger from which a database could be rebuilt, or none of which the beginning is right",
                hint="`archiver audit` says what is wrong with it; without a ledger `archiver discover` finds the sessions; a "
                "new one begins only in a store without evidence/: move what is left of the old one away, and keep it",
            )
        behind = Behind(self._audit, self._rebuilt, reached.origin, keys)
        await behind.look(tree.size, self._terms.lease)
        self._again, self._barred = behind.again, behind.barred
        return tree

    def _has_ledger(self) -> bool:
        return self._notes.one("SELECT 1 FROM named WHERE kind IN ('claim', 'checkpoint', 'segment')") is not None

    def _check_trust(self, keys: Keys) -> None:
        if not keys.proven and self._has_ledger():
            raise LedgerRefused(
                "neither evidence.key_file nor evidence.trusted says that the key that signs this ledger is the archive's",
                hint="name the key's fingerprint in evidence.trusted, as it was kept elsewhere",
            )

    def _check_key(self, tree: Tree) -> None:
        own = self._terms.key
        if self._sealer is not None and own is not None and tree.size and own != tree.key:
            self._rebuilt.lose(
                "key",
                f"evidence.key_file is {own.fingerprint}, and the ledger is signed by {tree.key.fingerprint}: nothing vouches "
                "for what follows, and whoever audits it needs both in evidence.trusted",
            )

    def _check_base(self, reached: Reached, tree: Tree) -> None:
        head = self._head
        if head is None:
            return
        if head.origin != reached.origin or (head.size and head.size <= tree.size and reached.base_root != head.root):
            raise LedgerRefused(
                f"the ledger of this database has {head.size} entries that are not those of the store's: it is not an older one "
                "of the same",
                hint="`archiver audit` says more; to rebuild it from the store alone, begin with an empty database",
            )
        if head.size > tree.size:
            self._rebuilt.given_up = max(self._rebuilt.given_up, head.size)
            self._rebuilt.lose(
                "ledger", f"this database has {head.size} entries, and the store {tree.size}: it is the store that is older"
            )

    # --- putting in

    async def _put_in(self, within: Rebuilding, tree: Tree) -> None:
        rebuilt, by = self._rebuilt, self._terms.by
        if self._base > tree.size:
            await self._forget(within, tree)
        sessions = Sessions(self._audit, rebuilt, base=self._base, size=tree.size)
        waiting: list[Restoring] = []
        put = size = 0
        async with aclosing(sessions.read()) as found:
            async for restoring in found:
                waiting.append(restoring)
                size += restoring.bytes
                if len(waiting) == BATCH or size > MAX_BYTES:
                    await self._put(within, waiting)
                    put += len(waiting)
                    self._audit.on_progress("sessions", put)
                    waiting, size = [], 0
        await self._put(within, waiting)
        if tree.size:
            self._notes.add("batches", tree.first, tree.size - 1, tree.text)  # also where it is claimed, and not finished yet
        uids: list[UUID] = []
        for (uid,) in self._notes.rows("SELECT uid FROM uids WHERE seq < ?", tree.size):
            uids.append(UUID(bytes=uid))
            if len(uids) == 10 * BATCH:
                rebuilt.dropped += await within.drop_waiting(uids, [])
                uids = []
        rebuilt.dropped += await within.drop_waiting(uids, [])
        batches = self._notes.rows("SELECT first, last, checkpoint FROM batches WHERE last < ? ORDER BY first", tree.size)
        await within.set_head(
            RestoredHead(
                rebuilt.origin, tree.key.openssh, tree.signers, tree.size, tree.root, tree.frontier, rebuilt.given_up, batches,
                {tile: root for tile, root in tree.tiles.items() if self._base // TILE <= tile < tree.size // TILE},
            ),
            adopts=self._terms.catch_up,
            accounts=self._audit.accounts,
        )  # fmt: skip
        await Strays(self._audit, rebuilt, self._terms.path, self._terms.bots).enqueue(within, by=by)

    async def _forget(self, within: Rebuilding, tree: Tree) -> None:
        """Of entries that the store does not have any more, the database says what came of it all: that is sealed again."""
        if tree.size and await within.checkpoint(tree.size) != tree.text:
            raise LedgerRefused(
                f"the ledger of this database has another checkpoint of {tree.size} entries than the store's",
                hint="correct storage.url or database.url, whichever leads to the other archive",
            )
        self._notes.run("CREATE INDEX steps_name ON steps (name, at)")
        async with aclosing(within.forgotten(tree.size)) as pages:
            async for sessions in pages:
                self._rebuilt.dropped += await within.drop_waiting([], [session.id for session in sessions])
                events = [(event, session.id) for session in sessions for event in self._said_of(session, tree.size)]
                await within.say_again(events, by=self._terms.by)
                self._rebuilt.sessions += len(sessions)

    def _said_of(self, session: Forgotten, size: int) -> list[str]:
        """What leads from where the ledger leaves it to how it is now."""
        name = name_of(session.bot, session.session_id, session.kind)
        step = self._notes.look("SELECT state FROM steps WHERE name = ? AND at < ? ORDER BY at DESC LIMIT 1", name, size)
        # One whose name is in no entry was refused, and so has ended.
        before = step[0] if step is not None else "failed" if session.told else None
        if session.state in OPEN:
            return [] if before is None or before in OPEN else ["reopened"]
        return ["adopted"] if before is None else ["settled"] if before in OPEN else ["reopened", "settled"]

    async def _put(self, within: Rebuilding, waiting: list[Restoring]) -> None:
        if not waiting:
            return
        rebuilt, by = self._rebuilt, self._terms.by
        ids, refused = await within.restore([each.session for each in waiting], by=by)
        for session, problem in refused:
            columns = session.columns
            rebuilt.lose("row", problem, session=(columns["bot"], columns["session_id"]))
        rebuilt.dropped += await within.drop_waiting([], ids)
        not_put = {id(session) for session, _ in refused}
        put = [each for each in waiting if id(each.session) not in not_put]
        again = [("reopened", id_) for id_, each in zip(ids, put, strict=True) if each.reopened]
        await within.say_again(again, by=by)
        rebuilt.sessions += len(ids)
        rebuilt.files += sum(len(each.session.files) for each in put)
        rebuilt.pending += sum(each.session.columns["state"] == "pending" for each in put)
        await asyncio.sleep(0)

    # --- saying so

    def _add_problems(self, reached: Reached) -> None:
        findings = self._audit.findings
        self._rebuilt.problems = [
            f"{name}: {finding.message}" + (f" ({finding.key})" if finding.key else "")
            for name in findings.counts
            for finding in findings.of(name)
        ]
        gone = [size for size in reached.gone if size < self._rebuilt.entries]
        self._rebuilt.problems += [f"ledger_gap: the checkpoint is gone ({checkpoint_key(size)})" for size in gone[:MAX_NAMED]]

    async def _seal(self, tree: Tree) -> None:
        rebuilt = self._rebuilt
        if self._sealer is None:
            return
        said = {name: getattr(rebuilt, name) for name in ("sessions", "files", "unnamed", "lost", "given_up")}
        lost = bool(rebuilt.counts["key"])
        said["size"] = rebuilt.entries
        await self._sealer.rebuilt(said, again=self._again, barred=self._barred, by=tree.text, lost=lost)
        rebuilt.sealed = True
