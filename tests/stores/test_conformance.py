"""What `archiver.stores` promises, held against every store."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import Callable
from datetime import timedelta

import pytest

from archiver.errors import KeyConflict, LeaseLost, StoreError
from archiver.stores import Saved, Store
from tests.stores.cancelled import CancelledAt, ended
from tests.stores.conftest import Bench

KEY = "bot=b/date=2026-01-02/s1/recording/a.wav"
PART = ".session-1.worker-2.epoch-3.part"
BODY = b"RIFF" + bytes(range(256)) * 40


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep(store: Store, data: bytes, key: str = KEY, *, part: str = PART, guard: Callable[[], None] | None = None) -> Saved:
    async with store.upload(key, part=part) as upload:
        await upload.write(data)
        return await upload.save(guard=guard)


async def content(store: Store, key: str = KEY) -> bytes:
    return b"".join([block async for block in store.read(key)])


async def test_what_is_saved_is_read_back_with_its_size_and_hash(bench: Bench) -> None:
    saved = await keep(bench.store, BODY)
    assert saved == Saved(KEY, len(BODY), sha256(BODY), existed=False)
    assert await content(bench.store) == BODY
    assert await bench.store.size(KEY) == len(BODY)
    assert bench.objects() == {KEY}


@pytest.mark.parametrize("sizes", [[0], [], [1], [1, 1024 * 1024 - 1, 1], [1024 * 1024, 1], [3_000_000, 0, 7]])
async def test_pieces_of_any_size_make_one_object(bench: Bench, sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with bench.store.upload(KEY, part=PART) as upload:
        for piece in pieces:
            await upload.write(piece)
        saved = await upload.save()
    whole = b"".join(pieces)
    assert (saved.bytes, saved.sha256) == (len(whole), sha256(whole))
    assert await content(bench.store) == whole


async def test_a_missing_object_has_no_size_and_cannot_be_read(bench: Bench) -> None:
    await keep(bench.store, BODY)
    for key in ("nothing.wav", "bot=b/nothing.wav", f"{KEY}/below-a-file.wav"):
        assert await bench.store.size(key) is None
        with pytest.raises(StoreError) as caught:
            await content(bench.store, key)
        assert caught.value.facts == {"store_key": key, "missing": True}


async def test_a_folder_is_no_object(bench: Bench) -> None:
    await keep(bench.store, BODY)
    assert await bench.store.size("bot=b") is None


async def test_nothing_is_visible_under_the_key_before_it_is_saved(bench: Bench) -> None:
    async with bench.store.upload(KEY, part=PART) as upload:
        for _ in range(3):
            await upload.write(bytes(1024 * 1024))
            assert await bench.store.size(KEY) is None
        assert KEY not in bench.objects()
        await upload.save()
        assert await bench.store.size(KEY) == 3 * 1024 * 1024


async def test_an_upload_that_is_left_unsaved_leaves_nothing(bench: Bench) -> None:
    async with bench.store.upload(KEY, part=PART) as upload:
        await upload.write(bytes(2_000_000))
    assert bench.objects() == set()


async def test_an_exception_leaves_nothing(bench: Bench) -> None:
    async def fail() -> None:
        async with bench.store.upload(KEY, part=PART) as upload:
            await upload.write(bytes(2_000_000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert bench.objects() == set()


async def test_an_equal_object_counts_as_saved(bench: Bench) -> None:
    first = await keep(bench.store, BODY)
    second = await keep(bench.store, BODY, part=".other.part")
    assert second == Saved(KEY, first.bytes, first.sha256, existed=True)
    assert bench.objects() == {KEY}


@pytest.mark.parametrize("other", [b"", BODY[:-1], BODY + b"\0", bytes(len(BODY))])
async def test_an_unequal_object_is_a_conflict_and_stays_as_it_is(bench: Bench, other: bytes) -> None:
    await keep(bench.store, BODY)
    with pytest.raises(KeyConflict) as caught:
        await keep(bench.store, other)
    assert caught.value.facts == {
        "store_key": KEY,
        "stored_sha256": sha256(BODY),
        "stored_bytes": len(BODY),
        "sha256": sha256(other),
        "bytes": len(other),
    }
    assert bench.get(KEY) == BODY
    assert bench.objects() == {KEY}


async def test_a_body_can_be_saved_under_another_key_after_a_conflict(bench: Bench) -> None:
    await keep(bench.store, BODY)
    async with bench.store.upload(KEY, part=PART) as upload:
        await upload.write(b"other")
        with pytest.raises(KeyConflict):
            await upload.save()
        saved = await upload.save("quarantine/s1/3-a.wav")
    assert saved == Saved("quarantine/s1/3-a.wav", 5, sha256(b"other"))
    assert bench.objects() == {KEY, "quarantine/s1/3-a.wav"}
    assert bench.get("quarantine/s1/3-a.wav") == b"other"


@pytest.mark.parametrize("count", [2, 12])
async def test_of_equal_uploads_at_once_one_is_stored_and_the_others_find_it(bench: Bench, count: int) -> None:
    saved = await asyncio.gather(*(keep(bench.store, BODY, part=f".{n}.part") for n in range(count)))
    assert sorted(one.existed for one in saved) == [False] + [True] * (count - 1)
    assert bench.objects() == {KEY}


async def test_of_unequal_uploads_at_once_exactly_one_wins(bench: Bench) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(12)]
    ends = await asyncio.gather(
        *(keep(bench.store, body, part=f".{n}.part") for n, body in enumerate(bodies)), return_exceptions=True
    )
    winners = [end for end in ends if isinstance(end, Saved)]
    assert len(winners) == 1
    assert all(isinstance(end, KeyConflict) for end in ends if end is not winners[0])
    assert sha256(bench.get(KEY)) == winners[0].sha256
    assert bench.objects() == {KEY}


async def test_uploads_of_many_keys_in_one_new_folder_do_not_disturb_each_other(bench: Bench) -> None:
    keys = [f"bot=b/date=2026-01-02/s{number}/recording/a.wav" for number in range(40)]
    await asyncio.gather(*(keep(bench.store, key.encode(), key) for key in keys))
    assert {key: bench.get(key) for key in keys} == {key: key.encode() for key in keys}
    assert bench.objects() == set(keys)


async def test_a_guard_that_raises_prevents_the_key(bench: Bench) -> None:
    def guard() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        await keep(bench.store, BODY, guard=guard)
    assert bench.objects() == set()


async def test_the_guard_is_asked_in_the_last_moment(bench: Bench) -> None:
    seen: list[set[str]] = []
    await keep(bench.store, BODY, guard=lambda: seen.append(bench.objects()))
    assert len(seen) == 1
    assert KEY not in seen[0]
    assert len(seen[0]) <= 1  # its temporary object, where the store has one that can be seen


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", ".", "a/./b", "a\0b", "a\\b", "..", "a/\ud800.wav"],
)
async def test_a_key_that_could_lead_outside_is_refused(bench: Bench, key: str) -> None:
    with pytest.raises(StoreError):
        await keep(bench.store, BODY, key)
    with pytest.raises(StoreError):
        await bench.store.size(key)
    with pytest.raises(StoreError):
        await content(bench.store, key)
    with pytest.raises(StoreError):
        await bench.store.discard(key, part=PART, left_for=timedelta(0))
    await keep(bench.store, BODY)
    with pytest.raises(StoreError):
        async with bench.store.upload(KEY, part=".b.part") as upload:
            await upload.save(key or "/")


@pytest.mark.parametrize("part", ["a.wav", ".part-of-a.wav", "a.part", "", ".x/../../a.part", ".a\0.part"])
async def test_only_a_temporary_name_is_taken_for_one(bench: Bench, part: str) -> None:
    await keep(bench.store, BODY)
    with pytest.raises(StoreError):
        await bench.store.discard(KEY, part=part, left_for=timedelta(0))
    with pytest.raises(StoreError):
        await keep(bench.store, BODY, KEY + "2", part=part)
    assert bench.objects() == {KEY}


async def test_discard_removes_the_leftover_beside_its_key_and_nothing_else(bench: Bench) -> None:
    await keep(bench.store, BODY)
    folder = KEY.rpartition("/")[0]
    bench.put(f"{folder}/{PART}", b"half")
    bench.put(f"{folder}/.another.part", b"half")
    assert await bench.store.discard(KEY, part=PART, left_for=timedelta(0)) is True
    assert await bench.store.discard(KEY, part=PART, left_for=timedelta(0)) is False
    assert await bench.store.discard("no/such/folder/a.wav", part=PART, left_for=timedelta(0)) is False
    assert bench.objects() == {KEY, f"{folder}/.another.part"}


async def test_a_temporary_object_of_somebody_else_is_in_nobodys_way_and_neither_used_nor_removed(bench: Bench) -> None:
    folder = KEY.rpartition("/")[0]
    bench.put(f"{folder}/{PART}", b"theirs")
    await keep(bench.store, BODY)
    assert bench.objects() == {KEY, f"{folder}/{PART}"}
    assert bench.get(f"{folder}/{PART}") == b"theirs"


async def test_check_tries_everything_and_leaves_nothing(bench: Bench) -> None:
    assert await bench.store.check()
    assert bench.objects() == set()
    free = await bench.store.free()
    assert free is None or free > 0


async def _three_megabytes(store: Store) -> None:
    async with store.upload(KEY, part=PART) as upload:
        for _ in range(3):
            await upload.write(bytes(1024 * 1024))
        await upload.save()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancellation_at_any_moment_leaves_the_whole_object_or_nothing(bench: Bench, times: int) -> None:
    """Cancelled at the first suspension, then at the second ... up to the last one: none may leave a part of anything."""
    seen: set[str] = set()
    for moment in range(1000):
        run = CancelledAt(_three_megabytes(bench.store), set(range(moment, moment + times)))
        end = await ended(run)
        left = bench.objects()
        if end is None:
            assert moment >= run.suspensions
            break
        assert isinstance(end, asyncio.CancelledError)
        assert left <= {KEY}
        if left:
            assert bench.get(KEY) == bytes(3 * 1024 * 1024)
            bench.remove(KEY)
        seen.add("kept" if left else "nothing")
    assert bench.objects() == {KEY}
    assert seen == {"kept", "nothing"}


async def test_a_hundred_megabytes_go_through_in_constant_memory(bench: Bench) -> None:
    piece = bytes(256 * 1024)
    tracemalloc.start()
    try:
        async with bench.store.upload(KEY, part=PART) as upload:
            for _ in range(400):
                await upload.write(piece)
            saved = await upload.save()
        read = 0
        async for block in bench.store.read(KEY):
            read += len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert saved.bytes == read == 400 * len(piece)
    assert peak < bench.peak or not bench.peak  # a store in memory has to hold all of it
