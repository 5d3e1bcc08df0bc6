"""What only a container of Azure can get wrong: checksums, conditions, blocks, lost answers, other keys, rights."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import structlog

from archiver.errors import KeyConflict, LeaseLost, StoreError, StoreUnavailable
from archiver.stores import Saved
from archiver.stores.azure.trial import put
from archiver.stores.bucket import store as bucket
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of
from tests.azure_servers import ACCOUNT, ACCOUNT_KEY, AzureServer
from tests.stores.cancelled import CancelledAt, ended
from tests.stores.conftest import MEGABYTE, AzureBench, azure_bench
from tests.stores.proxy import Fault, Proxy, error

pytestmark = pytest.mark.once

KEY = "bot=b/date=2026-01-02/s 1+ü/recording/a&b'.wav"
FOLDER = KEY.rpartition("/")[0]
PART = ".session-1.worker-2.epoch-3.part"
SMALL = b"RIFF" + bytes(range(256)) * 40
PIECE = bytes(range(256)) * 1024  # 256 KiB
LONG_BODY = PIECE * 11
"""In three blocks: two whole ones and three quarters of one."""

ALWAYS = 10**9


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep(
    bench: AzureBench,
    data: bytes = SMALL,
    key: str = KEY,
    *,
    movable: bool = False,
    to: str | None = None,
    guard: Callable[[], None] | None = None,
) -> Saved:
    async with bench.store.upload(key, part=PART, movable=movable) as upload:
        for start in range(0, len(data), len(PIECE)):
            await upload.write(data[start : start + len(PIECE)])
        return await upload.save(to, guard=guard)


async def content(bench: AzureBench, key: str = KEY) -> bytes:
    return b"".join([block async for block in bench.store.read(key)])


@asynccontextmanager
async def opened(server: AzureServer, **keys: object) -> AsyncIterator[AzureBench]:
    """A store whose blocks are of a megabyte."""
    async with azure_bench(server, **{"part_size": MEGABYTE, **keys}) as bench:  # type: ignore[arg-type]
        yield bench


@pytest.fixture
async def bench(azurite: AzureServer) -> AsyncIterator[AzureBench]:
    """A store there."""
    async with opened(azurite) as bench:
        yield bench


@pytest.fixture
async def proxy(azurite: AzureServer) -> AsyncIterator[Proxy]:
    """A line to it on which things go wrong."""
    async with Proxy(azurite.url) as proxy:
        yield proxy


@pytest.fixture
async def shaky(azurite: AzureServer, proxy: Proxy) -> AsyncIterator[AzureBench]:
    """A store at the end of that line, over which the server has been tried."""
    async with opened(azurite, endpoint=f"{proxy.url}/{ACCOUNT}") as bench:
        await bench.azure.tried()
        proxy.requests.clear()
        yield bench


@asynccontextmanager
async def by_sas(azurite: AzureServer, rights: str, *faults: Fault) -> AsyncIterator[tuple[AzureBench, Proxy]]:
    """A store with a SAS, which, unlike a key, signs no headers."""
    async with Proxy(azurite.url) as proxy:
        proxy.faults += faults
        keys = {"account_key": "", "sas_token": azurite.sas(rights), "endpoint": f"{proxy.url}/{ACCOUNT}"}
        async with opened(azurite, **keys) as bench:
            yield bench, proxy


# --- what the server is held to


async def test_a_small_object_is_one_checked_and_conditional_put(shaky: AzureBench, proxy: Proxy) -> None:
    await keep(shaky)
    (put,) = proxy.requests
    assert put.operation == "Put"
    assert put.headers["content-md5"] == base64_of(hashlib.md5(SMALL).digest())
    assert put.headers["if-none-match"] == "*"
    assert put.headers["content-length"] == str(len(SMALL))
    assert shaky.head(KEY).metadata == {"sha256": sha256(SMALL)}


@pytest.mark.parametrize(("length", "blocks"), [(MEGABYTE, 0), (MEGABYTE + 1, 2), (2 * MEGABYTE, 2), (2 * MEGABYTE + 7, 3)])
async def test_what_is_longer_than_a_block_goes_in_blocks_of_one_size(
    shaky: AzureBench, proxy: Proxy, length: int, blocks: int
) -> None:
    body = LONG_BODY[:length]
    assert await keep(shaky, body) == Saved(KEY, length, sha256(body))
    assert shaky.get(KEY) == body == await content(shaky)
    assert shaky.objects() == {KEY}
    assert shaky.head(KEY).metadata == {"sha256": sha256(body)}
    sent = {request.operation: request for request in proxy.requests if request.operation.startswith("Block")}
    assert len(sent) == blocks
    for number, request in enumerate(sent[f"Block {number + 1}"] for number in range(blocks)):
        block = body[number * MEGABYTE : (number + 1) * MEGABYTE]
        assert request.headers["content-length"] == str(len(block))
        assert request.headers["content-md5"] == base64_of(hashlib.md5(block).digest())
    for request in proxy.requests:
        if request.operation == "Commit":
            assert request.headers["if-none-match"] == "*"


async def test_the_server_refuses_damaged_bytes(bench: AzureBench) -> None:
    damaged = replace(Body.of(SMALL), md5=bytes(16))
    with pytest.raises(Refused) as caught:
        await put(bench.azure.wire, bench.prefix + KEY, damaged, patient=False)
    assert caught.value.code == "Md5Mismatch"
    with pytest.raises(Refused) as caught:
        await bench.azure.parts(bench.prefix + KEY).send(1, damaged)
    assert caught.value.code == "Md5Mismatch"
    assert bench.objects() == set()


async def test_nothing_is_overwritten_whichever_way_it_comes(bench: AzureBench) -> None:
    for first, second in ((SMALL, LONG_BODY), (LONG_BODY, SMALL), (SMALL, SMALL + b"x"), (LONG_BODY, LONG_BODY[:-1] + b"x")):
        await keep(bench, first)
        with pytest.raises(KeyConflict) as caught:
            await keep(bench, second)
        facts = caught.value.facts
        assert (facts["stored_sha256"], facts["stored_bytes"]) == (sha256(first), len(first))
        assert (facts["sha256"], facts["bytes"]) == (sha256(second), len(second))
        assert bench.get(KEY) == first
        assert bench.objects() == {KEY}
        bench.remove(KEY)


async def test_what_is_far_longer_is_not_read_to_know_that_it_differs(
    shaky: AzureBench, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "MAX_COMPARED", len(SMALL))
    await keep(shaky, LONG_BODY)
    proxy.requests.clear()
    with pytest.raises(KeyConflict) as caught:
        await keep(shaky)
    assert (caught.value.facts["stored_sha256"], caught.value.facts["stored_bytes"]) == (None, len(LONG_BODY))
    assert "Get" not in proxy.operations()


async def test_an_equal_object_counts_as_saved_whatever_its_metadata_say(bench: AzureBench) -> None:
    await keep(bench, LONG_BODY)
    assert await keep(bench, LONG_BODY) == Saved(KEY, len(LONG_BODY), sha256(LONG_BODY), existed=True)
    for body in (SMALL, LONG_BODY):
        for metadata in (None, {"sha256": sha256(b"another")}):
            bench.put(KEY, body, metadata)
            assert (await keep(bench, body)).existed
        bench.put(KEY, body[:-1] + b"?", {"sha256": sha256(body)})
        with pytest.raises(KeyConflict):
            await keep(bench, body)
    assert bench.objects() == {KEY}


@pytest.mark.parametrize("length", [3 * MEGABYTE, 1000])
async def test_of_unequal_uploads_at_once_the_object_is_the_winner_s(bench: AzureBench, length: int) -> None:
    """Also though they share what is not committed of the key, and each commit takes the others' blocks away."""
    bodies = [bytes([number]) * length for number in range(6)]
    ends = await asyncio.gather(*(keep(bench, body) for body in bodies), return_exceptions=True)
    (winner,) = (end for end in ends if isinstance(end, Saved))
    assert all(isinstance(end, KeyConflict) for end in ends if end is not winner)
    assert sha256(bench.get(KEY)) == winner.sha256
    assert bench.objects() == {KEY}


