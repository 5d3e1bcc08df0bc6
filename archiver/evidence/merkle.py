"""The Merkle tree of the ledger, as RFC 6962 and RFC 9162 have it, with SHA-256: roots, and proofs that an entry is in a tree,
and that one tree grew out of another. Whatever an entry is, its leaf's hash is 32 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32

TILE = 256
"""Leaves of a tile: tile n has those from n * TILE on. A proof needs those of its own tile, and the roots of the others."""

EMPTY_ROOT = hashlib.sha256().digest()
"""The root of a tree without leaves."""


def leaf_hash(line: bytes) -> bytes:
    """Of an entry: its line, without the newline."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of the node over two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """What of a tree of `size` leaves is needed to go on: `hashes`, the roots of its perfect subtrees, the largest first. One
    that was kept goes on as the tree would have; raises ValueError where size and hashes do not fit each other. `tiles` are the
    roots of the tiles, by their number, that became whole since.
    """

    __slots__ = ("_hashes", "_size", "tiles")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self._size = size
        self.tiles: dict[int, bytes] = {}
        self._hashes = [bytes(each) for each in hashes]
        if size < 0 or len(self._hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves does not have {len(self._hashes)} perfect subtrees")
        if not all(map(_is_hash, self._hashes)):
            raise ValueError(f"a hash of a tree has {HASH_BYTES} bytes")

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def hashes(self) -> list[bytes]:
        """To be kept: with the size they make another one."""
        return list(self._hashes)

    def append(self, leaf: bytes) -> None:
        """One leaf more, by its hash."""
        if not _is_hash(leaf):
            raise ValueError(f"a leaf's hash has {HASH_BYTES} bytes")
        size, leaves = self._size, 1
        while size & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            size >>= 1
            leaves <<= 1
            if leaves == TILE:
                self.tiles[self._size // TILE] = leaf
        self._hashes.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """Of the tree as it is now."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root


class Tree:
    """A whole tree in memory, 64 bytes a leaf: roots and proofs of it as it is, and as it was at any smaller size, each for a few
    dozen hashes at most.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        # Level n has the roots of all perfect subtrees of 2^n leaves, one after another.
        self._levels = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        """One leaf more, by its hash."""
        if not _is_hash(leaf):
            raise ValueError(f"a leaf's hash has {HASH_BYTES} bytes")
        level = 0
        self._levels[0] += leaf
        while len(self._levels[level]) % (2 * HASH_BYTES) == 0:
            leaf = node_hash(bytes(self._levels[level][-2 * HASH_BYTES : -HASH_BYTES]), leaf)
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += leaf

    def root(self, size: int | None = None) -> bytes:
        """Of the first `size` leaves; of all."""
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise ValueError(f"a tree of {len(self)} leaves never had {size}")
        return self._root(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """That the leaf at `index` is in the tree of the first `size` leaves."""
        size = len(self) if size is None else size
        if not 0 <= index < size <= len(self):
            raise ValueError(f"no leaf {index} in a tree of {size} leaves, out of {len(self)}")
        begin, end = 0, size
        proof = []
        while end - begin > 1:
            middle = begin + _split(end - begin)
            if index < middle:
                proof.append(self._root(middle, end))
                end = middle
            else:
                proof.append(self._root(begin, middle))
                begin = middle
        return proof[::-1]

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """That the tree of the first `new` leaves grew out of that of the first `old` ones. Empty for equal sizes, and for an old
        one of 0, out of which every tree grew.
        """
        new = len(self) if new is None else new
        if not 0 <= old <= new <= len(self):
            raise ValueError(f"no tree of {new} leaves, out of {len(self)}, grew out of one of {old}")
        if old in (0, new):
            return []
        begin, end = 0, new
        proof = []
        while end != old:
            middle = begin + _split(end - begin)
            if old <= middle:
                proof.append(self._root(middle, end))
                end = middle
            else:
                proof.append(self._root(begin, middle))
                begin = middle
        if begin:
            proof.append(self._root(begin, end))
        return proof[::-1]

    def _root(self, begin: int, end: int) -> bytes:
        """Of a part that a tree is split into, or a whole one: so it begins where a perfect subtree of its size would."""
        right: bytes | None = None
        while True:
            # What is left over at the end is the smallest perfect subtree; all before it are larger.
            width = (end - begin) & (begin - end)
            level = width.bit_length() - 1
            at = ((end - width) >> level) * HASH_BYTES
            left = bytes(self._levels[level][at : at + HASH_BYTES])
            right = left if right is None else node_hash(left, right)
            end -= width
            if end == begin:
                return right


def inclusion_proof(leaves: Iterable[bytes], index: int, size: int) -> list[bytes]:
    """That the leaf at `index` is in the tree of the first `size` ones. `leaves` are hashes. For many proofs of a ledger make one
    `Tree` of it. Raises ValueError where there is no such leaf.
    """
    return Tree(leaves).inclusion_proof(index, size)


def consistency_proof(leaves: Iterable[bytes], old: int, new: int) -> list[bytes]:
    """That the tree of the first `new` leaves grew out of that of the first `old` ones. Raises ValueError for other sizes."""
    return Tree(leaves).consistency_proof(old, new)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that the leaf with this hash is the one at `index` of the tree with this size and root. Never raises:
    a proof that is too long, too short or of other hashes is none.
    """
    if not (0 <= index < size and all(map(_is_hash, (leaf, root, *proof)))):
        return False
    place, last = index, size - 1
    for hashed in proof:
        if not last:
            return False
        if place & 1 or place == last:
            leaf = node_hash(hashed, leaf)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            leaf = node_hash(leaf, hashed)
        place >>= 1
        last >>= 1
    return not last and leaf == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether `proof` shows that the tree with the new size and root grew out of that with the old ones. Never raises."""
    if not (0 <= old <= new and all(map(_is_hash, (old_root, new_root, *proof)))):
        return False
    if old == new:
        return not proof and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if not old:
        return not proof and old_root == EMPTY_ROOT
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    # An old tree that is perfect is itself what the proof begins with.
    hashes = [*proof] if place else [old_root, *proof]
    if not hashes:
        return False
    before = after = hashes[0]
    for hashed in hashes[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            before, after = node_hash(hashed, before), node_hash(hashed, after)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            after = node_hash(after, hashed)
        place >>= 1
        last >>= 1
    return not last and before == old_root and after == new_root


def _is_hash(value: bytes) -> bool:
    return len(value) == HASH_BYTES


def _split(size: int) -> int:
    """How many of `size` leaves, at least two, are left of the root: the largest power of two below."""
    return 1 << ((size - 1).bit_length() - 1)
