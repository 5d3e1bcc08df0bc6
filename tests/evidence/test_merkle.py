"""The ledger's tree, held against one by other hands (pymerkle), and against everything that a proof could be changed to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pymerkle
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

MOST = 1_100
"""Sizes up to which every tree is compared: all shapes around 1,024, and those of eleven levels."""

LINES = [b'{"n":%d}' % number for number in range(MOST)]
LEAVES = [leaf_hash(line) for line in LINES]
TREE = Tree(LEAVES)
ROOTS = [TREE.root(size) for size in range(MOST + 1)]


@pytest.fixture(scope="module")
def other() -> pymerkle.InmemoryTree:
    """A tree of the same lines."""
    tree = pymerkle.InmemoryTree(algorithm="sha256", threshold=1)
    tree.append_entries(LINES)
    return tree


def inclusion_by(other: pymerkle.InmemoryTree, index: int, size: int) -> list[bytes]:
    """Its proof, which begins with the leaf and counts from one, as RFC 6962 has it."""
    proof = other.prove_inclusion(index + 1, size)
    assert proof.path[0] == LEAVES[index]
    return list(proof.path[1:])


def consistency_by(other: pymerkle.InmemoryTree, old: int, new: int) -> list[bytes]:
    """Its proof as RFC 6962 has it. Where the old tree ends between two subtrees it goes on into the right one, down to one leaf;
    and it keeps what the old root is, where that is a subtree itself.
    """
    proof = other.prove_consistency(old, new)
    path = list(proof.path)
    if not proof.subset[0]:
        deep = proof.subset.index(1)
        right = pymerkle.ConsistencyProof("sha256", True, new, old, proof.rule[:deep], proof.subset[:deep], path[:deep])
        path = [path[deep], right.compute_root(), *path[deep + 1 :]]
    return path if sum(proof.subset) > 1 else path[1:]


def compare(other: pymerkle.InmemoryTree, size: int, places: Sequence[int]) -> None:
    """All that is said of a size: these places as indexes of leaves, and the sizes one larger as old ones."""
    for place in places:
        included = TREE.inclusion_proof(place, size)
        assert included == inclusion_by(other, place, size), (place, size)
        assert verify_inclusion(LEAVES[place], place, size, included, ROOTS[size]), (place, size)
        old = place + 1
        consistent = TREE.consistency_proof(old, size)
        assert consistent == consistency_by(other, old, size), (old, size)
        assert verify_consistency(old, size, consistent, ROOTS[old], ROOTS[size]), (old, size)


def test_every_size_agrees_with_a_tree_by_other_hands(other: pymerkle.InmemoryTree) -> None:
    frontier = Frontier()
    chosen = random.Random(6962)
    assert frontier.root() == ROOTS[0] == EMPTY_ROOT == other.get_root(0)
    for size in range(1, MOST + 1):
        frontier.append(LEAVES[size - 1])
        assert frontier.root() == ROOTS[size] == other.get_root(size)
        assert frontier.size == size
        half = 1 << (size - 1).bit_length() >> 1
        places = [0, size - 1, size // 2, max(half - 1, 0), min(half, size - 1), chosen.randrange(size)]
        compare(other, size, places)
        assert TREE.consistency_proof(0, size) == []
        assert verify_consistency(0, size, [], EMPTY_ROOT, ROOTS[size])


@pytest.mark.thorough
@pytest.mark.once
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(8))
def test_every_proof_of_every_size_agrees_with_a_tree_by_other_hands(other: pymerkle.InmemoryTree, part: int) -> None:
    for size in range(1 + part, MOST + 1, 8):
        compare(other, size, range(size))


def test_the_examples_of_rfc_6962() -> None:
    """Its tree of seven leaves (2.1.3), and root and leaves that everybody's tests have of Certificate Transparency's."""
    inputs = [bytes.fromhex(each) for each in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )]  # fmt: skip
    leaves = [leaf_hash(each) for each in inputs]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaves[0].hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert Tree(leaves).root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    a, b, c, d, e, f, j = leaves[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, m = node_hash(g, h), node_hash(i, j)
    assert Tree(leaves).root(7) == node_hash(k, m)
    assert inclusion_proof(leaves, 0, 7) == [b, h, m]
    assert inclusion_proof(leaves, 3, 7) == [c, g, m]
    assert inclusion_proof(leaves, 4, 7) == [f, j, k]
    assert inclusion_proof(leaves, 6, 7) == [i, k]
    assert consistency_proof(leaves, 3, 7) == [c, d, g, m]
    assert consistency_proof(leaves, 4, 7) == [m]
    assert consistency_proof(leaves, 6, 7) == [i, j, k]


def altered(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Every flipped bit; a hash dropped, doubled or added at any place, two swapped, one cut, longer, moved over a border."""
    for place, hashed in enumerate(proof):
        for bit in range(256):
            flipped = (int.from_bytes(hashed, "big") ^ 1 << bit).to_bytes(32, "big")
            yield [*proof[:place], flipped, *proof[place + 1 :]]
        yield [*proof[:place], *proof[place + 1 :]]
        yield [*proof[:place], hashed, *proof[place:]]
        yield [*proof[:place], hashed[:-1], *proof[place + 1 :]]
        yield [*proof[:place], hashed + b"\0", *proof[place + 1 :]]
        if place:
            before = proof[place - 1]
            yield [*proof[: place - 1], before + hashed[:1], hashed[1:], *proof[place + 1 :]]
            if before != hashed:
                yield [*proof[: place - 1], hashed, before, *proof[place + 1 :]]
    for place in range(len(proof) + 1):
        for added in (bytes(32), EMPTY_ROOT, b""):
            yield [*proof[:place], added, *proof[place:]]


