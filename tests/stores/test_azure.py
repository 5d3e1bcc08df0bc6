"""What only a container of Azure can get wrong: checksums, conditions, blocks, lost answers, other keys, rights."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.stores import Saved
from archiver.stores.azure.trial import put
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket import objects as bucket
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of
from tests.azure_servers import ACCOUNT, ACCOUNT_KEY, AzureServer
from tests.stores.harnesses import FOLDER, KEY, MEGABYTE, PART, PIECE, SMALL, AzureHarness, azure_harness, content, keep, sha256
from tests.stores.proxy import Fault, Proxy, error

pytestmark = pytest.mark.once

LONG_BODY = PIECE * 11
"""In three blocks: two whole ones and three quarters of one."""

ALWAYS = 10**9


@asynccontextmanager
async def opened(server: AzureServer, **keys: object) -> AsyncIterator[AzureHarness]:
    """A store whose blocks are of a megabyte."""
    async with azure_harness(server, **{"part_size": MEGABYTE, **keys}) as harness:  # type: ignore[arg-type]
        yield harness


@pytest.fixture
async def harness(azurite: AzureServer) -> AsyncIterator[AzureHarness]:
    """A store there."""
    async with opened(azurite) as harness:
        yield harness


@pytest.fixture
async def proxy(azurite: AzureServer) -> AsyncIterator[Proxy]:
    """A line to it on which things go wrong."""
    async with Proxy(azurite.url) as proxy:
        yield proxy


@pytest.fixture
async def shaky(azurite: AzureServer, proxy: Proxy) -> AsyncIterator[AzureHarness]:
    """A store at the end of that line, over which the server has been tried."""
    async with opened(azurite, endpoint=f"{proxy.url}/{ACCOUNT}") as harness:
        await harness.azure.driver.trial.result()
        proxy.requests.clear()
        yield harness


@asynccontextmanager
async def by_sas(azurite: AzureServer, rights: str, *faults: Fault) -> AsyncIterator[tuple[AzureHarness, Proxy]]:
    """A store with a SAS, which, unlike a key, signs no headers."""
    async with Proxy(azurite.url) as proxy:
        proxy.faults += faults
        keys = {"account_key": "", "sas_token": azurite.sas(rights), "endpoint": f"{proxy.url}/{ACCOUNT}"}
        async with opened(azurite, **keys) as harness:
            yield harness, proxy


# --- what the server is held to


async def test_a_small_object_is_one_checked_and_conditional_put(shaky: AzureHarness, proxy: Proxy) -> None:
    await keep(shaky)
    (put,) = proxy.requests
    assert put.operation == "Put"
    assert put.headers["content-md5"] == base64_of(hashlib.md5(SMALL).digest())
    assert put.headers["if-none-match"] == "*"
    assert put.headers["content-length"] == str(len(SMALL))
    assert shaky.head(KEY).metadata == {"sha256": sha256(SMALL)}


@pytest.mark.parametrize(("length", "blocks"), [(MEGABYTE, 0), (MEGABYTE + 1, 2), (2 * MEGABYTE, 2), (2 * MEGABYTE + 7, 3)])
async def test_what_is_longer_than_a_block_goes_in_blocks_of_one_size(
    shaky: AzureHarness, proxy: Proxy, length: int, blocks: int
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


async def test_the_server_refuses_damaged_bytes(harness: AzureHarness) -> None:
    damaged = replace(Body.of(SMALL), md5=bytes(16))
    wire = harness.azure.objects.wire
    assert isinstance(wire, AzureWire)
    with pytest.raises(Refused) as caught:
        await put(wire, harness.prefix + KEY, damaged, patient=False)
    assert caught.value.code == "Md5Mismatch"
    with pytest.raises(Refused) as caught:
        await harness.azure.driver.parts(harness.prefix + KEY).send(1, damaged)
    assert caught.value.code == "Md5Mismatch"
    assert harness.objects() == set()


async def test_what_is_far_longer_is_not_read_to_know_that_it_differs(
    shaky: AzureHarness, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "MAX_COMPARED", len(SMALL))
    await keep(shaky, LONG_BODY)
    proxy.requests.clear()
    with pytest.raises(KeyConflict) as caught:
        await keep(shaky)
    assert (caught.value.facts["stored_sha256"], caught.value.facts["stored_bytes"]) == (None, len(LONG_BODY))
    assert "Get" not in proxy.operations()


async def test_an_equal_object_counts_as_saved_whatever_its_metadata_say(harness: AzureHarness) -> None:
    await keep(harness, LONG_BODY)
    assert await keep(harness, LONG_BODY) == Saved(KEY, len(LONG_BODY), sha256(LONG_BODY), existed=True)
    for body in (SMALL, LONG_BODY):
        for metadata in (None, {"sha256": sha256(b"another")}):
            harness.put(KEY, body, metadata)
            assert (await keep(harness, body)).existed
        harness.put(KEY, body[:-1] + b"?", {"sha256": sha256(body)})
        with pytest.raises(KeyConflict):
            await keep(harness, body)
    assert harness.objects() == {KEY}


@pytest.mark.parametrize("length", [3 * MEGABYTE, 1000])
async def test_of_unequal_uploads_at_once_the_object_is_the_winner_s(harness: AzureHarness, length: int) -> None:
    """Also though they share what is not committed of the key, and each commit takes the others' blocks away."""
    bodies = [bytes([number]) * length for number in range(6)]
    ends = await asyncio.gather(*(keep(harness, body) for body in bodies), return_exceptions=True)
    (winner,) = (end for end in ends if isinstance(end, Saved))
    assert all(isinstance(end, KeyConflict) for end in ends if end is not winner)
    assert sha256(harness.get(KEY)) == winner.sha256
    assert harness.objects() == {KEY}