@pytest.mark.parametrize("other", [b"", b"?"])
async def test_blocks_that_another_commit_has_taken_away_are_no_mystery(bench: AzureBench, other: bytes) -> None:
    async with bench.store.upload(KEY, part=PART) as upload:
        await upload.write(LONG_BODY)
        theirs = LONG_BODY[: len(LONG_BODY) - len(other)] + other
        await keep(bench, theirs)
        if other:
            with pytest.raises(KeyConflict):
                await upload.save()
        else:
            assert (await upload.save()).existed
    assert bench.get(KEY) == theirs
    assert bench.objects() == {KEY}


async def test_a_name_that_ends_with_a_dot_is_refused(bench: AzureBench) -> None:
    """On its way to Azure the dot gets lost."""
    for prefix, key in (("", "a./b.wav"), ("", "a/b."), ("calls./", "a.wav")):
        bench.azure.prefix = prefix
        with pytest.raises(StoreError, match="ends with a dot"):
            await keep(bench, SMALL, key)
    assert bench.objects() == set()


# --- another key


@pytest.mark.parametrize("other", [None, "quarantine/1-a.wav"])
async def test_a_movable_upload_can_be_saved_under_any_key(bench: AzureBench, other: str | None) -> None:
    assert await keep(bench, LONG_BODY, movable=True, to=other) == Saved(other or KEY, len(LONG_BODY), sha256(LONG_BODY))
    assert bench.objects() == {other or KEY}
    assert bench.get(other or KEY) == LONG_BODY
    assert bench.head(other or KEY).metadata == {"sha256": sha256(LONG_BODY)}


