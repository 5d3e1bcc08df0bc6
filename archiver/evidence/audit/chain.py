"""The ledger as a tree: segments in order, each ending at a checkpoint that has its root, with both signatures and its claim."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import aclosing

from archiver.errors import StoreError
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.entries import Lines
from archiver.evidence.audit.fetching import Fetched, in_order
from archiver.evidence.audit.reached import Beside, Reached, Segment, Tree
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
MAX_CLAIMS = 100
"""To one place, of which all but the last were given up, or planted."""


class Chain:
    """Reads the whole ledger of an audit."""

    def __init__(self, audit: Audit, keys: Keys) -> None:
        self._audit = audit
        self._findings = audit.findings
        self._keys = keys
        self._frontier = Frontier()
        self.reached = Reached(origin=audit.head.origin if audit.head is not None else "")
        self._doubtful: tuple[int, list[int]] | None = None
        self._unproven = False

    async def read(self) -> Reached:
        """Read it. Raises StoreUnavailable."""
        await self._read_from(0)
        while self._doubtful is not None:
            # All before it is known by now: whose the keys are, and what was given up.
            await self._read_from(await self._decide(*self._doubtful))
        self._take_unpublished()
        return self.reached

    async def _read_from(self, start: int) -> None:
        self._doubtful = None
        async with aclosing(in_order(self._segments(start), self._beside, BATCHES_AT_ONCE)) as segments:
            async for segment, beside in segments:
                await self._take(segment, beside)
                self._audit.on_progress("entries", self.reached.size)

    # --- in which order

    def _segments(self, start: int) -> Iterator[Segment]:
        """Those that follow each other, from that of entry `start` on, up to where it is doubtful which one does. One that lies
        within others, or far behind all that was ever sealed, belongs to nothing.
        """
        reached = self.reached.size
        head = self._audit.newest_head
        found = self._audit.scratch.rows(
            "SELECT number, last FROM named WHERE kind = 'segment' AND number >= ? ORDER BY number, last", start
        )
        for first, same in itertools.groupby(found, key=lambda row: int(row[0])):
            lasts = [last for _, last in itertools.islice(same, 100) if last >= first]
            with_checkpoint = [last for last in lasts if self._is_named("checkpoint", last + 1)]
            if first < reached or not lasts:
                continue
            last = (with_checkpoint or lasts)[0]
            if first > reached and not with_checkpoint and (head is None or last >= head.size):
                continue
            if first > reached or len(with_checkpoint) > 1:
                self._doubtful = first, with_checkpoint or lasts[:1]
                return
            yield Segment(first, last)
            reached = last + 1

    async def _decide(self, first: int, lasts: list[int]) -> int:
        """Take the one of several segments that belongs to the ledger, also behind a gap, if one does. From where to go on."""
        if first > self.reached.size:
            lasts = [last for last in lasts if not self._audit.is_given_up(first, last + 1)]
            if not lasts:
                return first + 1
            self._miss(first)
        notes = {
            last: read_note((await self._audit.reader.fetch(checkpoint_key(last + 1))).content) for last in lasts[:MAX_CLAIMS]
        }
        ours = [
            last for last, note in notes.items() if note is not None and note.checkpoint.size == last + 1 and self._is_ours(note)
        ]
        segment = Segment(first, (ours or lasts)[0])
        if len(ours) > 1:  # what was given up may have come to its end
            claims = [read_note(fetched.content) for _, fetched in reversed((await self._beside(segment)).claims)]
            claimed = [last for claim in claims if claim is not None for last in ours if notes[last] == claim]
            segment = Segment(first, (claimed or ours)[0])
        await self._take(segment, await self._beside(segment))
        return segment.size

    def _is_named(self, kind: str, number: int) -> bool:
        return self._audit.scratch.look("SELECT 1 FROM named WHERE kind = ? AND number = ?", kind, number) is not None

    async def _beside(self, segment: Segment) -> Beside:
        reader = self._audit.reader
        found = self._audit.scratch.rows(
            "SELECT again FROM named WHERE kind = 'claim' AND number = ? AND again > 1 ORDER BY again LIMIT ?",
            segment.first,
            MAX_CLAIMS,
        )
        claims = [claim_key(segment.first), *(claim_key(segment.first, again) for (again,) in found)]
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
            lines.keep(vouched=expected is not None, proven=expected is not None and not self.reached.broken)
            self._check_head(segment.first)
        proven = not wrong
        if note is not None:
            proven = self._check_signatures(segment, beside, note, believed=not wrong)
            self.reached.published = segment.size
            self._audit.report.checkpoints += 1
        self._check_claim(segment, beside, note)
        if not wrong:
            self._take_keys(segment, lines, keys)
        self._note_tree(segment, beside, note, expected, proven=proven)

    def _note_tree(
        self,
        segment: Segment,
        beside: Beside,
        note: SignedCheckpoint | None,
        expected: SignedCheckpoint | None,
        *,
        proven: bool,
    ) -> None:
        self._unproven |= not proven
        if self._unproven or self.reached.broken or expected is None or self._keys.in_force is None:
            return
        fetched = [beside.checkpoint, *(claim for _, claim in reversed(beside.claims))]
        text = next(each.content for each in fetched if read_note(each.content) == expected)
        assert text is not None
        size, signers, signer = segment.size, len(self._keys.named), self._keys.signer_of(expected)
        assert signer is not None
        root, frontier = self._frontier.root(), self._frontier.hashes
        tree = Tree(segment.first, size, root, text, self._keys.in_force, signer, signers, frontier, self._frontier.tiles)
        if note is None:
            self.reached.claimed = tree
            return
        self.reached.whole, self.reached.claimed = tree, None
        if self._audit.wanted.rebuild_from is not None:
            self._audit.scratch.add("batches", segment.first, segment.last, text)

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
        if self._frontier.size == self._audit.wanted.rebuild_from:
            self.reached.base_root = self._frontier.root()
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

    def _check_signatures(self, segment: Segment, beside: Beside, note: SignedCheckpoint, *, believed: bool) -> bool:
        """Whether these entries are `believed`, and the key that signed was the one to sign there."""
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
            return False
        wrong = self._keys.signs(signer)
        if wrong is not None:
            self._findings.add("key_unproven", wrong, key=checkpoint_key(segment.size))
        self._audit.report.checkpoint = {
            "size": segment.size,
            "root": note.checkpoint.root.hex(),
            "text": beside.checkpoint.content.decode(),
        }
        return wrong is None

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
