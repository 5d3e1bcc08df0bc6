"""Proofs at scale: against an independent verifier, at every border of tiles, whatever the database knows of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pymerkle
import pytest

from archiver.errors import EvidenceError
from archiver.evidence import proving
from archiver.evidence.checkpoints import Checkpoint
from archiver.evidence.merkle import TILE, Frontier, leaf_hash
from archiver.evidence.objects import segment_key
from archiver.evidence.proving import Proofs
from archiver.queue.exports import Exports
from archiver.queue.ledger import Ledger
from tests.evidence.sealing import SealedArchive, sealed_archive


class Kept:
    """A ledger of plain lines in segments, in place of a store and of the database's rows."""

    def __init__(self, size: int, segment: int) -> None:
        self.lines = [b"entry %d" % index for index in range(size)]
        self.bounds = [(first, min(first + segment, size) - 1) for first in range(0, size, segment)]
        self.frontier = Frontier()
        for line in self.lines:
            self.frontier.append(leaf_hash(line))
        self.reads = 0

    async def segments(self, first: int, last: int) -> AsyncGenerator[list[tuple[int, int]]]:
        found = [(begin, end) for begin, end in self.bounds if begin <= last and end >= first]
        for page in range(0, len(found), 100):
            yield found[page : page + 100]

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        self.reads += 1
        ((begin, end),) = [bounds for bounds in self.bounds if segment_key(*bounds) == key]
        yield b"".join(line + b"\n" for line in self.lines[begin : end + 1])

    async def proofs(self, tiles: Mapping[int, bytes]) -> Proofs:
        checkpoint = Checkpoint("o", len(self.lines), self.frontier.root())
        kept: Any = self
        return await Proofs.of(kept, kept, checkpoint, tiles)


SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 767, 768, 769, 1023, 1024, 1025, 3000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", ["all", "none", "some", "wrong"])
async def test_proofs_are_those_of_an_independent_tree(size: int, known: str) -> None:
    ledger = Kept(size, 1 + size // 7)
    tiles = dict(ledger.frontier.tiles)
    assert len(tiles) == size // TILE
    match known:
        case "none":
            tiles = {}
        case "some":
            tiles = {tile: root for tile, root in tiles.items() if tile % 3 == 1}
        case "wrong":
            tiles |= {0: bytes(32), 10**6: bytes(32), 1: b"short"}
    proofs = await ledger.proofs(tiles)
    tree = pymerkle.InmemoryTree(algorithm="sha256", threshold=1)
    tree.append_entries(ledger.lines)
    assert tree.get_root(size) == ledger.frontier.root()
    indexes = {0, size // 2, size - 1, *(at for border in range(0, size, TILE) for at in (border - 1, border, border + 1))}
    indexes = {index for index in indexes if 0 <= index < size}
    made = await proofs.prove(indexes)
    assert set(made) == indexes
    for index, proof in made.items():
        assert proof.line == ledger.lines[index]
        theirs = tree.prove_inclusion(index + 1, size)
        assert [leaf_hash(proof.line), *proof.hashes] == list(theirs.path)
        pymerkle.verify_inclusion(leaf_hash(proof.line), tree.get_root(size), theirs)


async def test_each_segment_is_read_once_for_all_that_is_proven_of_it() -> None:
    ledger = Kept(4000, 1000)
    proofs = await ledger.proofs(ledger.frontier.tiles)
    assert ledger.reads == 1  # of the last tile, which is not whole
    await proofs.prove(range(0, 1790, 7))
    assert ledger.reads == 3


async def test_memory_is_bounded_whatever_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "TILES_KEPT", 2)
    monkeypatch.setattr(proving, "SEGMENTS_KEPT", 5000)
    ledger = Kept(3000, 100)
    proofs = await ledger.proofs({})
    for index in (*range(0, 3000, 501), *range(2999, 0, -499)):
        assert (await proofs.prove([index]))[index].line == b"entry %d" % index
    assert len(proofs._leaves) == 2
    assert sum(len(line) + 1 for lines in proofs._segments.values() for line in lines) <= 5000


async def test_what_is_not_what_was_sealed_is_refused() -> None:
    ledger = Kept(1000, 100)
    proofs = await ledger.proofs(ledger.frontier.tiles)
    ledger.lines[300] = b"another"
    with pytest.raises(EvidenceError, match="entry 300 is not the one") as refused:
        await proofs.prove([300])
    assert "archiver audit" in refused.value.hint
    with pytest.raises(EvidenceError, match="not the one"):
        await proofs.prove([301])
    with pytest.raises(EvidenceError, match="do not have the root"):
        await ledger.proofs({})
    ledger.bounds.remove((400, 499))
    with pytest.raises(EvidenceError, match="no segment that has entry 400"):
        await ledger.proofs({})


async def test_tiles_of_the_database_are_used_and_can_be_missing(database_url: str, tmp_path: Any) -> None:
    async with sealed_archive(database_url, tmp_path) as archive:
        await _grow(archive, 700)
        head = await archive.ledger.head()
        assert head is not None
        checkpoint = Checkpoint(head.origin, head.published, head.root)
        tiles = await Ledger(archive.database).tiles()
        assert set(tiles) == {0, 1}
        for known in (tiles, {}):
            proofs = await Proofs.of(Exports(archive.database), archive.store, checkpoint, known)
            made = await proofs.prove([0, 255, 256, 511, 512, head.published - 1])
            assert len(made) == 6


async def _grow(archive: SealedArchive, entries: int) -> None:
    await archive.begin()
    await archive.fetch(
        "INSERT INTO archive_ledger_outbox (event, body) "
        "SELECT 'noted', jsonb_build_object('object_sha256', repeat('0', 64), 'bytes', n, 'by', 'ana') "
        f"FROM generate_series(1, {entries}) n"
    )
    await archive.sealer.finish()