async def test_a_long_body_goes_to_another_key_after_a_conflict(bench: AzureBench) -> None:
    await keep(bench, LONG_BODY)
    other = LONG_BODY[:-1] + b"?"
    async with bench.store.upload(KEY, part=PART) as upload:
        await upload.write(other)
        with pytest.raises(KeyConflict):
            await upload.save()
        assert bench.objects() == {KEY}
        assert await upload.save("quarantine/s1/1-a.wav") == Saved("quarantine/s1/1-a.wav", len(other), sha256(other))
    assert bench.objects() == {KEY, "quarantine/s1/1-a.wav"}
    assert bench.get("quarantine/s1/1-a.wav") == other
    assert bench.get(KEY) == LONG_BODY


async def test_one_that_is_not_movable_says_so_and_leaves_nothing(bench: AzureBench) -> None:
    with pytest.raises(StoreError, match="cannot be kept under another key"):
        await keep(bench, LONG_BODY, to="quarantine/1-a.wav")
    assert bench.objects() == set()


async def test_a_guard_prevents_a_moved_object_as_well(bench: AzureBench) -> None:
    def guard() -> None:
        assert bench.objects() <= {f"{FOLDER}/{PART}"}
        raise LeaseLost("gone")

    for movable in (False, True):
        with pytest.raises(LeaseLost):
            await keep(bench, LONG_BODY, movable=movable, guard=guard)
        assert bench.objects() == set()


async def test_a_copy_that_is_damaged_on_its_way_is_not_kept(shaky: AzureBench, proxy: Proxy) -> None:
    body = LONG_BODY[:-1] + b"?"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    proxy.add(Fault("Get", answer=answer))
    with pytest.raises(StoreUnavailable, match="not what was sent"):
        await keep(shaky, LONG_BODY, movable=True)
    assert shaky.objects() == set()


# --- memory


