"""What only a bucket can get wrong: checksums, conditions, parts, lost answers, busy servers, addresses, credentials."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.stores import ANY_FILE, Saved
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of
from archiver.stores.s3.wire import S3Wire
from tests.s3_servers import LOCKED_BUCKET, SECRET_KEY, S3Server
from tests.stores.harnesses import KEY, MEGABYTE, PART, PIECE, SMALL, S3Harness, content, keep, s3_harness, sha256
from tests.stores.proxy import Fault, Proxy, error

pytestmark = pytest.mark.once

LONG = 44
"""Pieces of a body in three parts: two whole ones and one of a megabyte."""
LONG_BODY = PIECE * LONG


@pytest.fixture(params=["seaweedfs", pytest.param("localstack", marks=pytest.mark.thorough)])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each server in turn."""
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def harness(server: S3Server) -> AsyncIterator[S3Harness]:
    """A store there."""
    async with s3_harness(server) as harness:
        yield harness


@pytest.fixture
async def proxy(server: S3Server) -> AsyncIterator[Proxy]:
    """A line to it on which things go wrong."""
    async with Proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
async def shaky(server: S3Server, proxy: Proxy) -> AsyncIterator[S3Harness]:
    """A store at the end of that line, over which the server has been tried."""
    async with s3_harness(server, endpoint=proxy.url) as harness:
        await harness.s3.driver.trial.result()
        proxy.requests.clear()
        yield harness


# --- what the server is held to


async def test_a_small_object_is_one_checked_and_conditional_put(shaky: S3Harness, proxy: Proxy) -> None:
    await keep(shaky)
    (put,) = proxy.requests
    assert put.operation == "Put"
    assert put.headers["x-amz-checksum-sha256"] == base64_of(hashlib.sha256(SMALL).digest())
    assert put.headers["x-amz-content-sha256"] == sha256(SMALL)
    assert put.headers["if-none-match"] == "*"
    assert put.headers["content-length"] == str(len(SMALL))
    head = shaky.head(KEY)
    assert head["Metadata"] == {"sha256": sha256(SMALL)}
    assert head["ChecksumSHA256"] == base64_of(hashlib.sha256(SMALL).digest())


@pytest.mark.parametrize(
    ("length", "parts"), [(5 * MEGABYTE, 0), (5 * MEGABYTE + 1, 2), (10 * MEGABYTE, 2), (10 * MEGABYTE + 7, 3)]
)
async def test_what_is_longer_than_a_part_goes_in_parts_of_one_size(
    shaky: S3Harness, proxy: Proxy, length: int, parts: int
) -> None:
    body = (PIECE * 44)[:length]
    saved = await keep(shaky, body)
    assert saved == Saved(KEY, length, sha256(body))
    assert shaky.get(KEY) == body == await content(shaky)
    assert shaky.objects() == {KEY}
    sent = {
        request.operation: int(request.headers["content-length"]) for request in proxy.requests if "Part" in request.operation
    }
    assert len(sent) == parts
    assert all(size == 5 * MEGABYTE for name, size in sent.items() if name != f"Part {parts}")
    if parts:
        head = shaky.head(KEY)
        digests = [hashlib.sha256(body[at : at + 5 * MEGABYTE]).digest() for at in range(0, length, 5 * MEGABYTE)]
        assert head["ChecksumSHA256"] == f"{base64_of(hashlib.sha256(b''.join(digests)).digest())}-{parts}"
        assert shaky.tags(KEY) == {"archiver-sha256": sha256(body)}


async def test_the_server_refuses_a_wrong_checksum(harness: S3Harness) -> None:
    wrong = {"x-amz-checksum-sha256": base64_of(bytes(32))}
    with pytest.raises(Refused, match="did not match") as caught:
        await harness.s3.objects.wire.send("PUT", harness.prefix + KEY, headers=wrong, body=Body.of(SMALL), patient=False)
    assert caught.value.code == "BadDigest"
    lie = Body([SMALL], len(SMALL), bytes(32))  # for which the signature stands as well
    with pytest.raises(Refused):
        await harness.s3.objects.wire.send("PUT", harness.prefix + KEY, headers=wrong, body=lie, patient=False)
    assert harness.objects() == set()


