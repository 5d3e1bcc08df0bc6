"""How far the ledger goes, and what its parts are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from archiver.evidence.audit.fetching import Fetched
from archiver.evidence.entries import Entry
from archiver.evidence.keys import PublicKey
from archiver.evidence.objects import segment_key

NEWEST = 3
"""Segments whose records are always read."""


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


@dataclass(frozen=True, slots=True)
class Tree:
    """The ledger up to the end of a segment whose checkpoint, or claim, is right: `text`, which says `root`, and `signer` signed.
    `signers` keys were named by then, the last one is `key`; `frontier` and `tiles` are what it needs to grow, and to be proven.
    """

    first: int
    size: int
    root: bytes
    text: bytes
    key: PublicKey
    signer: PublicKey
    signers: int
    frontier: list[bytes]
    tiles: dict[int, bytes]


@dataclass
class Reached:
    """How far the ledger goes. `size`: entries up to the end of the last segment; `published`: up to the last checkpoint
    that is right; `seen`: up to the last that is there; `origin`: as the first checkpoint has it; `gone`: checkpoints that are
    not there; `since_root`: the root at the size of the checkpoint that was kept elsewhere; `broken`: what follows a gap, or
    entries that are not what was sealed, has no root that could be told; `named`: the `key` entries, in order; `newest`: with
    which entries the newest segments begin; `whole`: as far as nothing is wrong, up to the last checkpoint; `claimed`: what
    follows it, of which there is no checkpoint yet; `base_root`: the root at the size from which a database is rebuilt.
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
    whole: Tree | None = None
    claimed: Tree | None = None
    base_root: bytes | None = None