@pytest.mark.parametrize(("place", "size"), [(0, 1), (0, 2), (2, 3), (4, 7), (7, 8), (8, 9), (21, 41), (63, 64), (64, 65)])
def test_no_other_proof_counts(place: int, size: int) -> None:
    old, index = place + 1, place
    included, consistent = TREE.inclusion_proof(index, size), TREE.consistency_proof(old, size)
    for proof in altered(included):
        assert not verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])
    for proof in altered(consistent):
        assert not verify_consistency(old, size, proof, ROOTS[old], ROOTS[size])
    for leaf in (LEAVES[index + 1], b""):
        assert not verify_inclusion(leaf, index, size, included, ROOTS[size])
    for root in (ROOTS[size + 1], b""):
        assert not verify_inclusion(LEAVES[index], index, size, included, root)
    for other_root in (ROOTS[size + 1], EMPTY_ROOT, b""):
        assert not verify_consistency(old, size, consistent, ROOTS[old], other_root)
        assert not verify_consistency(old, size, consistent, other_root, ROOTS[size])


def test_no_proof_counts_for_another_place_or_size() -> None:
    """A proof does not tell the size by itself: some count for two, since an outer right edge has the same shape. What is fixed
    is the root: it is that of one size alone.
    """
    for size in range(1, 40):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            others = [at for at in range(-1, size + 2) if at != index]
            assert not any(verify_inclusion(LEAVES[index], at, size, proof, ROOTS[size]) for at in others)
            assert not any(
                verify_inclusion(LEAVES[index], index, size, proof, root) for at, root in enumerate(ROOTS[:80]) if at != size
            )
        for old in range(1, size):
            consistent = TREE.consistency_proof(old, size)
            for at, root in enumerate(ROOTS[:80]):
                assert at == size or not verify_consistency(old, size, consistent, ROOTS[old], root)
                assert at == old or not verify_consistency(old, size, consistent, root, ROOTS[size])


def test_impossible_sizes_are_none() -> None:
    root = ROOTS[5]
    assert not verify_inclusion(LEAVES[0], 0, 0, [], EMPTY_ROOT)
    assert not verify_inclusion(LEAVES[0], -1, 5, [], root)
    assert not verify_consistency(-1, 5, [], root, root)
    assert not verify_consistency(6, 5, [], ROOTS[6], root)
    assert not verify_consistency(5, 5, [LEAVES[0]], root, root)
    assert not verify_consistency(0, 0, [], root, root)
    assert not verify_consistency(0, 5, [], root, root)
    assert not verify_consistency(0, 5, [EMPTY_ROOT], EMPTY_ROOT, root)
    assert verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
    assert verify_consistency(5, 5, [], root, root)
    for index, size in ((0, 0), (5, 5), (-1, 5), (0, MOST + 1)):
        with pytest.raises(ValueError, match="no leaf"):
            TREE.inclusion_proof(index, size)
    for old, new in ((-1, 5), (6, 5), (0, MOST + 1)):
        with pytest.raises(ValueError, match="grew out of"):
            TREE.consistency_proof(old, new)
    for size in (-1, MOST + 1):
        with pytest.raises(ValueError, match="never had"):
            TREE.root(size)
    for tree in (Tree(), Frontier()):
        with pytest.raises(ValueError, match="32 bytes"):
            tree.append(b"short")


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(0, LEAVES[:1]), (1, []), (2, LEAVES[:2]), (3, LEAVES[:1]), (-1, LEAVES[:1]), (4, [b""]), (4, [bytes(33)]), (7, LEAVES[:4])],
)
def test_a_frontier_has_as_many_hashes_as_its_size_has_subtrees(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"subtrees|bytes"):
        Frontier(size, hashes)


@given(st.integers(0, MOST), st.integers(0, MOST))
@example(0, MOST)
@example(1_024, 1_025)
def test_a_frontier_that_was_kept_goes_on_equally(one: int, other: int) -> None:
    kept, size = sorted((one, other))
    frontier = Frontier()
    for leaf in LEAVES[:kept]:
        frontier.append(leaf)
    restored = Frontier(frontier.size, tuple(frontier.hashes))
    frontier.hashes.clear()  # a copy
    for leaf in LEAVES[kept:size]:
        restored.append(leaf)
    assert (restored.size, restored.root()) == (size, ROOTS[size])
    assert len(restored.hashes) == size.bit_count()


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=70), st.data())
def test_whatever_the_leaves_proofs_hold_for_them_alone(lines: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(line) for line in lines]
    tree = Tree(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    proof = inclusion_proof(leaves[:size], index, size)
    assert verify_inclusion(leaves[index], index, size, proof, tree.root(size))
    assert not verify_inclusion(leaf_hash(lines[index] + b"\n"), index, size, proof, tree.root(size))
    proof = consistency_proof(leaves[:size], old, size)
    assert verify_consistency(old, size, proof, tree.root(old), tree.root(size))
    changed = [*leaves[: old - 1], leaf_hash(lines[old - 1] + b"\n"), *leaves[old:]]
    assert not verify_consistency(old, size, proof, Tree(changed).root(old), tree.root(size))
    assert not verify_consistency(old, size, proof, tree.root(old), Tree(changed).root(size))


@given(
    st.integers(-2, 2**70), st.integers(-2, 2**70), st.lists(st.sampled_from([*LEAVES[:3], b"", bytes(31)]), max_size=5),
    st.sampled_from([*ROOTS[:4], b""]), st.sampled_from([*ROOTS[:4], b""]),
)  # fmt: skip
def test_verifying_never_raises(one: int, other: int, proof: list[bytes], left: bytes, right: bytes) -> None:
    verify_inclusion(left, one, other, proof, right)
    verify_consistency(one, other, proof, left, right)