async def test_an_equal_object_counts_as_saved_however_it_was_stored(harness: S3Harness) -> None:
    """With our parts, with others, in one piece, with a checksum or without one, whatever its metadata claims."""
    await keep(harness, LONG_BODY)
    assert (await keep(harness, LONG_BODY)).existed
    harness.remove(KEY)
    harness.put(KEY, LONG_BODY)
    assert await keep(harness, LONG_BODY) == Saved(KEY, len(LONG_BODY), sha256(LONG_BODY), existed=True)
    harness.remove(KEY)
    async with s3_harness(harness.server, part_size=6 * MEGABYTE) as other:
        other.s3.objects.prefix = other.prefix = harness.prefix
        await keep(other, LONG_BODY)
    assert (await keep(harness, LONG_BODY)).existed
    harness.remove(KEY)
    forged = {"Metadata": {"sha256": sha256(SMALL)}}
    harness.server.client.put_object(Bucket=harness.bucket, Key=harness.prefix + KEY, Body=SMALL[:-1] + b"?", **forged)
    with pytest.raises(KeyConflict):
        await keep(harness)
    assert harness.objects() == {KEY}


async def test_of_long_uploads_at_once_the_object_is_a_whole_one_and_none_dangles(harness: S3Harness) -> None:
    """Which one wins is the server's: AWS completes an upload and looks whether the key is taken in one act, these two do not."""
    bodies = [LONG_BODY[:-1] + bytes([number]) for number in range(4)]
    ends = await asyncio.gather(*(keep(harness, body) for body in bodies), return_exceptions=True)
    saved = [end for end in ends if isinstance(end, Saved)]
    assert all(isinstance(end, KeyConflict) for end in ends if end not in saved)
    assert sha256(harness.get(KEY)) in {one.sha256 for one in saved}
    assert harness.objects() == {KEY}


async def test_object_lock_is_kept_and_does_not_break_the_check(server: S3Server) -> None:
    async with s3_harness(server, bucket=LOCKED_BUCKET) as harness:
        assert await harness.store.check()
        assert harness.objects() == set()  # markers lie over them
        await keep(harness)
        await keep(harness, LONG_BODY, "long.wav")
        for key in (KEY, "long.wav"):
            with pytest.raises(harness.server.client.exceptions.ClientError, match="AccessDenied"):
                harness.server.client.delete_object(
                    Bucket=LOCKED_BUCKET, Key=harness.prefix + key, VersionId=harness.head(key)["VersionId"]
                )
        assert harness.tags("long.wav") == {"archiver-sha256": sha256(LONG_BODY)}


# --- memory


async def test_a_small_file_gives_back_what_it_does_not_need(server: S3Server) -> None:
    async with s3_harness(server, buffer=6 * MEGABYTE) as harness, harness.store.upload("a.wav", part=PART) as first:
        first.expect(1000)
        await first.write(SMALL[:1000])
        await asyncio.wait_for(keep(harness, SMALL, "b.wav"), 10)  # which waits for five megabytes
        # It turns out to be longer, and there is room again.
        await first.write(LONG_BODY)
        assert (await first.save()).bytes == 1000 + len(LONG_BODY)


async def test_one_that_is_longer_than_expected_fails_rather_than_wait_for_memory(server: S3Server) -> None:
    async with s3_harness(server, buffer=6 * MEGABYTE) as harness, harness.store.upload("a.wav", part=PART) as first:
        first.expect(1000)
        async with harness.store.upload("b.wav", part=PART) as second:
            with pytest.raises(StoreUnavailable, match="longer than expected"):
                await first.write(SMALL * 100)
            with pytest.raises(StoreUnavailable):
                await first.save()
            await second.write(SMALL)
            await second.save()
    assert harness.objects() == {"b.wav"}


async def test_with_memory_for_one_part_they_go_one_after_another(server: S3Server, proxy: Proxy) -> None:
    async with s3_harness(server, endpoint=proxy.url, buffer=5 * MEGABYTE) as harness:
        await harness.s3.driver.trial.result()
        first = proxy.add(Fault("Part 1", times=2, hold=asyncio.Event()))
        writing = asyncio.create_task(keep(harness, LONG_BODY))
        await asyncio.wait_for(first.reached.wait(), 10)
        assert proxy.operations()[-1] == "Part 1"
        assert first.hold is not None
        first.hold.set()
        assert (await writing).sha256 == sha256(LONG_BODY)


