"""What lies in the store behind the entries that can be proven: claims and checkpoints of what is lost, or was given up."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

from archiver.errors import LedgerRefused
from archiver.evidence.audit.chain import MAX_CLAIMS
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.fetching import Fetched, in_order
from archiver.evidence.audit.scratch import key_bytes, key_text
from archiver.evidence.audit.trust import Keys, read_note
from archiver.evidence.checkpoints import Checkpoint
from archiver.evidence.objects import checkpoint_key, claim_key, parse, segment_key
from archiver.evidence.rebuild.report import Rebuilt


class Behind:
    """`again`: the number of the claim that supersedes those that are there; `barred`: keys that whoever made them needs next, so
    that it goes on no more.
    """

    def __init__(self, audit: Audit, report: Rebuilt, origin: str, keys: Keys) -> None:
        self._audit = audit
        self._notes = audit.scratch
        self._report = report
        self._origin = origin
        self._keys = keys
        self.again = 1
        self.barred: list[str] = []

    async def look(self, size: int, lease: timedelta) -> None:
        """What a key of the ledger signed for a place behind `size`, and nobody gave up yet, is lost. Raises LedgerRefused where
        somebody may be at it, whose lease is so long.
        """
        report = self._report
        known = max((entry.body["given_up"] for seq, entry in self._audit.rebuilt if seq < size), default=0)
        last = await self._last_signed(size)
        claimed = await self._claimed(size)
        if last > max(size, known):
            findings = self._audit.findings
            why = next((finding.message for name in findings.counts for finding in findings.of(name)), "")
            report.lose("ledger", f"it has some {last} entries, of which {size} are proven; {why}")
        elif claimed:
            self._check_age(size, lease)
            report.lose("ledger", f"a batch was to follow these {size} entries, and nothing of it came into the store")
        for end in claimed:
            self._bar(checkpoint_key(end) if self._is_there(segment_key(size, end - 1)) else segment_key(size, end - 1))
        if last > size:
            self._bar(claim_key(last))
        given_up = max(last, known, *claimed)
        report.given_up = given_up if given_up > size else 0

    def _bar(self, key: str) -> None:
        if not self._is_there(key):
            self.barred.append(key)

    def _is_there(self, key: str) -> bool:
        return self._notes.one("SELECT 1 FROM listing WHERE key = ?", key_bytes(key)) is not None

    async def _last_signed(self, size: int) -> int:
        """How many entries the ledger had, by what a key of it signed for a place behind `size`; `size` if there is none."""
        named = self._notes.rows(
            "SELECT key FROM named WHERE kind IN ('claim', 'checkpoint') AND number > ? ORDER BY number DESC", size
        )
        async with aclosing(in_order((key_text(raw) for (raw,) in named), self._audit.reader.fetch)) as found:
            async for key, fetched in found:
                note, place = self._note_of(fetched), parse(key)
                # A copy of one that belongs elsewhere says nothing.
                if note is not None and place is not None and note.size >= place.number + (place.kind == "claim"):
                    return note.size
        return size

    def _note_of(self, fetched: Fetched) -> Checkpoint | None:
        """What a key of this ledger signed."""
        note = read_note(fetched.content)
        if note is None or note.checkpoint.origin != self._origin or self._keys.signer_of(note) is None:
            return None
        return note.checkpoint

    async def _claimed(self, size: int) -> list[int]:
        """The sizes that were claimed to follow so many entries; `again` is the number of the next claim then."""
        found = self._notes.rows(
            "SELECT again, key FROM named WHERE kind = 'claim' AND number = ? ORDER BY again LIMIT ?", size, MAX_CLAIMS
        )
        claims = list(found)
        sizes = []
        for again, raw in claims:
            note = self._note_of(await self._audit.reader.fetch(key_text(raw)))
            if note is not None and note.size > size:
                sizes.append(note.size)
                self.again = again + 1
        while self._is_there(claim_key(size, self.again)):
            self.again += 1
        return sizes

    def _check_age(self, size: int, lease: timedelta) -> None:
        """Raises LedgerRefused where the claim may be somebody's who is at it."""
        (modified,) = self._notes.one(
            """SELECT max(l.modified) FROM named n JOIN listing l ON l.key = n.key WHERE n.kind = 'claim' AND n.number = ?""",
            size,
        ) or (0,)
        if modified > (self._audit.now - lease).timestamp():
            raise LedgerRefused(
                "a batch has been claimed in the store just now: another database may be sealing into it",
                hint=f"make sure that no other one does, and run it again after {lease.total_seconds():.0f} seconds",
            )
