"""Proofs that entries are in the ledger, against a checkpoint that was published, however long the ledger is.

All that is proven is read from the store. Of the tree are in memory: the roots of its tiles, 256 entries each, and the leaves of
those tiles that were looked at last.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from archiver.errors import EvidenceError, NothingSealed, StoreError
from archiver.evidence.checkpoints import Checkpoint, SignedCheckpoint, parse, verify_sshsig
from archiver.evidence.keys import PublicKey, parse_allowed_signers
from archiver.evidence.merkle import HASH_BYTES, TILE, Tree, leaf_hash, verify_inclusion
from archiver.evidence.objects import checkpoint_key, segment_key, signature_key, signers_key
from archiver.evidence.reading import TooLong, read_whole
from archiver.queue.exports import Exports
from archiver.queue.ledger import Ledger
from archiver.stores import Store

MAX_SEGMENT = 256 * 2**20
"""Bytes of the longest segment that there can be: its longest lines, as many as a batch has."""

TILES_KEPT = 1024
"""Tiles whose leaves are kept, 8 kB each."""

AT_ONCE = 8
"""Segments that are read at a time: where little happens, a tile has many."""

SEGMENTS_KEPT = 16 * 2**20
"""Bytes of segments that are kept, but for the last one that was read."""

AUDIT = "`archiver audit` says what is wrong with the ledger"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A published checkpoint and what verifies it: `note`, `signature` and `signers` are as the store has them."""

    checkpoint: Checkpoint
    note: bytes
    signature: bytes
    signers: bytes
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Proof:
    """That this line, without newline, is the entry `index` of a tree: `hashes` from its leaf's sibling up."""

    index: int
    line: bytes
    hashes: tuple[bytes, ...]

    def text(self, note: bytes) -> bytes:
        """As C2SP's tlog-proof has it, under the checkpoint `note`."""
        lines = [b"c2sp.org/tlog-proof@v1", b"index %d" % self.index, *map(base64.b64encode, self.hashes)]
        return b"\n".join(lines) + b"\n\n" + note


async def read_sealed(ledger: Ledger, store: Store, size: int | None = None) -> Sealed:
    """The newest checkpoint that was published, or that of `size`. Raises NothingSealed, EvidenceError, StoreError."""
    head = await ledger.head()
    if head is None:
        raise NothingSealed(
            "no ledger: nothing is sealed, and so nothing is proven",
            hint="let evidence.key_file name a key (`ssh-keygen -t ed25519 -N '' -f evidence.key`), then `archiver seal`",
        )
    if not head.published:
        raise NothingSealed("nothing is sealed yet: there is no checkpoint", hint="`archiver seal`, with evidence.key_file")
    size = size or head.published
    note, signature = await _read(store, checkpoint_key(size)), await _read(store, signature_key(size))
    try:
        parsed = parse(note)
    except ValueError as error:
        raise EvidenceError(f"{checkpoint_key(size)}: {error}", hint=AUDIT) from None
    if (parsed.checkpoint.origin, parsed.checkpoint.size) != (head.origin, size):
        raise EvidenceError(f"{checkpoint_key(size)} is that of another ledger, or of another size", hint=AUDIT)
    signers, key = await _signer(store, head.signers, parsed)
    if not verify_sshsig(signature, note, key):
        raise EvidenceError(f"{signature_key(size)} is not the signature of {checkpoint_key(size)}", hint=AUDIT)
    return Sealed(parsed.checkpoint, note, signature, signers, key)


async def _signer(store: Store, signers: int, note: SignedCheckpoint) -> tuple[bytes, PublicKey]:
    """Which of the archive's keys signed a checkpoint: most often the newest."""
    for number in range(signers, 0, -1):
        content = await _read(store, signers_key(number))
        try:
            origin, key = parse_allowed_signers(content)
        except ValueError as error:
            raise EvidenceError(f"{signers_key(number)}: {error}", hint=AUDIT) from None
        if origin == note.checkpoint.origin and note.signed_by(key):
            return content, key
    raise EvidenceError(f"none of the archive's keys signed {checkpoint_key(note.checkpoint.size)}", hint=AUDIT)


async def _read(store: Store, key: str, limit: int = 64 * 1024) -> bytes:
    try:
        return await read_whole(store, key, limit)
    except TooLong as error:
        raise EvidenceError(error.message, hint=AUDIT) from None
    except StoreError as error:
        if not error.facts.get("missing"):
            raise
        raise EvidenceError(f"the store lacks {key}: it is an older copy, or another one", hint=AUDIT) from None


