"""What every store in a bucket keeps to, whichever kind it is, and over a line on which things go wrong."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from archiver.errors import KeyConflict, LeaseLost, StoreError, StoreUnavailable
from archiver.stores import Saved
from tests.azure_servers import ACCOUNT
from tests.stores.cancelled import CancelledAt, ended
from tests.stores.harnesses import (
    FOLDER,
    KEY,
    MEGABYTE,
    PART,
    PIECE,
    SMALL,
    BucketHarness,
    S3Harness,
    azure_harness,
    content,
    keep,
    s3_harness,
    sha256,
)
from tests.stores.proxy import Fault, Proxy, error

pytestmark = pytest.mark.once

NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Kind:
    """What one kind of bucket calls things, and how large they are."""

    server: str
    """The fixture of it."""
    opened: Callable[..., AbstractAsyncContextManager[BucketHarness]]
    part: str
    """What the request of a part is called, but for its number."""
    begin: str
    """The request that begins parts; empty where there is none."""
    complete: str
    """The request that makes an object of its parts."""
    part_size: int
    long_pieces: int
    """Pieces of a body in three parts."""
    share: int
    """Bytes of memory that are little for eight uploads."""
    busy: str
    """The code of a server that has too much to do."""
    other_fault: dict[str, Any]
    """One more answer after which a part is sent again."""
    elsewhere: dict[str, str]
    """Names a bucket that is not there."""
    bucket_missing: str
    """The code for that."""
    unfinished: frozenset[str]
    """What may be seen of an upload in parts that is not finished, as `objects` names it."""
    under_way: dict[str, bool]
    """Requests during which an upload may be cancelled, and whether the object is there in the end, if it is known."""

    @property
    def long_body(self) -> bytes:
        return PIECE * self.long_pieces

    def open(self, server: Any, **terms: Any) -> AbstractAsyncContextManager[BucketHarness]:
        """A store whose parts are as small as this kind takes them."""
        return self.opened(server, **{"part_size": self.part_size, **terms})

    def endpoint(self, url: str) -> str:
        """What `endpoint` has to say for a server at this URL."""
        return f"{url}/{ACCOUNT}" if self.server == "azurite" else url


S3 = Kind(
    server="seaweedfs",
    opened=s3_harness,
    part="Part",
    begin="Create",
    complete="Complete",
    part_size=5 * MEGABYTE,
    long_pieces=44,
    share=16 * MEGABYTE,
    busy="SlowDown",
    other_fault={"answer": error(400, "RequestTimeout")},
    elsewhere={"bucket": "archiver-tests-none"},
    bucket_missing="NoSuchBucket",
    unfinished=frozenset({f"{FOLDER}/{PART} (in parts)", f"{KEY} (in parts)"}),
    under_way={"Create": False, "Part 1": False, "Part 3": False, "Complete": True, "Put": True},
)
AZURE = Kind(
    server="azurite",
    opened=azure_harness,
    part="Block",
    begin="",
    complete="Commit",
    part_size=MEGABYTE,
    long_pieces=11,
    share=3 * MEGABYTE,
    busy="ServerBusy",
    other_fault={"answer": error(400, "Md5Mismatch")},
    elsewhere={"container": "archiver-tests-none"},
    bucket_missing="ContainerNotFound",
    unfinished=frozenset(),
    under_way={"Block 1": False, "Block 3": False, "Commit": True, "Put": True},
)
SERVERS = {"seaweedfs": S3, "localstack": S3, "azurite": AZURE}


def on_each(values: Callable[[Kind], Iterable[Any]]) -> list[Any]:
    """Parameters `server` and `value`: each server with each value that its kind has."""
    return [
        pytest.param(server, value, marks=pytest.mark.thorough if server == "localstack" else (), id=f"{server}-{_name(value)}")
        for server, kind in SERVERS.items()
        for value in values(kind)
    ]


def _name(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", repr(value).lower())[:40].strip("-")


@pytest.fixture(params=["seaweedfs", pytest.param("localstack", marks=pytest.mark.thorough), "azurite"])
def server(request: pytest.FixtureRequest) -> str:
    """The name of each server in turn."""
    return str(request.param)


@pytest.fixture
def kind(server: str) -> Kind:
    return SERVERS[server]


@pytest.fixture
def running(server: str, request: pytest.FixtureRequest) -> Any:
    """The server itself."""
    return request.getfixturevalue(server)


@pytest.fixture
async def harness(kind: Kind, running: Any) -> AsyncIterator[BucketHarness]:
    """A store there."""
    async with kind.open(running) as harness:
        yield harness


@pytest.fixture
async def proxy(running: Any) -> AsyncIterator[Proxy]:
    """A line to it on which things go wrong."""
    async with Proxy(running.url) as proxy:
        yield proxy


@pytest.fixture
async def shaky(kind: Kind, running: Any, proxy: Proxy) -> AsyncIterator[BucketHarness]:
    """A store at the end of that line, over which the server has been tried."""
    async with kind.open(running, endpoint=kind.endpoint(proxy.url)) as harness:
        await tried(harness)
        proxy.requests.clear()
        yield harness


async def tried(harness: BucketHarness) -> None:
    """The trial is over: what follows is the upload's alone."""
    store = harness.s3 if isinstance(harness, S3Harness) else harness.azure
    await store.driver.trial.result()