@pytest.mark.parametrize("movable", [False, True])
async def test_a_hundred_megabytes_take_what_is_reserved_and_little_more(azurite: AzureServer, movable: bool) -> None:
    async with azure_bench(azurite, buffer=16 * MEGABYTE, parts_in_flight=8) as bench:
        await bench.azure.tried()
        tracemalloc.start()
        try:
            async with bench.store.upload(KEY, part=PART, movable=movable) as upload:
                for _ in range(400):
                    await upload.write(bytes(MEGABYTE // 4))
                saved = await upload.save()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert saved.bytes == 100 * MEGABYTE
    assert peak < 20 * MEGABYTE


async def test_uploads_that_share_little_memory_all_come_through(azurite: AzureServer) -> None:
    async with opened(azurite, buffer=3 * MEGABYTE) as bench:
        saved = await asyncio.gather(*(keep(bench, LONG_BODY, f"{number}.wav") for number in range(8)))
        assert {one.sha256 for one in saved} == {sha256(LONG_BODY)}
        assert bench.objects() == {f"{number}.wav" for number in range(8)}


async def test_blocks_are_in_flight_together_while_there_is_memory(shaky: AzureBench, proxy: Proxy) -> None:
    held = [proxy.add(Fault(f"Block {number}", hold=asyncio.Event())) for number in (1, 2)]
    writing = asyncio.create_task(keep(shaky, LONG_BODY))
    await asyncio.wait_for(asyncio.gather(*(fault.reached.wait() for fault in held)), 10)
    for fault in held:
        assert fault.hold is not None
        fault.hold.set()
    assert (await writing).bytes == len(LONG_BODY)


# --- however it is left


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("times", "movable"), [(1, False), (2, False), (1, True)])
async def test_a_cancellation_at_any_moment_of_an_upload_in_blocks_leaves_the_whole_object_or_nothing(
    bench: AzureBench, times: int, movable: bool
) -> None:
    async def long() -> None:
        await keep(bench, LONG_BODY, movable=movable)

    await bench.azure.tried()
    seen: set[str] = set()
    moment, missed = 0, 0
    while True:
        run = CancelledAt(long(), set(range(moment, moment + times)))
        end = await ended(run)
        left = bench.objects()
        if end is None:
            assert moment >= run.suspensions
            if "kept" in seen or missed == 10:
                break
            # Parts are on their way now longer, now shorter: the last moments, in which it is kept, have been passed by.
            bench.remove(KEY)
            moment, missed = max(0, moment - 3), missed + 1
            continue
        assert isinstance(end, asyncio.CancelledError)
        assert left <= {KEY}
        if left:
            assert bench.get(KEY) == LONG_BODY
            bench.remove(KEY)
        seen.add("kept" if left else "nothing")
        moment += 1
    assert bench.objects() == {KEY}
    assert seen == {"kept", "nothing"}


@pytest.mark.parametrize("operation", ["Block 1", "Block 3", "Commit", "Put"])
async def test_a_cancellation_while_the_server_takes_its_time_leaves_nothing_half_done(
    shaky: AzureBench, proxy: Proxy, operation: str
) -> None:
    """The request has gone out, its answer has not come: what it did must be known."""
    fault = proxy.add(Fault(operation, hold=asyncio.Event()))
    task = asyncio.create_task(keep(shaky, SMALL if operation == "Put" else LONG_BODY))
    await asyncio.wait_for(fault.reached.wait(), 10)
    task.cancel()
    await asyncio.sleep(0)
    assert fault.hold is not None
    fault.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shaky.objects() == ({KEY} if operation in ("Commit", "Put") else set())


async def test_an_upload_that_fails_leaves_blocks_that_nobody_sees(azurite: AzureServer) -> None:
    """And which are not in the way of the next one."""
    async with opened(azurite, parts_in_flight=1) as bench:
        async with bench.store.upload(KEY, part=PART) as upload:
            await upload.write(LONG_BODY)
        assert bench.objects() == set()
        assert bench.uncommitted() == {KEY}
        assert await bench.store.size(KEY) is None
        with pytest.raises(StoreError) as caught:
            await content(bench)
        assert caught.value.facts["missing"]
        await keep(bench, LONG_BODY)
        assert bench.get(KEY) == LONG_BODY
        assert bench.uncommitted() == set()


async def test_what_could_not_be_removed_is_removed_by_the_next_check(shaky: AzureBench, proxy: Proxy) -> None:
    fault = proxy.add(Fault("Delete", times=3, answer=error(503, "ServerBusy")))
    await keep(shaky, LONG_BODY, movable=True)
    assert fault.times == 0
    assert shaky.objects() == {KEY, f"{FOLDER}/{PART}"}
    await shaky.store.check()
    assert shaky.objects() == {KEY}


async def test_a_temporary_object_of_a_killed_worker_is_discarded(shaky: AzureBench, proxy: Proxy) -> None:
    shaky.put(f"{FOLDER}/{PART}", LONG_BODY)
    proxy.add(Fault("Delete", lose_answer=True))
    assert await shaky.store.discard(KEY, part=PART, left_for=timedelta(0))
    assert not await shaky.store.discard(KEY, part=PART, left_for=timedelta(0))
    assert shaky.objects() == set()


async def test_what_a_policy_keeps_is_left_and_not_tried_again(shaky: AzureBench, proxy: Proxy) -> None:
    proxy.add(Fault("Delete", ALWAYS, answer=error(409, "BlobImmutableDueToPolicy")))
    with structlog.testing.capture_logs() as logs:
        assert (await keep(shaky, LONG_BODY, movable=True)).sha256 == sha256(LONG_BODY)
        assert shaky.objects() == {KEY, f"{FOLDER}/{PART}"}
        proxy.requests.clear()
        await shaky.store.check()
        assert proxy.count("Delete") == 2  # the trial's
    assert [entry["event"] for entry in logs] == ["temporary_object_locked"]
    assert [advice for advice in await shaky.store.advice() if "may not delete" in advice.seen]


# --- what passes


@pytest.mark.parametrize(
    "fault",
    [
        {"answer": error(503, "ServerBusy")},
        {"answer": error(500, "OperationTimedOut")},
        {"answer": error(400, "Md5Mismatch")},
        {"answer": b"HTTP/1.1 502 X\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"},
        {"answer": b""},
        {"lose_answer": True},
        {"break_after": 0},
        {"break_after": 500_000},
    ],
    ids=lambda fault: re.sub(r"[^a-z0-9]+", "-", repr(fault).lower())[:40],
)
async def test_a_block_that_fails_is_sent_again_and_no_other(shaky: AzureBench, proxy: Proxy, fault: dict[str, Any]) -> None:
    proxy.add(Fault("Block 2", **fault))
    assert await keep(shaky, LONG_BODY) == Saved(KEY, len(LONG_BODY), sha256(LONG_BODY))
    assert [proxy.count(f"Block {number}") for number in (1, 2, 3)] == [1, 2, 1]
    assert proxy.count("Commit") == 1
    assert shaky.get(KEY) == LONG_BODY
    assert shaky.objects() == {KEY}


@pytest.mark.parametrize("operation", ["Put", "Block 1", "Commit", "Head"])
async def test_a_lost_answer_comes_out_as_saved(shaky: AzureBench, proxy: Proxy, operation: str) -> None:
    """The server did what it was asked to, and we learn of it when we ask again."""
    fault = proxy.add(Fault(operation, lose_answer=True))
    body = SMALL if operation == "Put" else LONG_BODY
    saved = await keep(shaky, body)
    assert fault.times == 0
    assert (saved.key, saved.bytes, saved.sha256) == (KEY, len(body), sha256(body))
    assert shaky.get(KEY) == body
    assert shaky.objects() == {KEY}


async def test_the_guard_is_asked_again_before_what_makes_the_key_appear_is_sent_again(shaky: AzureBench, proxy: Proxy) -> None:
    for operation, body in (("Put", SMALL), ("Commit", LONG_BODY)):
        proxy.add(Fault(operation, answer=error(503, "ServerBusy")))
        asked: list[int] = []

        def guard(asked: list[int] = asked) -> None:
            asked.append(1)
            if len(asked) == 2:
                raise LeaseLost("gone")

        with pytest.raises(LeaseLost):
            await keep(shaky, body, guard=guard)
        assert len(asked) == 2
        assert shaky.objects() == set()


async def test_what_lasts_is_an_unavailable_store(shaky: AzureBench, proxy: Proxy) -> None:
    fault = proxy.add(Fault("Put", times=100, answer=error(503, "ServerBusy", "The server is busy.\nRequestId:1")))
    with pytest.raises(StoreUnavailable, match="ServerBusy: The server is busy") as caught:
        await keep(shaky)
    assert caught.value.facts == {"store_key": KEY, "error": "ServerBusy", "http_status": 503}
    assert "RequestId" not in str(caught.value)
    assert fault.times == 97
    assert shaky.objects() == set()


async def test_where_an_answer_does_not_repeat_the_checksum_the_object_is_read_back(shaky: AzureBench, proxy: Proxy) -> None:
    proxy.add(Fault("Put", ALWAYS, strip="Content-MD5"))
    await keep(shaky)
    assert proxy.operations() == ["Put", "Get"]


async def test_an_answer_with_another_checksum_is_not_believed(shaky: AzureBench, proxy: Proxy) -> None:
    answer = b"HTTP/1.1 201 X\r\nContent-MD5: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy.add(Fault("Block 2", answer=answer))
    with pytest.raises(StoreUnavailable, match="Md5Mismatch"):
        await keep(shaky, LONG_BODY)
    assert shaky.objects() == set()


# --- what does not pass


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AuthenticationFailed", StoreUnavailable, "[storage.azure]"),
        (403, "AuthorizationFailure", StoreUnavailable, "network rules"),
        (403, "AuthorizationPermissionMismatch", StoreUnavailable, "docs/object-storage.md"),
        (403, "KeyBasedAuthenticationNotPermitted", StoreUnavailable, "use an identity"),
        (404, "ContainerNotFound", StoreUnavailable, "create the container"),
        (409, "ContainerBeingDeleted", StoreUnavailable, "create it again"),
        (400, "SomethingNew", StoreUnavailable, "archiver doctor"),
        (400, "InvalidUri", StoreError, "change storage.path"),
        (413, "RequestBodyTooLarge", StoreError, "part_size"),
    ],
)
async def test_a_refusal_says_what_to_do(
    shaky: AzureBench, proxy: Proxy, status: int, code: str, kind: type[StoreError], hint: str
) -> None:
    proxy.add(Fault("Put", times=9, answer=error(status, code)))
    with pytest.raises(StoreError) as caught:
        await keep(shaky)
    assert type(caught.value) is kind
    assert code in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.facts["store_key"] == KEY
    assert proxy.operations() == ["Put"]