@pytest.mark.parametrize("other", [b"", b"?"])
async def test_blocks_that_another_commit_has_taken_away_are_no_mystery(harness: AzureHarness, other: bytes) -> None:
    async with harness.store.upload(KEY, part=PART) as upload:
        await upload.write(LONG_BODY)
        theirs = LONG_BODY[: len(LONG_BODY) - len(other)] + other
        await keep(harness, theirs)
        if other:
            with pytest.raises(KeyConflict):
                await upload.save()
        else:
            assert (await upload.save()).existed
    assert harness.get(KEY) == theirs
    assert harness.objects() == {KEY}


async def test_a_name_that_ends_with_a_dot_is_refused(harness: AzureHarness) -> None:
    """On its way to Azure the dot gets lost."""
    for prefix, key in (("", "a./b.wav"), ("", "a/b."), ("calls./", "a.wav")):
        harness.azure.objects.prefix = prefix
        with pytest.raises(StoreError, match="ends with a dot"):
            await keep(harness, SMALL, key)
    assert harness.objects() == set()


# --- another key


async def test_a_copy_that_is_damaged_on_its_way_is_not_kept(shaky: AzureHarness, proxy: Proxy) -> None:
    body = LONG_BODY[:-1] + b"?"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    proxy.add(Fault("Get", answer=answer))
    with pytest.raises(StoreUnavailable, match="not what was sent"):
        await keep(shaky, LONG_BODY, movable=True)
    assert shaky.objects() == set()


# --- however it is left


async def test_an_upload_that_fails_leaves_blocks_that_nobody_sees(azurite: AzureServer) -> None:
    """And which are not in the way of the next one."""
    async with opened(azurite, parts_in_flight=1) as harness:
        async with harness.store.upload(KEY, part=PART) as upload:
            await upload.write(LONG_BODY)
        assert harness.objects() == set()
        assert harness.uncommitted() == {KEY}
        assert await harness.store.size(KEY) is None
        with pytest.raises(StoreError) as caught:
            await content(harness)
        assert caught.value.facts["missing"]
        await keep(harness, LONG_BODY)
        assert harness.get(KEY) == LONG_BODY
        assert harness.uncommitted() == set()


async def test_what_could_not_be_removed_is_removed_by_the_next_check(shaky: AzureHarness, proxy: Proxy) -> None:
    fault = proxy.add(Fault("Delete", times=3, answer=error(503, "ServerBusy")))
    await keep(shaky, LONG_BODY, movable=True)
    assert fault.times == 0
    assert shaky.objects() == {KEY, f"{FOLDER}/{PART}"}
    await shaky.store.check()
    assert shaky.objects() == {KEY}


async def test_a_temporary_object_of_a_killed_worker_is_discarded(shaky: AzureHarness, proxy: Proxy) -> None:
    shaky.put(f"{FOLDER}/{PART}", LONG_BODY)
    proxy.add(Fault("Delete", lose_answer=True))
    assert await shaky.store.discard(KEY, part=PART, left_for=timedelta(0))
    assert not await shaky.store.discard(KEY, part=PART, left_for=timedelta(0))
    assert shaky.objects() == set()


async def test_what_a_policy_keeps_is_left_and_not_tried_again(shaky: AzureHarness, proxy: Proxy) -> None:
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


async def test_where_an_answer_does_not_repeat_the_checksum_the_object_is_read_back(shaky: AzureHarness, proxy: Proxy) -> None:
    proxy.add(Fault("Put", ALWAYS, strip="Content-MD5"))
    await keep(shaky)
    assert proxy.operations() == ["Put", "Get"]