def metadata(harness: BucketHarness, key: str) -> dict[str, str]:
    found = harness.head(key)["Metadata"] if isinstance(harness, S3Harness) else harness.head(key).metadata
    return dict(found)


# --- what is there stays


async def test_nothing_is_overwritten_whichever_way_it_comes(harness: BucketHarness, kind: Kind) -> None:
    long = kind.long_body
    for first, second in ((SMALL, long), (long, SMALL), (SMALL, SMALL + b"x"), (long, long[:-1] + b"x")):
        await keep(harness, first)
        with pytest.raises(KeyConflict) as caught:
            await keep(harness, second)
        facts = caught.value.facts
        assert (facts["stored_sha256"], facts["stored_bytes"]) == (sha256(first), len(first))
        assert (facts["sha256"], facts["bytes"]) == (sha256(second), len(second))
        assert harness.get(KEY) == first
        assert harness.objects() == {KEY}
        harness.remove(KEY)


# --- another key


async def test_a_long_body_goes_to_another_key_after_a_conflict(harness: BucketHarness, kind: Kind) -> None:
    await keep(harness, kind.long_body)
    other, elsewhere = kind.long_body[:-1] + b"?", "quarantine/s1/1-a.wav"
    async with harness.store.upload(KEY, part=PART) as upload:
        await upload.write(other)
        with pytest.raises(KeyConflict):
            await upload.save()
        assert {KEY} <= harness.objects() <= {KEY, *(kind.unfinished - {f"{KEY} (in parts)"})}
        assert await upload.save(elsewhere) == Saved(elsewhere, len(other), sha256(other))
    assert harness.objects() == {KEY, elsewhere}
    assert harness.get(elsewhere) == other
    assert harness.get(KEY) == kind.long_body
    assert metadata(harness, elsewhere) == {"sha256": sha256(other)}


@pytest.mark.parametrize("other", [None, "quarantine/1-a.wav"])
async def test_a_movable_upload_can_be_saved_under_any_key(harness: BucketHarness, kind: Kind, other: str | None) -> None:
    body = kind.long_body
    assert await keep(harness, body, movable=True, to=other) == Saved(other or KEY, len(body), sha256(body))
    assert harness.objects() == {other or KEY}
    assert harness.get(other or KEY) == body
    assert metadata(harness, other or KEY) == {"sha256": sha256(body)}


async def test_one_that_is_not_movable_says_so_and_leaves_nothing(harness: BucketHarness, kind: Kind) -> None:
    with pytest.raises(StoreError, match="cannot be kept under another key"):
        await keep(harness, kind.long_body, to="quarantine/1-a.wav")
    assert harness.objects() == set()


async def test_a_guard_prevents_a_moved_object_as_well(harness: BucketHarness, kind: Kind) -> None:
    def guard() -> None:
        assert harness.objects() <= {f"{FOLDER}/{PART}", *(kind.unfinished - {f"{FOLDER}/{PART} (in parts)"})}
        raise LeaseLost("gone")

    for movable in (False, True):
        with pytest.raises(LeaseLost):
            await keep(harness, kind.long_body, movable=movable, guard=guard)
        assert harness.objects() == set()


# --- memory


