"""Listing a bucket: pages, versions, and servers that fall short."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from archiver.errors import StoreError, StoreUnavailable
from archiver.stores import Listed
from archiver.stores.azure import listing as azure_listing
from archiver.stores.bucket import driver
from archiver.stores.s3 import listing as s3_listing
from tests.s3_servers import LOCKED_BUCKET, S3Server
from tests.stores.harnesses import BucketHarness, azure_harness, s3_harness
from tests.stores.proxy import Fault, Proxy, error

pytestmark = pytest.mark.once

KEYS = [f"a/{number:02}.wav" for number in range(11)]


@pytest.fixture(params=["seaweedfs", "azurite"])
async def bucket(request: pytest.FixtureRequest) -> AsyncIterator[BucketHarness]:
    opened = s3_harness if request.param == "seaweedfs" else azure_harness
    async with opened(request.getfixturevalue(request.param)) as harness:
        yield harness


async def listed(harness: BucketHarness, prefix: str = "", *, versions: bool = False) -> list[Listed]:
    return [each async for each in harness.store.list(prefix, versions=versions)]


@pytest.mark.parametrize("versions", [False, True])
async def test_page_after_page(bucket: BucketHarness, monkeypatch: pytest.MonkeyPatch, versions: bool) -> None:
    for module in (s3_listing, azure_listing):
        monkeypatch.setattr(module, "LISTED", 3)
    for key in KEYS:
        bucket.put(key, b"1")
    assert [each.key for each in await listed(bucket, "a/", versions=versions)] == KEYS
    assert [each.key for each in await listed(bucket, "a/0", versions=versions)] == KEYS[:10]


async def test_what_a_bucket_keeps_of_what_was_overwritten_or_deleted(seaweedfs: S3Server) -> None:
    async with s3_harness(seaweedfs, bucket=LOCKED_BUCKET) as harness:
        for content in (b"1", b"12", b"123"):
            harness.put("a.wav", content)
        harness.put("b.wav", b"1")
        harness.remove("b.wav")
        harness.put("c.wav", b"1")
        told = [(each.key, each.bytes, each.latest, each.deleted) for each in await listed(harness, versions=True)]
        assert told == [
            ("a.wav", 3, True, False),
            ("a.wav", 2, False, False),
            ("a.wav", 1, False, False),
            ("b.wav", None, True, True),
            ("b.wav", 1, False, False),
            ("c.wav", 1, True, False),
        ]
        assert len({each.version for each in await listed(harness, versions=True)}) == 6
        assert [each.key for each in await listed(harness)] == ["a.wav", "c.wav"]


def answer(inside: str, root: str = "ListBucketResult") -> bytes:
    body = f"<?xml version='1.0'?>\n<{root}>{inside}</{root}>".encode()
    return b"HTTP/1.1 200 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def contents(key: str, more: str = "<Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified>") -> str:
    return f"<Contents><Key>{key}</Key>{more}</Contents>"


TRUNCATED = "<IsTruncated>true</IsTruncated>"


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        (TRUNCATED, "EndlessListing"),
        (TRUNCATED + "<NextContinuationToken>x</NextContinuationToken>", "EndlessListing"),
        (TRUNCATED + "<NextContinuationToken>x</NextContinuationToken>" + contents("PREFIXa.wav"), "EndlessListing"),
        (contents("elsewhere/a.wav"), "NotAsked"),
        (contents("PREFIXa.wav", "<Size>1</Size><LastModified>9999-12-31T23:59:59-12:00</LastModified>"), "NoListing"),
        (contents("PREFIXa.wav", ""), "NoListing"),
        (contents("PREFIXa.wav", "<Size>-1</Size><LastModified>2026-01-02T03:04:05Z</LastModified>"), "NoListing"),
        (contents("PREFIXa.wav", "<Size>1</Size><LastModified>yesterday</LastModified>"), "NoListing"),
        (contents(""), "NoListing"),
    ],
)
async def test_a_server_that_lists_nonsense_is_named(seaweedfs: S3Server, inside: str, told: str) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault("GET .*", times=99, answer=answer(inside.replace("PREFIX", harness.prefix))))
        with pytest.raises(StoreError) as caught:
            await listed(harness)
        assert caught.value.facts["error"] == told
        assert len(proxy.requests) < 5


async def test_a_listing_that_gives_page_after_empty_page_ends(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MAX_EMPTY", 3)
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        for number in range(9):
            inside = f"{TRUNCATED}<NextContinuationToken>{number}</NextContinuationToken>"
            proxy.add(Fault("GET .*", answer=answer(inside)))
        with pytest.raises(StoreError, match="goes round in circles"):
            await listed(harness)
        assert len(proxy.requests) == 4


async def test_who_may_not_list_versions_is_told_so(seaweedfs: S3Server) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault("GET .*versions.*", answer=error(403, "AccessDenied")))
        with pytest.raises(StoreError) as caught:
            await listed(harness, versions=True)
        assert caught.value.facts["error"] == "AccessDenied"
        assert await listed(harness) == []


async def test_a_page_that_breaks_off_is_asked_for_again(seaweedfs: S3Server) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        harness.put("a.wav", b"1")
        proxy.add(Fault("GET .*", cut_answer=20))
        assert [each.key for each in await listed(harness)] == ["a.wav"]


async def test_what_is_no_xml_is_no_listing(seaweedfs: S3Server) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault("GET .*", answer=b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"))
        with pytest.raises(StoreUnavailable, match="the answer is not XML"):
            await listed(harness)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (answer("<body/>", "html"), "NoListing"),
        (answer("<Version/>", "ListVersionsResult"), "NoListing"),
        (answer("").replace(b"?>", b" encoding='utf-7'?>", 1), "NotXml"),
    ],
)
async def test_what_is_no_listing_is_no_empty_store(seaweedfs: S3Server, body: bytes, told: str) -> None:
    _, _, rest = body.partition(b"\r\n\r\n")
    body = b"HTTP/1.1 200 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(rest) + rest
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault("GET .*", times=9, answer=body))
        with pytest.raises(StoreError) as caught:
            await listed(harness)
        assert caught.value.facts["error"] == told


async def test_a_listing_that_goes_round_in_a_larger_circle_ends(seaweedfs: S3Server) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        for number in range(30):
            token = f"<NextContinuationToken>{'abc'[number % 3]}</NextContinuationToken>"
            proxy.add(Fault("GET .*", answer=answer(TRUNCATED + token + contents(f"{harness.prefix}a.wav"))))
        with pytest.raises(StoreError, match="goes round in circles"):
            await listed(harness)


async def test_the_marker_of_the_stores_own_folder_is_no_object(seaweedfs: S3Server) -> None:
    async with Proxy(seaweedfs.url) as proxy, s3_harness(seaweedfs, endpoint=proxy.url) as harness:
        proxy.add(Fault("GET .*", answer=answer(contents(harness.prefix) + contents(f"{harness.prefix}a.wav"))))
        assert [each.key for each in await listed(harness)] == ["a.wav"]
