"""What the ledger's objects say together: where it ends, and whether it ever was longer, or another one."""

from __future__ import annotations

import hashlib

from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.listing import is_young
from archiver.evidence.audit.reached import Reached
from archiver.evidence.audit.scratch import key_bytes, key_text
from archiver.evidence.audit.trust import Keys, read_note
from archiver.evidence.keys import PublicKey
from archiver.evidence.objects import FORMAT_KEY, SCHEMA_KEY, checkpoint_key, signers_key

MAX_DOCUMENT = 2**20
"""Bytes of FORMAT.md, or of the schema, that are read."""

UNKNOWN_SIGNER = "; no key that is known here signed it: it may be altered, or another archive's"


class Ends:
    """Checks them, once all segments are read."""

    def __init__(self, audit: Audit, reached: Reached, keys: Keys) -> None:
        self._audit = audit
        self._findings = audit.findings
        self._reached = reached
        self._keys = keys

    async def check(self) -> None:
        """Raises StoreUnavailable."""
        self._check_lengths()
        self._check_since()
        await self._check_documents()
        self._check_unnamed()
        self._check_given_up()
        await self._check_left()
        self._check_trust()

    def _check_lengths(self) -> None:
        audit, reached = self._audit, self._reached
        for size in reached.gone:
            if size < reached.published:
                self._findings.add("ledger_gap", "the checkpoint is gone", key=checkpoint_key(size))
        if audit.wanted.replica:
            audit.report.replica_lag = max(audit.published - reached.published, 0)
        elif reached.seen < audit.published:
            self._findings.add(
                "rolled_back",
                f"the store has no checkpoint behind {reached.seen} entries; the database knows of one of {audit.published}",
                key=checkpoint_key(audit.published),
            )
        elif reached.size < audit.size:
            message = f"the database knows of {audit.size} entries, and neither it nor the store has more than {reached.size}"
            self._findings.add("rolled_back", message)
        size = audit.newest_head.size if audit.newest_head is not None else 0
        if size < reached.size:
            message = f"the database knows of {size} entries, and the store has {reached.size}: it is older, or another one"
            self._findings.add("rolled_back", message)
        audit.told = reached.size
        audit.due = reached.published if audit.wanted.replica else max(reached.published, audit.published)
        if audit.told < audit.size:
            audit.lose(audit.told, audit.size - 1)

    def _check_since(self) -> None:
        since, reached = self._audit.wanted.since, self._reached
        if since is None:
            return
        kept = since.checkpoint
        unknown = "" if self._keys.signer_of(since) else UNKNOWN_SIGNER
        if kept.origin != reached.origin:
            self._findings.add("fork", f"the checkpoint that was kept elsewhere is that of {kept.origin}{unknown}")
        elif reached.since_root is not None and reached.since_root != kept.root:
            self._findings.add("fork", f"the checkpoint that was kept elsewhere has another root of {kept.size} entries{unknown}")
        elif reached.size < kept.size:
            message = f"the checkpoint that was kept elsewhere has {kept.size} entries, the store {reached.size}{unknown}"
            self._findings.add("rolled_back", message)
        elif reached.since_root is not None:
            self._audit.report.since = kept.size

    def _check_unnamed(self) -> None:
        """Entries that have only the hash of an ID: with a database that was lost, it is known no more whose. As many as there
        were then are excused.
        """
        excused = max((entry.body["size"] for _, entry in self._audit.rebuilt), default=0)
        left = max((entry.body["unnamed"] for _, entry in self._audit.rebuilt), default=0)
        for (seq,) in self._audit.scratch.rows("SELECT seq FROM unnamed ORDER BY seq"):
            message = f"entry {seq} is about a session whose ID is kept out of the ledger: no row has its hash"
            if seq < excused and left:
                left -= 1
                self._findings.know("row_missing", message)
            else:
                self._findings.add("row_missing", message)

    def _check_given_up(self) -> None:
        """Whoever has the key and the database can say that entries are lost: so that is said each time."""
        said = {entry.body["given_up"]: entry.body["size"] for _, entry in reversed(self._audit.rebuilt)}  # the first of each
        for size, first in sorted(said.items()):
            if first < size:
                message = f"entries from {first} to {size - 1} that there were before were given up when the database was rebuilt"
                self._findings.know("ledger_gap", message)

    # --- what the entries vouch for

    async def _check_documents(self) -> None:
        for number, (size, entry) in enumerate(self._reached.named, 1):
            if size > self._reached.published:  # its batch is on its way
                for key in (FORMAT_KEY, SCHEMA_KEY, signers_key(number)):
                    self._audit.scratch.add("checked", key_bytes(key))
                continue
            if number == 1:
                await self._check_document(FORMAT_KEY, entry.body["format_sha256"])
                await self._check_document(SCHEMA_KEY, entry.body["schema_sha256"])
            await self._check_document(signers_key(number), entry.body["signers_sha256"])

    async def _check_document(self, key: str, sha256: str) -> None:
        self._audit.scratch.add("checked", key_bytes(key))
        found = await self._audit.reader.fetch(key, MAX_DOCUMENT)
        if found.content is None and not found.problem:
            self._findings.add("evidence_changed", "it is gone", key=key)
        elif found.content is None or hashlib.sha256(found.content).hexdigest() != sha256:
            self._findings.add("evidence_changed", found.problem or "it has another hash than the ledger says", key=key)

    # --- objects that belong to no segment

    async def _check_left(self) -> None:
        """Claims and checkpoints that a key signed tell of a ledger that was longer, or another one; others nobody knows."""
        left = self._audit.scratch.rows(
            """SELECT n.kind, n.number, n.last, n.key, l.modified FROM named n JOIN listing l ON l.key = n.key
               WHERE NOT EXISTS (SELECT 1 FROM checked c WHERE c.key = n.key) ORDER BY n.kind, n.number, n.again"""
        )
        for kind, number, last, raw, modified in left:
            key = key_text(raw)
            end = last + 1 if kind == "segment" else number
            if kind in ("claim", "checkpoint", "segment", "signature") and self._audit.is_given_up(number, end):
                self._audit.scratch.add("checked", raw)
                self._findings.know("ledger_gap", "given up when the database was rebuilt", key)
            elif kind in ("claim", "checkpoint"):
                found = await self._audit.reader.fetch(key)
                note = read_note(found.content)
                if note is not None and note.checkpoint.origin == self._reached.origin and self._keys.signer_of(note) is not None:
                    self._audit.scratch.add("checked", raw)
                    if not self._is_unpublished(kind, number, found.content):
                        self._take_signed(kind, number, key, modified)
            elif (
                (kind in ("format", "schema", "signers") and self._audit.lost)
                or (kind == "signature" and (self._is_checked(checkpoint_key(number)) or self._is_lost(number - 1)))
                or (kind == "segment" and self._audit.wanted.replica and end > self._reached.size)
                or (kind == "signature" and self._audit.wanted.replica and number > self._reached.size)
            ):
                self._audit.scratch.add("checked", raw)

    def _is_unpublished(self, kind: str, number: int, content: bytes | None) -> bool:
        """Whether it is the claim, or the checkpoint, of the batch that waits in the database."""
        batch = self._audit.unpublished
        at = None if batch is None else batch.first if kind == "claim" else batch.last + 1
        return batch is not None and at == number and batch.checkpoint == content

    def _take_signed(self, kind: str, number: int, key: str, modified: float) -> None:
        audit, size = self._audit, self._reached.size
        if self._is_lost(number if kind == "claim" else number - 1) or (audit.wanted.replica and number >= size):
            return
        known = audit.newest_head.size if audit.newest_head is not None else 0
        if number > size or (number == size and kind == "claim" and known <= size):
            what = "a batch after" if kind == "claim" else "the checkpoint of"
            if not self._findings.of("rolled_back"):
                self._findings.add("rolled_back", f"the store has {what} {number} entries, and of these it has {size}", key=key)
        elif kind == "claim" and number == size:
            if not is_young(modified, audit.now, audit.wanted.patience):
                self._findings.add("ledger_gap", "nothing came of this claim", key=key)
        else:
            self._findings.add(
                "fork", "a key of this ledger signed it, and no batch of this ledger begins or ends there", key=key
            )

    def _is_checked(self, key: str) -> bool:
        return self._audit.scratch.one("SELECT 1 FROM checked WHERE key = ?", key_bytes(key)) is not None

    def _is_lost(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self._audit.lost)

    # --- whose it is

    def _check_trust(self) -> None:
        audit, keys = self._audit, self._keys
        report = audit.report
        report.origin = self._reached.origin
        report.entries = self._reached.size
        report.keys = [key.fingerprint for key in keys.named]
        own = audit.wanted.key
        if keys.proven:
            report.trust = "key_file" if own is not None and own in (*keys.named, keys.in_force) else "trusted"
        elif self._reached.published:
            self._findings.add(
                "key_unproven", self._unproven(own, keys.signer.fingerprint if keys.signer else "nobody who is known")
            )

    def _unproven(self, own: PublicKey | None, signer: str) -> str:
        keys = self._keys
        if own is not None and own == keys.in_force:
            return (
                f"{own.fingerprint}, of evidence.key_file, has signed nothing yet; the last that did is {signer}, "
                f"which is not in evidence.trusted"
            )
        if not keys.trusted:
            return f"neither evidence.key_file nor evidence.trusted says which key is the archive's; it is signed by {signer}"
        return f"signed by {signer}, which is neither evidence.key_file's nor in evidence.trusted"