async def test_an_answer_with_another_checksum_is_not_believed(shaky: AzureHarness, proxy: Proxy) -> None:
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
        (403, "AuthorizationPermissionMismatch", StoreUnavailable, "Storage Blob Data Contributor"),
        (403, "KeyBasedAuthenticationNotPermitted", StoreUnavailable, "use an identity"),
        (404, "ContainerNotFound", StoreUnavailable, "create the container"),
        (409, "ContainerBeingDeleted", StoreUnavailable, "create it again"),
        (400, "SomethingNew", StoreUnavailable, "archiver doctor"),
        (400, "InvalidUri", StoreError, "change storage.path"),
        (413, "RequestBodyTooLarge", StoreError, "part_size"),
    ],
)
async def test_a_refusal_says_what_to_do(
    shaky: AzureHarness, proxy: Proxy, status: int, code: str, kind: type[StoreError], hint: str
) -> None:
    proxy.add(Fault("Put", times=9, answer=error(status, code)))
    with pytest.raises(StoreError) as caught:
        await keep(shaky)
    assert type(caught.value) is kind
    assert code in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.facts["store_key"] == KEY
    assert proxy.operations() == ["Put"]


async def test_no_secret_is_in_an_error_a_log_or_a_representation(azurite: AzureServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    wrong = "Mistaken" + ACCOUNT_KEY[8:]
    sas = azurite.sas("racwd")
    signature = sas.partition("sig=")[2].partition("&")[0]
    for keys in ({"account_key": wrong}, {"account_key": "", "sas_token": sas.replace("sig=", "sig=Mistaken")}):
        secret = [wrong, ACCOUNT_KEY, signature]
        async with opened(azurite, **keys) as harness:
            wire = harness.azure.objects.wire
            assert isinstance(wire, AzureWire)
            told = [repr(harness.store), repr(wire), repr(wire.access)]
            for attempt in (
                keep(harness, LONG_BODY),
                keep(harness),
                harness.store.check(),
                harness.store.size(KEY),
                content(harness),
            ):
                with pytest.raises(StoreUnavailable, match=r"Authoriz|Authent") as caught:
                    await attempt
                told += [repr(caught.value), str(caught.value), repr(caught.value.facts), caught.value.hint]
        told += [record.getMessage() for record in caplog.records]
        assert not [text for text in told if any(value in text for value in secret)]


# --- servers and rights that fall short


@pytest.mark.parametrize("operation", ["Put", "Commit"])
async def test_a_server_that_would_overwrite_is_not_used(azurite: AzureServer, operation: str) -> None:
    async with by_sas(azurite, "racwdl", Fault(operation, ALWAYS, blind_to="If-None-Match")) as (harness, _):
        for attempt in (harness.store.check(), keep(harness)):
            with pytest.raises(StoreUnavailable, match="would overwrite"):
                await attempt
        assert harness.objects() == set()


@pytest.mark.parametrize("operation", ["Put", "Block .*"])
async def test_a_server_that_checks_nothing_is_not_used(azurite: AzureServer, operation: str) -> None:
    async with by_sas(azurite, "racwdl", Fault(operation, ALWAYS, blind_to="Content-MD5")) as (harness, _):
        for attempt in (harness.store.check(), keep(harness)):
            with pytest.raises(StoreUnavailable, match="damaged"):
                await attempt
        assert harness.objects() == set()


@pytest.mark.parametrize("body", [SMALL, LONG_BODY], ids=["small", "long"])
async def test_a_sas_that_allows_to_read_create_and_write_is_enough_for_recordings(azurite: AzureServer, body: bytes) -> None:
    async with by_sas(azurite, "rcw") as (harness, _):
        await harness.store.check()
        left = harness.objects()
        assert [key for key in left if not key.startswith(".check-")] == []
        await keep(harness, body)
        assert (await keep(harness, body)).existed
        assert await content(harness) == body
        assert harness.objects() == {KEY, *left}
        (advice,) = [advice for advice in await harness.store.advice() if "may not delete" in advice.seen]
        assert advice.hint


async def test_a_sas_that_ends_soon_is_told(azurite: AzureServer) -> None:
    for ends, told in ((timedelta(days=3), True), (timedelta(days=60), False)):
        async with opened(azurite, account_key="", sas_token="?" + azurite.sas("racwdl", ends)) as harness:
            await harness.store.check()
            assert bool([advice for advice in await harness.store.advice() if "SAS token ends" in advice.seen]) is told


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
    shaky: AzureHarness, proxy: Proxy, headers: str | None, told: bool
) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{headers or ''}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
    proxy.add(Fault("Container", answer=answer if headers is not None else answer.replace(b"200 OK", b"403 X")))
    assert bool(await shaky.store.advice()) is told


# --- reading