class Proofs:
    """Makes proofs of one tree. `tiles` are roots as the database has them: what is missing, or wrong, the store tells."""

    def __init__(self, exports: Exports, store: Store, checkpoint: Checkpoint, on_progress: Callable[[int], None]) -> None:
        self._exports = exports
        self._store = store
        self._size = checkpoint.size
        self._root = checkpoint.root
        self._on_progress = on_progress
        self._tops = Tree()
        self._leaves: OrderedDict[int, list[bytes]] = OrderedDict()
        self._segments: OrderedDict[int, list[bytes]] = OrderedDict()
        self._kept = 0

    @classmethod
    async def of(
        cls,
        exports: Exports,
        store: Store,
        checkpoint: Checkpoint,
        tiles: Mapping[int, bytes],
        on_progress: Callable[[int], None] = lambda entries: None,
    ) -> Proofs:
        """Those of the checkpoint's tree; `on_progress` hears how many entries were read for tiles that are missing. Raises
        EvidenceError where the store's entries do not have that root.
        """
        made = cls(exports, store, checkpoint, on_progress)
        made._tops = await made._top(tiles)
        if made._tops.root() != checkpoint.root and tiles:
            made._tops = await made._top({})
        if made._tops.root() != checkpoint.root:
            raise EvidenceError(f"the entries in the store do not have the root of {checkpoint_key(checkpoint.size)}", hint=AUDIT)
        return made

    async def prove(self, indexes: Iterable[int]) -> dict[int, Proof]:
        """By index: proofs of these entries, with their lines, in memory at once. Raises EvidenceError, StoreError."""
        made = {}
        for tile, members in groupby(sorted(set(indexes)), key=lambda index: index // TILE):
            wanted = list(members)
            lines: dict[int, bytes] = {}
            leaves = self._leaves.get(tile)
            if leaves is None:
                leaves = await self._read_tile(tile, frozenset(wanted), lines)
            self._keep_tile(tile, leaves)
            below = Tree(leaves)
            above = self._tops.inclusion_proof(tile)
            for index in wanted:
                if index not in lines:
                    lines[index] = await self._line(index)
                hashes = (*below.inclusion_proof(index % TILE), *above)
                if not verify_inclusion(leaf_hash(lines[index]), index, self._size, hashes, self._root):
                    raise EvidenceError(f"entry {index} is not the one that was sealed there", hint=AUDIT)
                made[index] = Proof(index, lines[index], hashes)
        return made

    # --- the tree

    async def _top(self, tiles: Mapping[int, bytes]) -> Tree:
        """Over the roots of all tiles, of which the last may have fewer leaves."""
        whole = self._size // TILE
        tops = Tree()
        tile = 0
        while tile * TILE < self._size:
            known = tiles.get(tile) if tile < whole else None
            if known is not None and len(known) == HASH_BYTES:
                tops.append(known)
                tile += 1
                continue
            end = tile + 1
            while end < whole and end not in tiles:
                end += 1
            async for root in self._roots(tile, end):
                tops.append(root)
            tile = end
        return tops

    async def _roots(self, first: int, end: int) -> AsyncGenerator[bytes]:
        """Of the tiles from `first` to before `end`, from the store."""
        tree = Tree()
        last = min(end * TILE, self._size) - 1
        async with aclosing(self._lines(first * TILE, last)) as lines:
            async for index, line in lines:
                tree.append(leaf_hash(line))
                if len(tree) == TILE or index == last:
                    self._on_progress(index + 1)
                    yield tree.root()
                    tree = Tree()

    async def _read_tile(self, tile: int, wanted: frozenset[int], found: dict[int, bytes]) -> list[bytes]:
        leaves = []
        async with aclosing(self._lines(tile * TILE, min((tile + 1) * TILE, self._size) - 1)) as lines:
            async for index, line in lines:
                leaves.append(leaf_hash(line))
                if index in wanted:
                    found[index] = line
        return leaves

    def _keep_tile(self, tile: int, leaves: list[bytes]) -> None:
        self._leaves[tile] = leaves
        self._leaves.move_to_end(tile)
        if len(self._leaves) > TILES_KEPT:
            self._leaves.popitem(last=False)

    # --- entries

    async def _line(self, index: int) -> bytes:
        async with aclosing(self._lines(index, index)) as lines:
            async for _, line in lines:
                return line
        raise AssertionError("all lines are there, or it raised")

    async def _lines(self, first: int, last: int) -> AsyncGenerator[tuple[int, bytes]]:
        """The entries from `first` to `last`, each with its index. Raises EvidenceError where one is missing."""
        at = first
        async with aclosing(self._exports.segments(first, last)) as pages:
            async for page in pages:
                for ahead in range(0, len(page), AT_ONCE):
                    segments = page[ahead : ahead + AT_ONCE]
                    read = await asyncio.gather(*(self._segment(*segment) for segment in segments))
                    for (begin, end), lines in zip(segments, read, strict=True):
                        for index in range(at, min(end, last) + 1 if begin <= at else at):
                            yield index, lines[index - begin]
                            at = index + 1
        if at <= last:
            raise EvidenceError(f"the database knows of no segment that has entry {at}", hint=AUDIT)

    async def _segment(self, first: int, last: int) -> Sequence[bytes]:
        """The lines of a segment."""
        if first in self._segments:
            self._segments.move_to_end(first)
            return self._segments[first]
        content = await _read(self._store, segment_key(first, last), MAX_SEGMENT)
        *lines, rest = content.split(b"\n")
        if rest or len(lines) != last - first + 1:
            raise EvidenceError(f"{segment_key(first, last)} has not the lines that it should have", hint=AUDIT)
        self._segments[first] = lines
        self._kept += len(content)
        while self._kept > SEGMENTS_KEPT and len(self._segments) > 1:
            _, gone = self._segments.popitem(last=False)
            self._kept -= sum(map(len, gone)) + len(gone)
        return lines
