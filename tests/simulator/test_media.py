"""The media origin: whole bodies, ranges, and every fault."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.simulator.conftest import SESSION, Answer, Client

BODY = bytes(range(33, 127)) * 100


async def script(client: Client, *faults: dict[str, Any], **recording: Any) -> str:
    """One recording with these faults; a URL for it, good for several requests."""
    fields = {"audio": {"raw": BODY.decode()}, "faults": list(faults)} | recording
    client.sim.script({"session_id": SESSION, "recordings": [fields]})
    (url,) = await client.urls()
    return url


def parse(raw: bytes) -> tuple[bytes, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head, body


def media(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.sim.report()["media"]
    return found


async def whole(client: Client, url: str) -> None:
    answer = await client.fetch(url)
    assert (answer.status, answer.body) == (200, BODY)


async def test_a_body_is_what_sha256_of_says(client: Client) -> None:
    recordings = [{"audio": {"seconds": 20}}, {"audio": {"raw": "x"}}, {"audio": {"bytes": 1_000_000}}, {}]
    client.sim.script({"session_id": SESSION, "recordings": recordings})
    bodies = [(await client.fetch(url)).body for url in await client.urls()]
    assert [hashlib.sha256(body).hexdigest() for body in bodies] == client.sim.sha256_of(SESSION)
    assert media(client) == {
        "requests": 4,
        "bytes": sum(map(len, bodies)),
        "complete": 4,
        "altered_urls": 0,
        "expired_urls": 0,
        "leaked_auth": 0,
        "by_status": {"200": 4},
    }


async def test_a_large_body_streams_in_little_memory(client: Client) -> None:
    url = await script(client, audio={"bytes": 30_000_000})
    digest = hashlib.sha256()
    async with client.http.get(URL(url, encoded=True)) as response:
        assert response.content_length == 30_000_000
        async for piece in response.content.iter_chunked(1 << 18):
            digest.update(piece)
    assert [digest.hexdigest()] == client.sim.sha256_of(SESSION)


async def test_truncate_promises_more_than_it_sends(client: Client) -> None:
    url = await script(client, {"kind": "truncate", "at": 1000})
    head, body = parse(await client.raw(url))
    assert f"Content-Length: {len(BODY)}".encode() in head
    assert b"Connection: close" not in head
    assert body == BODY[:1000]
    assert media(client)["complete"] == 0
    await whole(client, url)


async def test_truncate_is_an_error_for_a_client_that_counts(client: Client) -> None:
    url = await script(client, {"kind": "truncate", "at": 0, "times": None})
    for _ in range(3):
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.fetch(url)


async def test_reset_after_some_bytes(client: Client) -> None:
    url = await script(client, {"kind": "reset", "at": 1000})
    with pytest.raises(ConnectionResetError):
        await client.raw(url)
    assert media(client)["by_status"] == {"200": 1}
    await whole(client, url)


async def test_reset_before_any_answer(client: Client) -> None:
    url = await script(client, {"kind": "reset"})
    with pytest.raises(ConnectionResetError):
        await client.raw(url)
    assert media(client)["by_status"] == {"reset": 1}
    await whole(client, url)


async def test_slow_keeps_its_speed_and_sends_everything(client: Client) -> None:
    url = await script(client, {"kind": "slow", "bytes_per_second": 20_000})
    began = time.monotonic()
    await whole(client, url)
    assert 0.4 < time.monotonic() - began < 3
    assert media(client)["complete"] == 1


async def test_stall_sends_some_bytes_and_then_nothing(client: Client) -> None:
    url = await script(client, {"kind": "stall", "at": 1000})
    async with client.http.get(URL(url, encoded=True)) as response:
        assert await response.content.readexactly(1000) == BODY[:1000]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.content.readany(), 0.1)
    assert media(client)["complete"] == 0


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        ({"kind": "status", "http_status": 503, "body": "busy"}, 503, "text/html", b"busy"),
        ({"kind": "page", "body": "<html>…</html>"}, 200, "text/html", "<html>…</html>".encode()),
        ({"kind": "page", "body": "<p>", "content_type": "audio/wav"}, 200, "audio/wav", b"<p>"),
        ({"kind": "json", "body": '{"error": 1}'}, 200, "application/json", b'{"error": 1}'),
        ({"kind": "empty"}, 200, "audio/wav", b""),
    ],
)
async def test_another_body_in_place_of_the_recording(
    client: Client, fault: dict[str, Any], status: int, content_type: str, body: bytes
) -> None:
    url = await script(client, fault | {"times": 2})
    for _ in range(2):
        answer = await client.fetch(url)
        assert (answer.status, answer.headers["Content-Type"], answer.body) == (status, content_type, body)
        assert answer.headers["Content-Length"] == str(len(body))
    assert media(client)["complete"] == 0
    await whole(client, url)


@pytest.mark.parametrize(("at", "complete"), [(1000, 0), (None, 1)])
async def test_no_length_ends_cleanly_without_a_promise(client: Client, at: int | None, complete: int) -> None:
    url = await script(client, {"kind": "no_length", "at": at})
    answer = await client.fetch(url)
    assert "Content-Length" not in answer.headers
    assert (answer.status, answer.body) == (200, BODY[:at])
    assert media(client)["complete"] == complete


async def test_redirect_to_the_same_origin_serves_the_recording_at_another_signed_url(client: Client) -> None:
    url = await script(client, {"kind": "redirect", "to": "same", "times": None})
    answer = await client.fetch(url)
    assert answer.status == 302
    location = answer.headers["Location"]
    assert location.startswith(client.sim.media_url + "/smartassist-recordings/")
    assert "$$" in location
    assert "%2B" in location
    assert (await client.fetch(location, encoded=False)).status == 403
    await whole(client, location)


async def test_redirect_elsewhere_is_verbatim(client: Client) -> None:
    to = "http://169.254.169.254/latest/meta-data/?a=%2b"
    url = await script(client, {"kind": "redirect", "to": to, "status": 307})
    answer = await client.fetch(url)
    assert (answer.status, answer.headers["Location"]) == (307, to)
    await whole(client, url)


async def test_faults_are_used_up_in_their_order_one_a_request(client: Client) -> None:
    url = await script(
        client,
        {"kind": "empty"},
        {"kind": "redirect", "to": "same"},
        {"kind": "status", "http_status": 503, "times": 2},
    )
    assert (await client.fetch(url + "x")).status == 403  # not accepted, so it uses up nothing
    assert [(await client.fetch(url)).status for _ in range(5)] == [200, 302, 503, 503, 200]


async def test_each_recording_has_its_own_faults(client: Client) -> None:
    bad = {"faults": [{"kind": "status", "http_status": 500, "times": None}]}
    client.sim.script({"session_id": SESSION, "recordings": [{}, bad, {}]})
    assert [(await client.fetch(url)).status for url in await client.urls()] == [200, 500, 200]


async def ranged(client: Client, url: str, value: str, if_range: str | None = None) -> Answer:
    headers = {"Range": value} | ({} if if_range is None else {"If-Range": if_range})
    return await client.fetch(url, headers=headers)


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=1000-", 1000, 9400), ("bytes=-5", 9395, 9400), ("bytes=9000-99999", 9000, 9400)],
)
async def test_a_range_is_served(client: Client, value: str, start: int, stop: int) -> None:
    answer = await ranged(client, await script(client), value)
    assert (answer.status, answer.body) == (206, BODY[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("value", ["bytes=9400-", "bytes=-0"])
async def test_a_range_beyond_the_end_cannot_be_had(client: Client, value: str) -> None:
    answer = await ranged(client, await script(client), value)
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */9400")


@pytest.mark.parametrize("value", ["bytes=5-1", "bytes=-", "bytes=0-1,3-4", "items=0-1", "nonsense"])
async def test_a_range_that_makes_no_sense_is_ignored(client: Client, value: str) -> None:
    answer = await ranged(client, await script(client), value)
    assert (answer.status, answer.body) == (200, BODY)


async def test_a_truncated_body_can_be_resumed_while_it_is_the_same(client: Client) -> None:
    url = await script(client, {"kind": "truncate", "at": 1000})
    head, body = parse(await client.raw(url))
    etag = next(line[6:].decode() for line in head.split(b"\r\n") if line.startswith(b"ETag: "))
    assert etag.startswith('"')
    rest = await ranged(client, url, "bytes=1000-", etag)
    assert (rest.status, body + rest.body) == (206, BODY)
    assert media(client)["complete"] == 1
    assert (await ranged(client, url, "bytes=1000-", '"another"')).status == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"), [({}, 400, "ExpiredToken"), ({"http_status": 200, "code": "AccessDenied"}, 200, "AccessDenied")]
)
async def test_an_error_of_s3_can_have_any_status(client: Client, fields: dict[str, Any], status: int, code: str) -> None:
    url = await script(client, {"kind": "s3_error", **fields})
    answer = await client.fetch(url)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/xml")
    assert f"<Code>{code}</Code>".encode() in answer.body
    await whole(client, url)


async def test_headers_of_a_recording_can_be_anything(client: Client) -> None:
    url = await script(client, {"kind": "headers", "headers": {"Content-Encoding": "gzip", "X-Long": "x" * 30_000}})
    head, body = parse(await client.raw(url, "Connection: close"))
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert b"X-Long: " + b"x" * 30_000 in head
    assert body == BODY
    await whole(client, url)


async def test_a_whole_recording_can_come_as_a_part(client: Client) -> None:
    url = await script(client, {"kind": "partial"})
    answer = await client.fetch(url)
    assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes 0-{len(BODY) - 1}/{len(BODY)}")
    assert answer.body == BODY
    await whole(client, url)


@pytest.mark.parametrize("content_length", [None, 5])
async def test_a_length_can_come_beside_chunks(client: Client, content_length: int | None) -> None:
    url = await script(client, {"kind": "both_lengths", "content_length": content_length}, audio={"bytes": 100_000})
    head, body = parse(await client.raw(url))
    assert b"Transfer-Encoding: chunked" in head
    assert f"Content-Length: {content_length or 100_000}\r\n".encode() in head
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    assert hashlib.sha256(found).hexdigest() == client.sim.sha256_of(SESSION)[0]
    assert media(client)["bytes"] == 100_000


@pytest.mark.parametrize(
    ("spelled", "raw"), [("escaped", b"/smartassist-rec"), ("space", b"/smartassist rec"), ("letter", "ä".encode())]
)
async def test_a_location_can_be_spelled_as_no_url_is(client: Client, spelled: str, raw: bytes) -> None:
    url = await script(client, {"kind": "redirect", "to": "same", "spelled": spelled, "hops": 3})
    for hop in range(3):
        head, _ = parse(await client.raw(url, "Connection: close"))
        (location,) = [line for line in head.split(b"\r\n") if line.startswith(b"Location: ")]
        assert (raw in location) == (hop == 2 or spelled == "escaped")
        url = location.decode().removeprefix("Location: ")
    await whole(client, url.replace(" ", "%20").replace("ä", "%C3%A4"))
    assert media(client)["by_status"] == {"302": 3, "200": 1}


async def test_only_a_redirect_to_this_origin_has_hops(client: Client) -> None:
    with pytest.raises(ValueError, match="hops and spelled need"):
        await script(client, {"kind": "redirect", "to": "http://elsewhere.example/", "hops": 2})