async def test_a_missing_container_is_not_taken_for_a_missing_object(azurite: AzureServer) -> None:
    async with opened(azurite, container="archiver-tests-none") as bench:
        for attempt in (bench.store.size(KEY), content(bench), keep(bench), bench.store.check()):
            with pytest.raises(StoreUnavailable, match="ContainerNotFound"):
                await attempt


async def test_nobody_there_is_an_unavailable_store(azurite: AzureServer) -> None:
    async with opened(azurite, endpoint=f"http://127.0.0.1:9/{ACCOUNT}") as bench:
        with pytest.raises(StoreUnavailable, match="no answer") as caught:
            await bench.store.size(KEY)
        assert caught.value.facts == {"store_key": KEY, "error": "ClientConnectorError"}


async def test_no_secret_is_in_an_error_a_log_or_a_representation(azurite: AzureServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    wrong = "Mistaken" + ACCOUNT_KEY[8:]
    sas = azurite.sas("racwd")
    signature = sas.partition("sig=")[2].partition("&")[0]
    for keys in ({"account_key": wrong}, {"account_key": "", "sas_token": sas.replace("sig=", "sig=Mistaken")}):
        secret = [wrong, ACCOUNT_KEY, signature]
        async with opened(azurite, **keys) as bench:
            told = [repr(bench.store), repr(bench.azure.wire), repr(bench.azure.wire.access)]
            for attempt in (keep(bench, LONG_BODY), keep(bench), bench.store.check(), bench.store.size(KEY), content(bench)):
                with pytest.raises(StoreUnavailable, match=r"Authoriz|Authent") as caught:
                    await attempt
                told += [repr(caught.value), str(caught.value), repr(caught.value.facts), caught.value.hint]
        told += [record.getMessage() for record in caplog.records]
        assert not [text for text in told if any(value in text for value in secret)]


# --- servers and rights that fall short


@pytest.mark.parametrize("operation", ["Put", "Commit"])
async def test_a_server_that_would_overwrite_is_not_used(azurite: AzureServer, operation: str) -> None:
    async with by_sas(azurite, "racwdl", Fault(operation, ALWAYS, blind_to="If-None-Match")) as (bench, _):
        for attempt in (bench.store.check(), keep(bench)):
            with pytest.raises(StoreUnavailable, match="would overwrite"):
                await attempt
        assert bench.objects() == set()


@pytest.mark.parametrize("operation", ["Put", "Block .*"])
async def test_a_server_that_checks_nothing_is_not_used(azurite: AzureServer, operation: str) -> None:
    async with by_sas(azurite, "racwdl", Fault(operation, ALWAYS, blind_to="Content-MD5")) as (bench, _):
        for attempt in (bench.store.check(), keep(bench)):
            with pytest.raises(StoreUnavailable, match="damaged"):
                await attempt
        assert bench.objects() == set()


@pytest.mark.parametrize("body", [SMALL, LONG_BODY], ids=["small", "long"])
async def test_a_sas_that_allows_to_read_create_and_write_is_enough_for_recordings(azurite: AzureServer, body: bytes) -> None:
    async with by_sas(azurite, "rcw") as (bench, _):
        await bench.store.check()
        left = bench.objects()
        assert [key for key in left if not key.startswith(".check-")] == []
        await keep(bench, body)
        assert (await keep(bench, body)).existed
        assert await content(bench) == body
        assert bench.objects() == {KEY, *left}
        (advice,) = [advice for advice in await bench.store.advice() if "may not delete" in advice.seen]
        assert advice.mend


async def test_a_sas_that_ends_soon_is_told(azurite: AzureServer) -> None:
    for ends, told in ((timedelta(days=3), True), (timedelta(days=60), False)):
        async with opened(azurite, account_key="", sas_token="?" + azurite.sas("racwdl", ends)) as bench:
            await bench.store.check()
            assert bool([advice for advice in await bench.store.advice() if "SAS token ends" in advice.seen]) is told


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ("x-ms-has-immutability-policy: false\r\nx-ms-has-legal-hold: false\r\n", True),
        ("x-ms-has-immutability-policy: true\r\nx-ms-has-legal-hold: false\r\n", False),
        ("x-ms-has-immutability-policy: false\r\nx-ms-has-legal-hold: true\r\n", False),
        ("x-ms-has-immutability-policy: false\r\nx-ms-immutable-storage-with-versioning-enabled: true\r\n", False),
        ("", False),
        (None, False),
    ],
)
async def test_a_container_that_nothing_protects_is_told(
    shaky: AzureBench, proxy: Proxy, headers: str | None, told: bool
) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{headers or ''}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
    proxy.add(Fault("Container", answer=answer if headers is not None else answer.replace(b"200 OK", b"403 X")))
    assert bool(await shaky.store.advice()) is told


# --- reading


async def test_a_reading_that_breaks_off_goes_on_where_it_was(shaky: AzureBench, proxy: Proxy) -> None:
    await keep(shaky, LONG_BODY)
    proxy.add(Fault("Get", cut_answer=MEGABYTE + 1))
    assert await content(shaky) == LONG_BODY
    first, second = [request for request in proxy.requests if request.operation == "Get"]
    assert "range" not in first.headers
    assert 0 < int(second.headers["range"].removeprefix("bytes=").rstrip("-")) <= MEGABYTE + 1
    assert second.headers["if-match"]


async def test_an_object_that_changes_while_it_is_read_is_an_error(shaky: AzureBench, proxy: Proxy) -> None:
    await keep(shaky, LONG_BODY)
    proxy.add(Fault("Get", cut_answer=MEGABYTE))

    async def read() -> None:
        async for _ in shaky.store.read(KEY):
            if shaky.get(KEY) == LONG_BODY:
                shaky.put(KEY, LONG_BODY[::-1])

    with pytest.raises(StoreError, match="replaced while it was read"):
        await read()
