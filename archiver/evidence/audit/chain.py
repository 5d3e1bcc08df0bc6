"""The ledger as a tree: segments in order, each ending at a checkpoint that has its root, with both signatures and its claim."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from archiver.errors import StoreError
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.entries import Lines
from archiver.evidence.audit.fetching import Fetched, in_order
from archiver.evidence.audit.scratch import key_bytes
from archiver.evidence.audit.trust import Keys, read_note
from archiver.evidence.checkpoints import SignedCheckpoint, verify_sshsig
from archiver.evidence.entries import MAX_LINE, Entry
from archiver.evidence.keys import PublicKey
from archiver.evidence.merkle import Frontier, leaf_hash
from archiver.evidence.objects import (
    checkpoint_key,
    claim_key,
    segment_key,
    signature_key,
)

BATCHES_AT_ONCE = 16
NEWEST = 3
"""Segments whose records are always read."""
MAX_CLAIMS = 10
"""To one place, of which all but the last were given up."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The entries `first` to `last`."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Of the tree at its end."""
        return self.last + 1

    @property
    def key(self) -> str:
        """Its key."""
        return segment_key(self.first, self.last)


@dataclass(frozen=True, slots=True)
class Beside:
    """What belongs to a segment: its checkpoint, the detached signature, and its claims by their keys, the newest last."""

    checkpoint: Fetched
    signature: Fetched
    claims: list[tuple[str, Fetched]]


@dataclass
class Reached:
    """How far the ledger goes. `size`: entries up to the end of the last segment; `published`: up to the last checkpoint
    that is right; `seen`: up to the last that is there; `origin`: as the first checkpoint has it; `gone`: checkpoints that are
    not there; `since_root`: the root at the size of the checkpoint that was kept elsewhere; `broken`: what follows a gap, or
    entries that are not what was sealed, has no root that could be told; `named`: the `key` entries, in order; `newest`: with
    which entries the newest segments begin.
    """

    size: int = 0
    published: int = 0
    seen: int = 0
    origin: str = ""
    gone: list[int] = field(default_factory=list)
    since_root: bytes | None = None
    broken: bool = False
    named: list[tuple[int, Entry]] = field(default_factory=list)
    newest: deque[int] = field(default_factory=lambda: deque(maxlen=NEWEST))


class Chain:
    """Reads the whole ledger of an audit."""

    def __init__(self, audit: Audit, keys: Keys) -> None:
        self._audit = audit
        self._findings = audit.findings
        self._keys = keys
        self._frontier = Frontier()
        self.reached = Reached(origin=audit.head.origin if audit.head is not None else "")

    async def read(self) -> Reached:
        """Read it. Raises StoreUnavailable."""
        async with aclosing(in_order(self._segments(), self._beside, BATCHES_AT_ONCE)) as segments:
            async for segment, beside in segments:
                if segment.first > self.reached.size:
                    self._miss(segment.first)
                await self._take(segment, beside)
                self._audit.on_progress("entries", self.reached.size)
        self._take_unpublished()
        return self.reached

    # --- in which order

    def _segments(self) -> Iterator[Segment]:
        """Those that follow each other. Of several that begin with the same entry the one at whose end a checkpoint is; one that
        lies within others, or far behind all that was ever sealed, belongs to nothing.
        """
        reached = 0
        head = self._audit.newest_head
        found = self._audit.scratch.rows("SELECT number, last FROM named WHERE kind = 'segment' ORDER BY number, last")
        for first, same in itertools.groupby(found, key=lambda row: int(row[0])):
            lasts = [last for _, last in itertools.islice(same, 100) if last >= first]
            with_checkpoint = [last for last in lasts if self._is_named("checkpoint", last + 1)]
            if first < reached or not lasts:
                continue
            last = (with_checkpoint or lasts)[0]
            if first > reached and not with_checkpoint and (head is None or last >= head.size):
                continue
            yield Segment(first, last)
            reached = last + 1

    def _is_named(self, kind: str, number: int) -> bool:
        return self._audit.scratch.look("SELECT 1 FROM named WHERE kind = ? AND number = ?", kind, number) is not None

    async def _beside(self, segment: Segment) -> Beside:
        reader = self._audit.reader
        claims = [claim_key(segment.first)]
        found = self._audit.scratch.rows(
            "SELECT again FROM named WHERE kind = 'claim' AND number = ? AND again > 1 ORDER BY again DESC LIMIT ?",
            segment.first,
            MAX_CLAIMS,
        )
        claims += reversed([f"{claims[0]}.{again}" for (again,) in found])
        return Beside(
            await reader.fetch(checkpoint_key(segment.size)),
            await reader.fetch(signature_key(segment.size)),
            [(key, await reader.fetch(key)) for key in claims],
        )

    def _miss(self, first: int) -> None:
        last = first - 1
        self._findings.add(
            "ledger_gap", f"no segment has the entries {self.reached.size} to {last}", key=segment_key(self.reached.size, last)
        )
        self._audit.lose(self.reached.size, last)
        self.reached.broken = True
        self.reached.size = first

    # --- one segment

    async def _take(self, segment: Segment, beside: Beside) -> None:
        lines = Lines(self._audit)
        wrong = await self._read_lines(segment, lines)
        keys = [self._named_key(seq, entry) for seq, entry in lines.keys]
        if segment.first == 0 and keys and keys[0] is not None:
            self._keys.name(keys[0])
        beside.claims[1:] = [each for each in beside.claims[1:] if self._is_ours(read_note(each[1].content))]
        note, expected = self._checkpoint(segment, beside)
        if not wrong and not self.reached.broken and expected is not None and expected.checkpoint.root != self._frontier.root():
            wrong = "they have another root"
        self.reached.size = segment.size
        self.reached.newest.append(segment.first)
        self._mark(segment, beside)
        if beside.checkpoint.content is not None or beside.checkpoint.problem:
            self.reached.seen = segment.size
        if wrong:
            self._disbelieve(segment, lines, wrong)
        else:
            lines.keep()
            self._check_head(segment.first)
        if note is not None:
            self._check_signatures(segment, beside, note, believed=not wrong)
            self.reached.published = segment.size
            self._audit.report.checkpoints += 1
        self._check_claim(segment, beside, note)
        if not wrong:
            self._take_keys(segment, lines, keys)

    async def _read_lines(self, segment: Segment, lines: Lines) -> str:
        """What is wrong with them, if something is."""
        seq = segment.first
        try:
            async with aclosing(self._audit.reader.lines(segment.key, MAX_LINE)) as found:
                async for line in found:
                    if seq > segment.last:
                        return "there are too many"
                    self._append(line)
                    lines.take(seq, line)
                    seq += 1
        except ValueError as error:
            return str(error)
        except StoreError as error:
            self._findings.add("unreadable", error.message, key=segment.key)
            return "the segment cannot be read"
        return "" if seq == segment.last + 1 else "some are gone"

    def _append(self, line: bytes) -> None:
        if self.reached.broken:
            return
        self._frontier.append(leaf_hash(line))
        since = self._audit.wanted.since
        if since is not None and self._frontier.size == since.checkpoint.size:
            self.reached.since_root = self._frontier.root()

    def _disbelieve(self, segment: Segment, lines: Lines, wrong: str) -> None:
        message = f"the entries {segment.first} to {segment.last} are not what was sealed: {wrong}"
        self._findings.add("root_mismatch", message, key=checkpoint_key(segment.size))
        lines.drop()
        self._audit.lose(segment.first, segment.last)
        self.reached.broken = True
        self.reached.since_root = None

    def _check_head(self, first: int) -> None:
        """Where the database's ledger ends, it has the same root."""
        head, size = self._audit.head, self.reached.size
        if head is None or self.reached.broken or not first < head.size <= size:
            return
        if head.size < size or self._frontier.root() != head.root:
            self._findings.add("fork", f"the database has another tree of {head.size} entries than the store")

    def _checkpoint(self, segment: Segment, beside: Beside) -> tuple[SignedCheckpoint | None, SignedCheckpoint | None]:
        """The segment's checkpoint, if it is right in itself; and what says which root has to be there: that, or a claim."""
        note, key = read_note(beside.checkpoint.content), checkpoint_key(segment.size)
        if note is not None and self._is_right(note, segment):
            return note, note
        if beside.checkpoint.content is not None:
            self._findings.add("checkpoint_wrong", "it is not what a key of this ledger signed for this place", key=key)
        elif beside.checkpoint.problem:
            self._findings.add("unreadable", beside.checkpoint.problem, key=key)
        else:
            self.reached.gone.append(segment.size)
        claims = (read_note(fetched.content) for _, fetched in reversed(beside.claims))
        return None, next((claim for claim in claims if claim is not None and self._is_right(claim, segment)), None)

    def _is_ours(self, note: SignedCheckpoint | None) -> bool:
        return note is not None and note.checkpoint.origin == self.reached.origin and self._keys.signer_of(note) is not None

    def _is_right(self, note: SignedCheckpoint, segment: Segment) -> bool:
        self.reached.origin = self.reached.origin or note.checkpoint.origin
        place = (note.checkpoint.origin, note.checkpoint.size) == (self.reached.origin, segment.size)
        return place and self._keys.signer_of(note) is not None

    def _mark(self, segment: Segment, beside: Beside) -> None:
        """Of these objects it is known what they are."""
        keys = (segment.key, checkpoint_key(segment.size), signature_key(segment.size), *(key for key, _ in beside.claims))
        for key in keys:
            self._audit.scratch.add("checked", key_bytes(key))

    def _check_signatures(self, segment: Segment, beside: Beside, note: SignedCheckpoint, *, believed: bool) -> None:
        signer = self._keys.signer_of(note)
        assert signer is not None
        assert beside.checkpoint.content is not None
        key = signature_key(segment.size)
        if beside.signature.problem:
            self._findings.add("unreadable", beside.signature.problem, key=key)
        elif beside.signature.content is None:
            self._findings.add("checkpoint_wrong", "the detached signature is gone", key=key)
        elif not verify_sshsig(beside.signature.content, beside.checkpoint.content, signer):
            self._findings.add("checkpoint_wrong", "it is not the detached signature of this checkpoint", key=key)
        if not believed:
            self._keys.in_force = self._keys.signer = signer
            return
        wrong = self._keys.signs(signer)
        if wrong is not None:
            self._findings.add("key_unproven", wrong, key=checkpoint_key(segment.size))
        self._audit.report.checkpoint = {
            "size": segment.size,
            "root": note.checkpoint.root.hex(),
            "text": beside.checkpoint.content.decode(),
        }

    def _check_claim(self, segment: Segment, beside: Beside, note: SignedCheckpoint | None) -> None:
        """The newest claim to this place is the checkpoint that came of it; those before are what a key of this ledger signed."""
        for earlier in beside.claims[:-1]:
            self._check_one_claim(segment, *earlier)
        key, fetched = beside.claims[-1]
        if note is not None and fetched.content == beside.checkpoint.content:
            return
        claim = self._check_one_claim(segment, key, fetched)
        if claim is not None and note is not None:
            size = claim.checkpoint.size
            self._findings.add("fork", f"a batch up to {size} entries was claimed here, and another one was sealed", key=key)

    def _check_one_claim(self, segment: Segment, key: str, fetched: Fetched) -> SignedCheckpoint | None:
        """The claim, if it is one of this ledger's to this place."""
        claim = read_note(fetched.content)
        if fetched.problem:
            self._findings.add("unreadable", fetched.problem, key=key)
        elif fetched.content is None:
            self._findings.add("ledger_gap", f"the claim to what follows {segment.first} entries is gone", key=key)
        elif claim is None or not self._is_ours(claim):
            self._findings.add("checkpoint_wrong", "it is not what a key of this ledger signed for this place", key=key)
        else:
            return claim
        return None

    # --- keys

    def _named_key(self, seq: int, entry: Entry) -> PublicKey | None:
        """The key that a `key` entry names, if the entry is as it has to be there."""
        body = entry.body
        try:
            key = PublicKey.from_openssh(body["public_key"])
        except ValueError:
            return None
        before = self._keys.in_force.fingerprint if self._keys.in_force is not None else None
        self.reached.origin = self.reached.origin or body["origin"]
        named = (body["fingerprint"], body["previous"], body["origin"])
        return key if named == (key.fingerprint, None if seq == 0 else before, self.reached.origin) else None

    def _take_keys(self, segment: Segment, lines: Lines, keys: list[PublicKey | None]) -> None:
        """The checkpoint that is the first to have the entry is right: so the key before vouched for this one."""
        if segment.first == 0 and not (lines.keys and lines.keys[0][0] == 0):
            self._findings.add("key_unproven", "the first entry names no key", key=segment.key)
        for (seq, entry), key in zip(lines.keys, keys, strict=True):
            self.reached.named.append((segment.size, entry))
            if key is None or entry.body["signers"] != len(self.reached.named):
                self._findings.add("key_unproven", f"entry {seq} does not name a key as the program does", key=segment.key)
            elif seq:
                self._keys.name(key)

    # --- what the store does not have yet

    def _take_unpublished(self) -> None:
        batch, reached = self._audit.unpublished, self.reached
        if batch is None or batch.first != reached.size:
            return
        lines = Lines(self._audit)
        content = batch.lines.split(b"\n")
        for seq, line in enumerate(content[:-1], batch.first):
            self._append(line)
            lines.take(seq, line)
        segment = Segment(batch.first, batch.first + len(content) - 2)
        if batch.first == 0 and lines.keys and (key := self._named_key(*lines.keys[0])) is not None:
            self._keys.name(key)
        note = read_note(batch.checkpoint)
        root = None if reached.broken else self._frontier.root()
        if note is None or not self._is_right(note, segment) or root not in (None, note.checkpoint.root):
            self._findings.add("root_mismatch", "the batch that waits to be published is not what its checkpoint says")
            lines.drop()
            return
        reached.size = segment.size
        lines.keep()
        self._check_head(batch.first)