@pytest.mark.parametrize(("server", "value"), on_each(lambda kind: (False, True) if kind is AZURE else (False,)))
async def test_a_hundred_megabytes_take_what_is_reserved_and_little_more(kind: Kind, running: Any, value: bool) -> None:
    async with kind.open(running, buffer=16 * MEGABYTE, part_size=5 * MEGABYTE, parts_in_flight=8) as harness:
        await tried(harness)
        tracemalloc.start()
        try:
            async with harness.store.upload(KEY, part=PART, movable=value) as upload:
                for _ in range(400):
                    await upload.write(bytes(MEGABYTE // 4))
                saved = await upload.save()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert saved.bytes == 100 * MEGABYTE
    assert peak < 20 * MEGABYTE


async def test_uploads_that_share_little_memory_all_come_through(kind: Kind, running: Any) -> None:
    async with kind.open(running, buffer=kind.share) as harness:
        saved = await asyncio.gather(*(keep(harness, kind.long_body, f"{number}.wav") for number in range(8)))
        assert {one.sha256 for one in saved} == {sha256(kind.long_body)}
        assert harness.objects() == {f"{number}.wav" for number in range(8)}


async def test_parts_are_in_flight_together_while_there_is_memory(shaky: BucketHarness, kind: Kind, proxy: Proxy) -> None:
    held = [proxy.add(Fault(f"{kind.part} {number}", hold=asyncio.Event())) for number in (1, 2)]
    writing = asyncio.create_task(keep(shaky, kind.long_body))
    await asyncio.wait_for(asyncio.gather(*(fault.reached.wait() for fault in held)), 10)
    for fault in held:
        assert fault.hold is not None
        fault.hold.set()
    assert (await writing).bytes == len(kind.long_body)


# --- cancellation


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("server", "value"), on_each(lambda kind: [(1, False), (2, False), *([(1, True)] if kind is AZURE else [])])
)
async def test_a_cancellation_at_any_moment_of_an_upload_in_parts_leaves_the_whole_object_or_nothing(
    harness: BucketHarness, kind: Kind, value: tuple[int, bool]
) -> None:
    times, movable = value

    async def long() -> None:
        await keep(harness, kind.long_body, movable=movable)

    await tried(harness)
    seen: set[str] = set()
    moment, missed = 0, 0
    while True:
        run = CancelledAt(long(), set(range(moment, moment + times)))
        end = await ended(run)
        left = harness.objects()
        if end is None:
            assert moment >= run.suspensions
            if "kept" in seen or missed == 10:
                break
            # Parts are on their way now longer, now shorter: the last moments, in which it is kept, have been passed by.
            harness.remove(KEY)
            moment, missed = max(0, moment - 3), missed + 1
            continue
        assert isinstance(end, asyncio.CancelledError)
        assert left <= {KEY}
        if left:
            assert harness.get(KEY) == kind.long_body
            harness.remove(KEY)
        seen.add("kept" if left else "nothing")
        moment += 1
    assert harness.objects() == {KEY}
    assert seen == {"kept", "nothing"}


@pytest.mark.parametrize(("server", "value"), on_each(lambda kind: kind.under_way))
async def test_a_cancellation_while_the_server_takes_its_time_leaves_nothing_half_done(
    shaky: BucketHarness, kind: Kind, proxy: Proxy, value: str
) -> None:
    """The request has gone out, its answer has not come: what it did must be known, or taken back."""
    fault = proxy.add(Fault(value, hold=asyncio.Event()))
    task = asyncio.create_task(keep(shaky, SMALL if value == "Put" else kind.long_body))
    await asyncio.wait_for(fault.reached.wait(), 10)
    task.cancel()
    await asyncio.sleep(0)
    assert fault.hold is not None
    fault.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shaky.objects() == ({KEY} if kind.under_way[value] else set())


# --- what passes, and what lasts


def part_faults(kind: Kind) -> list[dict[str, Any]]:
    return [
        {"answer": error(503, kind.busy)},
        {"answer": error(500, "InternalError" if kind is S3 else "OperationTimedOut")},
        kind.other_fault,
        {"answer": b"HTTP/1.1 502 X\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"},
        {"answer": b""},
        {"lose_answer": True},
        {"break_after": 0},
        {"break_after": 1_000_000 if kind is S3 else 500_000},
    ]


@pytest.mark.parametrize(("server", "value"), on_each(part_faults))
async def test_a_part_that_fails_is_sent_again_and_no_other(
    shaky: BucketHarness, kind: Kind, proxy: Proxy, value: dict[str, Any]
) -> None:
    body = kind.long_body
    proxy.add(Fault(f"{kind.part} 2", **value))
    assert await keep(shaky, body) == Saved(KEY, len(body), sha256(body))
    assert [proxy.count(f"{kind.part} {number}") for number in (1, 2, 3)] == [1, 2, 1]
    assert proxy.count(kind.complete) == 1
    assert not kind.begin or proxy.count(kind.begin) == 1
    assert shaky.get(KEY) == body
    assert shaky.objects() == {KEY}


@pytest.mark.parametrize(
    ("server", "value"),
    on_each(lambda kind: filter(None, ("Put", kind.begin, f"{kind.part} 1", kind.complete, "Head"))),
)
async def test_a_lost_answer_comes_out_as_saved(shaky: BucketHarness, kind: Kind, proxy: Proxy, value: str) -> None:
    """The server did what it was asked to, and we learn of it when we ask again."""
    fault = proxy.add(Fault(value, lose_answer=True))
    body = SMALL if value == "Put" else kind.long_body
    saved = await keep(shaky, body)
    assert fault.times == 0
    assert (saved.key, saved.bytes, saved.sha256) == (KEY, len(body), sha256(body))
    assert shaky.get(KEY) == body
    assert shaky.objects() == {KEY}


async def test_the_guard_is_asked_again_before_what_makes_the_key_appear_is_sent_again(
    shaky: BucketHarness, kind: Kind, proxy: Proxy
) -> None:
    for operation, body in (("Put", SMALL), (kind.complete, kind.long_body)):
        proxy.add(Fault(operation, answer=error(503, kind.busy)))
        asked: list[int] = []

        def guard(asked: list[int] = asked) -> None:
            asked.append(1)
            if len(asked) == 2:
                raise LeaseLost("gone")

        with pytest.raises(LeaseLost):
            await keep(shaky, body, guard=guard)
        assert len(asked) == 2
        assert shaky.objects() == set()


async def test_what_lasts_is_an_unavailable_store(shaky: BucketHarness, kind: Kind, proxy: Proxy) -> None:
    answer = error(503, kind.busy, "The server is busy." if kind is S3 else "The server is busy.\nRequestId:1")
    fault = proxy.add(Fault("Put", times=100, answer=answer))
    with pytest.raises(StoreUnavailable, match=f"{kind.busy}: The server is busy") as caught:
        await keep(shaky)
    assert caught.value.facts == {"store_key": KEY, "error": kind.busy, "http_status": 503}
    assert "RequestId" not in str(caught.value)
    assert fault.times == 97
    assert shaky.objects() == set()


async def test_a_missing_bucket_is_not_taken_for_a_missing_object(kind: Kind, running: Any) -> None:
    async with kind.open(running, **kind.elsewhere) as harness:
        for attempt in (harness.store.size(KEY), content(harness), keep(harness), harness.store.check()):
            with pytest.raises(StoreUnavailable, match=kind.bucket_missing):
                await attempt


async def test_nobody_there_is_an_unavailable_store(kind: Kind, running: Any) -> None:
    async with kind.open(running, endpoint=kind.endpoint(NOBODY)) as harness:
        with pytest.raises(StoreUnavailable, match="no answer") as caught:
            await harness.store.size(KEY)
        assert caught.value.facts == {"store_key": KEY, "error": "ClientConnectorError"}


# --- reading


async def test_a_reading_that_breaks_off_goes_on_where_it_was(shaky: BucketHarness, kind: Kind, proxy: Proxy) -> None:
    await keep(shaky, kind.long_body)
    proxy.add(Fault("Get", cut_answer=MEGABYTE + 1))
    assert await content(shaky) == kind.long_body
    first, second = [request for request in proxy.requests if request.operation == "Get"]
    assert "range" not in first.headers
    assert 0 < int(second.headers["range"].removeprefix("bytes=").rstrip("-")) <= MEGABYTE + 1
    assert second.headers["if-match"]


async def test_an_object_that_changes_while_it_is_read_is_an_error(shaky: BucketHarness, kind: Kind, proxy: Proxy) -> None:
    body = kind.long_body
    await keep(shaky, body)
    proxy.add(Fault("Get", cut_answer=MEGABYTE))

    async def read() -> None:
        async for _ in shaky.store.read(KEY):
            if shaky.get(KEY) == body:
                shaky.put(KEY, body[::-1])

    with pytest.raises(StoreError, match="replaced while it was read"):
        await read()