# --- however it is left


async def test_an_exception_leaves_no_parts(harness: S3Harness) -> None:
    async def fail() -> None:
        async with harness.store.upload(KEY, part=PART) as upload:
            await upload.write(LONG_BODY)
            assert harness.uploads() == [KEY]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert harness.objects() == set()


async def test_what_could_not_be_taken_back_is_taken_back_by_the_next_check(shaky: S3Harness, proxy: Proxy) -> None:
    fault = proxy.add(Fault("Abort", times=3, answer=error(503, "SlowDown")))
    async with shaky.store.upload(KEY, part=PART) as upload:
        await upload.write(LONG_BODY)
    assert fault.times == 0
    assert shaky.objects() == {f"{KEY} (in parts)"}
    await shaky.store.check()
    assert shaky.objects() == set()


async def test_a_check_that_is_broken_off_forgets_nothing_that_is_to_be_taken_back(shaky: S3Harness, proxy: Proxy) -> None:
    for key in ("a.wav", "b.wav"):
        proxy.add(Fault("Abort", times=3, answer=error(503, "SlowDown")))
        async with shaky.store.upload(key, part=PART) as upload:
            await upload.write(LONG_BODY)
    assert shaky.objects() == {"a.wav (in parts)", "b.wav (in parts)"}
    fault = proxy.add(Fault("Abort", hold=asyncio.Event()))
    check = asyncio.create_task(shaky.store.check())
    await asyncio.wait_for(fault.reached.wait(), 10)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    await shaky.store.check()
    assert shaky.objects() == set()


# --- what passes


async def test_an_error_inside_a_200_is_an_error(shaky: S3Harness, proxy: Proxy) -> None:
    """What takes long, S3 answers before it is done."""
    proxy.add(Fault("Complete", answer=error(200, "InternalError")))
    await keep(shaky, LONG_BODY)
    assert proxy.count("Complete") == 2
    proxy.add(Fault("Complete", answer=error(200, "EntityTooLarge")))
    with pytest.raises(StoreError, match="EntityTooLarge"):
        await keep(shaky, LONG_BODY, "other.wav")
    assert shaky.objects() == {KEY}


async def test_another_conditional_write_under_way_is_waited_out(shaky: S3Harness, proxy: Proxy) -> None:
    proxy.add(Fault("Put|Complete", answer=error(409, "ConditionalRequestConflict"), times=2))
    await keep(shaky)
    assert proxy.count("Put") == 3
    proxy.add(Fault("Complete", answer=error(409, "ConditionalRequestConflict")))
    await keep(shaky, LONG_BODY, "long.wav")
    assert shaky.objects() == {KEY, "long.wav"}


