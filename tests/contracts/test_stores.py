"""What `archiver.stores` promises, held against every store."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.errors import KeyConflict, LeaseLost, StoreError
from archiver.stores import Digest, Saved, Store
from tests.stores.cancelled import CancelledAt, ended
from tests.stores.harnesses import AzureHarness, LocalHarness, MemoryHarness, S3Harness, StoreHarness, azure_harness, s3_harness

KEY = "bot=b/date=2026-01-02/s1/recording/a.wav"
PART = ".session-1.worker-2.epoch-3.part"
BODY = b"RIFF" + bytes(range(256)) * 40


@pytest.fixture(
    params=[
        "local",
        "memory",
        pytest.param("seaweedfs", marks=pytest.mark.once),
        pytest.param("azurite", marks=pytest.mark.once),
        pytest.param("localstack", marks=[pytest.mark.once, pytest.mark.thorough]),
    ]
)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreHarness]:
    """Each store in turn, empty. A new store joins the suite here."""
    match request.param:
        case "local":
            yield LocalHarness(tmp_path / "store")
        case "memory":
            yield MemoryHarness()
        case "azurite":
            async with azure_harness(request.getfixturevalue("azurite")) as container:
                yield container
        case server:
            async with s3_harness(request.getfixturevalue(server)) as bucket:
                yield bucket


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep(store: Store, data: bytes, key: str = KEY, *, part: str = PART, guard: Callable[[], None] | None = None) -> Saved:
    async with store.upload(key, part=part) as upload:
        await upload.write(data)
        return await upload.save(guard=guard)


async def content(store: Store, key: str = KEY) -> bytes:
    return b"".join([block async for block in store.read(key)])


async def test_what_is_saved_is_read_back_with_its_size_and_hash(harness: StoreHarness) -> None:
    saved = await keep(harness.store, BODY)
    assert saved == Saved(KEY, len(BODY), sha256(BODY), existed=False)
    assert await content(harness.store) == BODY
    assert await harness.store.size(KEY) == len(BODY)
    assert harness.objects() == {KEY}


@pytest.mark.parametrize("sizes", [[0], [], [1], [1, 1024 * 1024 - 1, 1], [1024 * 1024, 1], [3_000_000, 0, 7]])
async def test_pieces_of_any_size_make_one_object(harness: StoreHarness, sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with harness.store.upload(KEY, part=PART) as upload:
        for piece in pieces:
            await upload.write(piece)
        saved = await upload.save()
    whole = b"".join(pieces)
    assert (saved.bytes, saved.sha256) == (len(whole), sha256(whole))
    assert await content(harness.store) == whole


async def test_a_missing_object_has_no_size_and_cannot_be_read(harness: StoreHarness) -> None:
    await keep(harness.store, BODY)
    for key in ("nothing.wav", "bot=b/nothing.wav", f"{KEY}/below-a-file.wav"):
        assert await harness.store.size(key) is None
        with pytest.raises(StoreError) as caught:
            await content(harness.store, key)
        assert caught.value.facts == {"store_key": key, "missing": True}


async def test_digests_come_in_the_order_of_the_objects_whatever_is_wrong_with_some(harness: StoreHarness) -> None:
    store, long = harness.store, bytes(range(256)) * 12_000
    bodies = {"a/whole": BODY, "a/long": long, "b/longer": BODY + b"more", "b/shorter": BODY[:-1], "c/empty": b""}
    for key, body in bodies.items():
        harness.put(key, body)
    wanted = [(key, len(long) if key == "a/long" else len(BODY)) for key in bodies]
    wanted[2:2] = [("a/missing", 5), ("../outside", 5)]
    paid: list[int] = []

    async def pay(size: int) -> None:
        paid.append(size)

    for found in (await store.digests(wanted), await store.digests(wanted, pay)):
        told = dict(zip((key for key, _ in wanted), found, strict=True))
        missing, outside, longer = (told.pop(key) for key in ("a/missing", "../outside", "b/longer"))
        assert isinstance(missing, StoreError)
        assert missing.facts["missing"]
        assert isinstance(outside, StoreError)
        assert "missing" not in outside.facts
        assert isinstance(longer, Digest)
        assert longer.sha256 is None
        assert longer.bytes > len(BODY)
        assert told == {key: Digest(len(bodies[key]), sha256(bodies[key])) for key in told}
    assert sum(paid) == sum(each.bytes for each in found if isinstance(each, Digest))
    assert await store.digests([]) == []
    at_once = store.at_once()
    assert min(at_once.calls, at_once.small) >= 1


async def test_a_folder_is_no_object(harness: StoreHarness) -> None:
    await keep(harness.store, BODY)
    assert await harness.store.size("bot=b") is None


async def test_nothing_is_visible_under_the_key_before_it_is_saved(harness: StoreHarness) -> None:
    async with harness.store.upload(KEY, part=PART) as upload:
        for _ in range(3):
            await upload.write(bytes(1024 * 1024))
            assert await harness.store.size(KEY) is None
        assert KEY not in harness.objects()
        await upload.save()
        assert await harness.store.size(KEY) == 3 * 1024 * 1024


async def test_an_upload_that_is_left_unsaved_leaves_nothing(harness: StoreHarness) -> None:
    async with harness.store.upload(KEY, part=PART) as upload:
        await upload.write(bytes(2_000_000))
    assert harness.objects() == set()


async def test_an_exception_leaves_nothing(harness: StoreHarness) -> None:
    async def fail() -> None:
        async with harness.store.upload(KEY, part=PART) as upload:
            await upload.write(bytes(2_000_000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert harness.objects() == set()


async def test_an_equal_object_counts_as_saved(harness: StoreHarness) -> None:
    first = await keep(harness.store, BODY)
    second = await keep(harness.store, BODY, part=".other.part")
    assert second == Saved(KEY, first.bytes, first.sha256, existed=True)
    assert harness.objects() == {KEY}


@pytest.mark.parametrize("other", [b"", BODY[:-1], BODY + b"\0", bytes(len(BODY))])
async def test_an_unequal_object_is_a_conflict_and_stays_as_it_is(harness: StoreHarness, other: bytes) -> None:
    await keep(harness.store, BODY)
    with pytest.raises(KeyConflict) as caught:
        await keep(harness.store, other)
    assert caught.value.facts == {
        "store_key": KEY,
        "stored_sha256": sha256(BODY),
        "stored_bytes": len(BODY),
        "sha256": sha256(other),
        "bytes": len(other),
    }
    assert harness.get(KEY) == BODY
    assert harness.objects() == {KEY}


async def test_a_body_can_be_saved_under_another_key_after_a_conflict(harness: StoreHarness) -> None:
    await keep(harness.store, BODY)
    async with harness.store.upload(KEY, part=PART) as upload:
        await upload.write(b"other")
        with pytest.raises(KeyConflict):
            await upload.save()
        saved = await upload.save("quarantine/s1/3-a.wav")
    assert saved == Saved("quarantine/s1/3-a.wav", 5, sha256(b"other"))
    assert harness.objects() == {KEY, "quarantine/s1/3-a.wav"}
    assert harness.get("quarantine/s1/3-a.wav") == b"other"


@pytest.mark.parametrize("count", [2, 12])
async def test_of_equal_uploads_at_once_one_is_stored_and_the_others_find_it(harness: StoreHarness, count: int) -> None:
    saved = await asyncio.gather(*(keep(harness.store, BODY, part=f".{n}.part") for n in range(count)))
    assert sorted(one.existed for one in saved) == [False] + [True] * (count - 1)
    assert harness.objects() == {KEY}


async def test_of_unequal_uploads_at_once_exactly_one_wins(harness: StoreHarness) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(12)]
    ends = await asyncio.gather(
        *(keep(harness.store, body, part=f".{n}.part") for n, body in enumerate(bodies)), return_exceptions=True
    )
    winners = [end for end in ends if isinstance(end, Saved)]
    assert len(winners) == 1
    assert all(isinstance(end, KeyConflict) for end in ends if end is not winners[0])
    assert sha256(harness.get(KEY)) == winners[0].sha256
    assert harness.objects() == {KEY}


async def test_uploads_of_many_keys_in_one_new_folder_do_not_disturb_each_other(harness: StoreHarness) -> None:
    keys = [f"bot=b/date=2026-01-02/s{number}/recording/a.wav" for number in range(40)]
    await asyncio.gather(*(keep(harness.store, key.encode(), key) for key in keys))
    assert {key: harness.get(key) for key in keys} == {key: key.encode() for key in keys}
    assert harness.objects() == set(keys)


async def test_a_guard_that_raises_prevents_the_key(harness: StoreHarness) -> None:
    def guard() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        await keep(harness.store, BODY, guard=guard)
    assert harness.objects() == set()


async def test_the_guard_is_asked_in_the_last_moment(harness: StoreHarness) -> None:
    seen: list[set[str]] = []
    await keep(harness.store, BODY, guard=lambda: seen.append(harness.objects()))
    assert len(seen) == 1
    assert KEY not in seen[0]
    assert len(seen[0]) <= 1  # its temporary object, where the store has one that can be seen


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", ".", "a/./b", "a\0b", "a\\b", "..", "a/\ud800.wav"],
)
async def test_a_key_that_could_lead_outside_is_refused(harness: StoreHarness, key: str) -> None:
    with pytest.raises(StoreError):
        await keep(harness.store, BODY, key)
    with pytest.raises(StoreError):
        await harness.store.size(key)
    with pytest.raises(StoreError):
        await content(harness.store, key)
    with pytest.raises(StoreError):
        await harness.store.discard(key, part=PART, left_for=timedelta(0))
    await keep(harness.store, BODY)
    with pytest.raises(StoreError):
        async with harness.store.upload(KEY, part=".b.part") as upload:
            await upload.save(key or "/")


@pytest.mark.parametrize("part", ["a.wav", ".part-of-a.wav", "a.part", "", ".x/../../a.part", ".a\0.part"])
async def test_only_a_temporary_name_is_taken_for_one(harness: StoreHarness, part: str) -> None:
    await keep(harness.store, BODY)
    with pytest.raises(StoreError):
        await harness.store.discard(KEY, part=part, left_for=timedelta(0))
    with pytest.raises(StoreError):
        await keep(harness.store, BODY, KEY + "2", part=part)
    assert harness.objects() == {KEY}


async def test_discard_removes_the_leftover_beside_its_key_and_nothing_else(harness: StoreHarness) -> None:
    await keep(harness.store, BODY)
    folder = KEY.rpartition("/")[0]
    harness.put(f"{folder}/{PART}", b"half")
    harness.put(f"{folder}/.another.part", b"half")
    assert await harness.store.discard(KEY, part=PART, left_for=timedelta(0)) is True
    assert await harness.store.discard(KEY, part=PART, left_for=timedelta(0)) is False
    assert await harness.store.discard("no/such/folder/a.wav", part=PART, left_for=timedelta(0)) is False
    assert harness.objects() == {KEY, f"{folder}/.another.part"}


async def test_a_temporary_object_of_somebody_else_is_in_nobodys_way_and_neither_used_nor_removed(harness: StoreHarness) -> None:
    folder = KEY.rpartition("/")[0]
    harness.put(f"{folder}/{PART}", b"theirs")
    await keep(harness.store, BODY)
    assert harness.objects() == {KEY, f"{folder}/{PART}"}
    assert harness.get(f"{folder}/{PART}") == b"theirs"


async def test_check_tries_everything_and_leaves_nothing(harness: StoreHarness) -> None:
    assert await harness.store.check()
    assert harness.objects() == set()
    free = await harness.store.free()
    assert free is None or free > 0


async def _three_megabytes(store: Store) -> None:
    async with store.upload(KEY, part=PART) as upload:
        for _ in range(3):
            await upload.write(bytes(1024 * 1024))
        await upload.save()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancellation_at_any_moment_leaves_the_whole_object_or_nothing(harness: StoreHarness, times: int) -> None:
    """Cancelled at the first suspension, then at the second ... up to the last one: none may leave a part of anything."""
    seen: set[str] = set()
    for _ in ("a store that tries its server first", "one that has"):
        for left in harness.objects():
            harness.remove(left)
        for moment in range(1000):
            run = CancelledAt(_three_megabytes(harness.store), set(range(moment, moment + times)))
            end = await ended(run)
            found = harness.objects()
            if end is None:
                assert moment >= run.suspensions
                break
            assert isinstance(end, asyncio.CancelledError)
            assert found <= {KEY}
            if found:
                assert harness.get(KEY) == bytes(3 * 1024 * 1024)
                harness.remove(KEY)
            seen.add("kept" if found else "nothing")
        assert harness.objects() == {KEY}
    assert seen == {"kept", "nothing"}


async def test_a_hundred_megabytes_go_through_in_constant_memory(harness: StoreHarness) -> None:
    piece = bytes(256 * 1024)
    tracemalloc.start()
    try:
        async with harness.store.upload(KEY, part=PART) as upload:
            for _ in range(400):
                await upload.write(piece)
            saved = await upload.save()
        read = 0
        async for block in harness.store.read(KEY):
            read += len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert saved.bytes == read == 400 * len(piece)
    assert peak < harness.peak or not harness.peak  # a store in memory has to hold all of it


async def test_it_is_empty_until_something_is_kept_whatever_its_trials_left(harness: StoreHarness) -> None:
    assert await harness.store.empty()
    await harness.store.check()
    harness.put(f".check-{PART}", b"left by a trial")
    assert await harness.store.empty()
    await keep(harness.store, BODY)
    assert not await harness.store.empty()


async def test_the_longest_name_can_be_kept_and_a_longer_one_not(harness: StoreHarness) -> None:
    longest = await harness.store.longest_name()
    if longest is None:
        return  # whole keys alone have a limit
    await keep(harness.store, BODY, "folder/" + "n" * longest)
    with pytest.raises(StoreError):
        await keep(harness.store, BODY, "folder/" + "n" * (longest + 1))
    assert harness.objects() == {"folder/" + "n" * longest}


async def listed(store: Store, prefix: str = "") -> list[str]:
    return [each.key async for each in store.list(prefix)]


IN_ORDER = [
    "A", "a b/ü&'\"+%2F.wav", "a-b", "a.wav", "a/0.wav", "a/b/c/d.wav", "a/b0", "a/b~1", "a0", "evidence/claim/000000000001",
    "evidence/claim/000000000010", "é/1", "ÿ/2", "\ufffd", "\U0001f600.wav",
]  # fmt: skip


def order_of(harness: StoreHarness) -> Callable[[str], bytes]:
    """Bytes of UTF-8; but Azure goes by UTF-16, and SeaweedFS folder by folder."""
    if isinstance(harness, AzureHarness):
        return lambda key: key.encode("utf-16-be")
    if isinstance(harness, S3Harness) and harness.server.name == "seaweedfs":
        return lambda key: key.encode().replace(b"/", b"\0")
    return str.encode


async def test_a_listing_has_every_object_once_in_the_order_of_keys(harness: StoreHarness) -> None:
    assert await listed(harness.store) == []
    for key in reversed(IN_ORDER):
        harness.put(key, key.encode())
    found = [each async for each in harness.store.list()]
    assert sorted(IN_ORDER, key=str.encode) == IN_ORDER
    assert [each.key for each in found] == sorted(IN_ORDER, key=order_of(harness))
    assert all(each.bytes == len(each.key.encode()) for each in found)
    assert all(each.latest and not each.deleted and each.modified.utcoffset() == timedelta(0) for each in found)
    now = datetime.now(UTC)
    assert all(abs(now - each.modified) < timedelta(minutes=10) for each in found)


@pytest.mark.parametrize(
    "prefix", ["a", "a/", "a/b", "a/b/", "a/b/c/d.wav", "a/b/c/d.wav/", "a b/ü&", "evidence/claim/0000000000", "é", "none"]
)
async def test_a_prefix_is_any_text_that_keys_begin_with(harness: StoreHarness, prefix: str) -> None:
    for key in IN_ORDER:
        harness.put(key, b"1")
    expected = [key for key in IN_ORDER if key.startswith(prefix)]
    assert await listed(harness.store, prefix) == sorted(expected, key=order_of(harness))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_whoever_leaves_a_listing_off_closes_it(harness: StoreHarness) -> None:
    for key in IN_ORDER:
        harness.put(key, b"1")
    before = descriptors()
    for _ in range(3):
        async with aclosing(harness.store.list()) as listing:
            async for each in listing:
                assert each.key == IN_ORDER[0]
                break
    assert descriptors() <= before + 1  # a bucket's connection, for all of them