async def test_a_server_that_hangs_is_given_up(shaky: S3Harness, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that takes no more bytes: aiohttp has no limit for that."""
    monkeypatch.setattr("archiver.stores.bucket.wire.STALL_SECONDS", 2.0)
    proxy.add(Fault("Part 1", hold=asyncio.Event()))
    assert (await keep(shaky, LONG_BODY)).sha256 == sha256(LONG_BODY)
    assert proxy.count("Part 1") == 2


# --- what does not pass


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AccessDenied", StoreUnavailable, "s3:PutObject"),
        (404, "NoSuchBucket", StoreUnavailable, "create the bucket"),
        (403, "InvalidAccessKeyId", StoreUnavailable, "access_key_id"),
        (403, "SignatureDoesNotMatch", StoreUnavailable, "secret access key"),
        (400, "ExpiredToken", StoreUnavailable, "renew it"),
        (403, "RequestTimeTooSkewed", StoreUnavailable, "clock"),
        (403, "QuotaExceeded", StoreUnavailable, "quota"),
        (507, "XMinioStorageFull", StoreUnavailable, "free disk space"),
        (501, "NotImplemented", StoreUnavailable, "lacks"),
        (400, "SomethingNew", StoreUnavailable, "archiver doctor"),
        (400, "KeyTooLongError", StoreError, "shorten storage.path"),
        (400, "EntityTooLarge", StoreError, "of this size"),
    ],
)
async def test_a_refusal_says_what_to_do(seaweedfs: S3Server, status: int, code: str, kind: type[StoreError], hint: str) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        await harness.s3.driver.trial.result()
        proxy.requests.clear()
        proxy.add(Fault("Put", times=9, answer=error(status, code)))
        with pytest.raises(StoreError) as caught:
            await keep(harness)
        assert type(caught.value) is kind
        assert code in caught.value.message
        assert hint in caught.value.hint
        assert caught.value.facts["store_key"] == KEY
        assert proxy.operations() == ["Put"]


@pytest.mark.parametrize(
    "answer",
    [
        error(301, "PermanentRedirect", headers="x-amz-bucket-region: eu-north-1\r\nLocation: http://127.0.0.1:1/\r\n"),
        error(400, "AuthorizationHeaderMalformed", inside="<Region>eu-north-1</Region>"),
        b"HTTP/1.1 400 X\r\nx-amz-bucket-region: eu-north-1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ],
)
async def test_the_wrong_region_is_told_with_the_right_one_and_no_redirect_is_followed(
    seaweedfs: S3Server, answer: bytes
) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault(".*", times=9, answer=answer))
        with pytest.raises(StoreUnavailable) as caught:
            await harness.store.check()
        assert "set storage.s3.region to eu-north-1" in caught.value.hint


async def test_no_secret_is_in_an_error_a_log_or_a_representation(seaweedfs: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    secret = "Wrong-secret/of+another=kind"
    async with s3_harness(seaweedfs, secret_access_key=secret) as harness:
        with pytest.raises(StoreUnavailable, match="SignatureDoesNotMatch") as caught:
            await keep(harness, LONG_BODY)
        told = [repr(caught.value), str(caught.value), repr(caught.value.facts), caught.value.hint]
        wire = harness.s3.objects.wire
        assert isinstance(wire, S3Wire)
        told += [repr(harness.store), repr(wire), repr(wire.signer)]
        told += [record.getMessage() for record in caplog.records]
        assert not [text for text in told if secret in text or SECRET_KEY in text]
    assert harness.objects() == set()


@pytest.mark.parametrize("length", [20_000, 4 * MEGABYTE])
async def test_a_server_that_refuses_before_it_has_read_the_body_is_heard(seaweedfs: S3Server, length: int) -> None:
    async with s3_harness(seaweedfs, secret_access_key="Wrong-secret/of+another=kind") as harness:
        body = Body.of(bytes(length))
        with pytest.raises(Refused) as caught:
            await harness.s3.objects.wire.send("PUT", harness.prefix + KEY, body=body, patient=False)
        assert caught.value.code == "SignatureDoesNotMatch"


# --- servers that fall short


@asynccontextmanager
async def behind(server: S3Server, *faults: Fault) -> AsyncIterator[tuple[S3Harness, Proxy]]:
    """A store whose server falls short in this."""
    async with Proxy(server.url) as proxy, s3_harness(server, endpoint=proxy.url) as harness:
        proxy.faults += faults
        yield harness, proxy


ALWAYS = 10**9


@pytest.mark.parametrize("body", [SMALL, LONG_BODY], ids=["small", "long"])
async def test_a_server_that_knows_no_sha256_is_held_to_md5(server: S3Server, body: bytes) -> None:
    strip = "(x-amz-checksum-sha256|x-amz-checksum-type)"
    async with behind(server, Fault("Put|Part.*|Head", ALWAYS, strip=strip)) as (harness, proxy):
        assert await keep(harness, body) == Saved(KEY, len(body), sha256(body))
        sent = [request for request in proxy.requests if re.match("Put|Part", request.operation)][-1]
        assert "content-md5" in sent.headers
        assert proxy.count("Get") == 1  # the trial's: nothing was read back
        assert (await keep(harness, body)).existed
        assert [advice.seen for advice in await harness.store.advice() if "SHA-256" in advice.seen]


@pytest.mark.parametrize("body", [SMALL, LONG_BODY], ids=["small", "long"])
async def test_where_the_etag_is_no_md5_either_the_object_is_read_back(seaweedfs: S3Server, body: bytes) -> None:
    strip = "(x-amz-checksum-sha256|x-amz-checksum-type|etag)"
    async with behind(seaweedfs, Fault("Put|Head", ALWAYS, strip=strip)) as (harness, proxy):
        part = Fault("Part.*", ALWAYS, strip="(x-amz-checksum-sha256)")
        proxy.add(part)
        await keep(harness, body)
        assert proxy.count("Get") == (2 if body is SMALL else 1)


@pytest.mark.thorough
@pytest.mark.parametrize("operation", ["Put", "Complete"])
async def test_a_server_that_would_overwrite_is_not_used(localstack: S3Server, operation: str) -> None:
    """SeaweedFS would notice that a signed header is missing; LocalStack takes every signature."""
    async with behind(localstack, Fault(operation, ALWAYS, blind_to="If-None-Match")) as (harness, _):
        for attempt in (harness.store.check(), keep(harness)):
            with pytest.raises(StoreUnavailable, match="would overwrite"):
                await attempt
        assert harness.objects() == set()


async def test_who_may_not_delete_can_still_archive_and_is_told(server: S3Server) -> None:
    async with behind(server, Fault("Delete", ALWAYS, answer=error(403, "AccessDenied"))) as (harness, _):
        await harness.store.check()
        await keep(harness)
        assert [advice for advice in await harness.store.advice() if "may not delete" in advice.seen]


async def test_a_server_without_tags_still_keeps_long_objects(shaky: S3Harness, proxy: Proxy) -> None:
    proxy.add(Fault("PUT tagging", ALWAYS, answer=error(501, "NotImplemented")))
    await keep(shaky, LONG_BODY)
    await keep(shaky, LONG_BODY, "other.wav")
    assert shaky.objects() == {KEY, "other.wav"}


async def test_what_is_not_s3_is_told_as_that(server: S3Server) -> None:
    page = b"<!doctype html><p>It works!"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(page), page)
    async with behind(server, Fault(".*", ALWAYS, answer=answer)) as (harness, _):
        with pytest.raises(StoreUnavailable):
            await harness.store.check()


# --- reading


async def test_a_reading_that_never_gets_on_ends(shaky: S3Harness, proxy: Proxy) -> None:
    await keep(shaky, LONG_BODY)
    proxy.add(Fault("Get", ALWAYS, cut_answer=0))
    with pytest.raises(StoreUnavailable, match="broke off after 0 bytes"):
        await content(shaky)
    assert proxy.count("Get") == 3


# --- leftovers


async def test_uploads_of_a_dead_worker_are_swept_and_no_others(harness: S3Harness) -> None:
    folder = "bot=b/date=2026-01-02/s1/recording"
    ours = [f"{folder}/a.wav", f"{folder}/_b ü&.wav"]
    others = ["bot=b/date=2026-01-02/s10/recording/a.wav", f"{folder}2/a.wav", f"{folder}/deeper/a.wav", "a.wav"]
    for key in [*ours, *ours, *others]:
        harness.server.client.create_multipart_upload(Bucket=harness.bucket, Key=harness.prefix + key)
    await keep(harness, SMALL, f"{folder}/kept.wav")

    async def discard(left_for: timedelta) -> bool:
        return await harness.store.discard(f"{folder}/{ANY_FILE}", part=PART, left_for=left_for)

    assert await discard(timedelta(minutes=1)) is False
    assert sorted(harness.uploads()) == sorted([*ours, *ours, *others])
    assert await discard(timedelta(seconds=-5)) is True
    assert await discard(timedelta(seconds=-5)) is False
    assert sorted(harness.uploads()) == sorted(others)
    assert harness.get(f"{folder}/kept.wav") == SMALL


@pytest.mark.parametrize("marker", ["<NextKeyMarker>{}</NextKeyMarker><NextUploadIdMarker>id-1</NextUploadIdMarker>", ""])
async def test_a_long_list_of_uploads_is_read_to_its_end(seaweedfs: S3Server, marker: str) -> None:
    """Where a server names no marker, the last upload of the page is it."""
    async with behind(seaweedfs) as (harness, proxy):
        at = harness.prefix + "s1/"
        two = _listed(at + "a.wav", 0) + _listed(at + "b.wav", 1)
        first = f"<R><IsTruncated>true</IsTruncated>{marker.format(at + 'b.wav')}{two}</R>"
        last = f"<R><IsTruncated>false</IsTruncated>{_listed(at + 'c.wav', 2)}</R>"
        for page in (first, last):
            proxy.add(Fault("GET .*uploads", answer=_page(page)))
        assert await harness.store.discard(f"s1/{ANY_FILE}", part=PART, left_for=timedelta(hours=1))
        assert [request.query["uploadId"] for request in proxy.requests if request.operation == "Abort"] == [
            "id-0",
            "id-1",
            "id-2",
        ]
        (second,) = (request for request in proxy.requests if "key-marker" in request.query)
        assert (second.query["key-marker"], second.query["upload-id-marker"]) == (at + "b.wav", "id-1")


def _listed(key: str, number: int) -> str:
    return f"<Upload><Key>{key}</Key><UploadId>id-{number}</UploadId><Initiated>2026-01-02T03:04:05.678Z</Initiated></Upload>"


def _page(document: str) -> bytes:
    body = document.encode()
    head = b"HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 2026 05:00:00 GMT\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % len(body) + body


async def test_where_sessions_share_a_folder_only_uploads_of_the_same_one_are_swept(harness: S3Harness) -> None:
    """As with the path `{kind}/{session_id}-{file_name}`."""
    for key in ("recording/s1-a.wav", "recording/s2-a.wav"):
        harness.server.client.create_multipart_upload(Bucket=harness.bucket, Key=harness.prefix + key)
    assert await harness.store.discard(f"recording/s1-{ANY_FILE}", part=PART, left_for=timedelta(seconds=-5))
    assert harness.uploads() == ["recording/s2-a.wav"]
    assert not await harness.store.discard("recording/s2-b.wav", part=PART, left_for=timedelta(seconds=-5))
    assert harness.uploads() == ["recording/s2-a.wav"]


# --- how objects are written


async def test_what_the_settings_say_of_objects_goes_with_each_that_begins(server: S3Server, proxy: Proxy) -> None:
    async with s3_harness(server, endpoint=proxy.url, tags="team=audit+legal,kind=a b") as harness:
        await keep(harness)
        await keep(harness, LONG_BODY, "long.wav")
        assert harness.tags(KEY) == {"team": "audit+legal", "kind": "a b"}
        assert harness.tags("long.wav") == {"team": "audit+legal", "kind": "a b", "archiver-sha256": sha256(LONG_BODY)}
    # Neither server here has keys to encrypt with.
    async with s3_harness(server, endpoint=proxy.url, sse="aws:kms", kms_key_id="alias/calls") as harness:
        proxy.requests.clear()
        proxy.add(Fault("Put|Create", 9, answer=error(400, "KMS.NotFoundException")))
        for body in (SMALL, LONG_BODY):
            with pytest.raises(StoreUnavailable, match="KMS"):
                await keep(harness, body)
        for request in proxy.requests:
            if request.operation not in ("Put", "Create"):
                continue
            assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/calls"


async def test_the_class_of_an_object_is_the_one_that_was_asked_for(server: S3Server) -> None:
    async with s3_harness(server, storage_class="STANDARD_IA") as harness:
        await keep(harness)
        await keep(harness, LONG_BODY, "long.wav")
        assert {harness.head(key)["StorageClass"] for key in (KEY, "long.wav")} == {"STANDARD_IA"}


@pytest.mark.parametrize(
    ("rule", "covers"),
    [
        ("<Status>Enabled</Status><Filter><Prefix>{}</Prefix></Filter>", True),
        ("<Status>Enabled</Status><Prefix></Prefix>", True),
        ("<Status>Enabled</Status><Filter/>", True),
        ("<Status>Disabled</Status><Filter/>", False),
        ("<Status>Enabled</Status><Filter><Prefix>elsewhere/</Prefix></Filter>", False),
        ("<Status>Enabled</Status><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>", False),
    ],
)
async def test_the_advice_on_leftovers_ends_with_a_rule_for_them(seaweedfs: S3Server, rule: str, covers: bool) -> None:
    ends = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>3</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    async with behind(seaweedfs) as (harness, proxy):
        assert [advice.seen for advice in await harness.store.advice()] == ["no lifecycle rule ends incomplete uploads"]
        body = f"<LifecycleConfiguration><Rule>{rule.format(harness.prefix)}{ends}</Rule></LifecycleConfiguration>".encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        proxy.add(Fault("GET lifecycle", answer=head % len(body) + body))
        assert bool(await harness.store.advice()) is not covers
        proxy.add(Fault("GET lifecycle", answer=error(403, "AccessDenied")))
        assert "may not be read" in (await harness.store.advice())[0].seen
