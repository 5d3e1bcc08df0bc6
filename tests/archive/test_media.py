"""Signed URLs: requested byte for byte, from nowhere that a recording may not come from."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from archiver.archive.download import Download
from archiver.archive.media import MAX_REDIRECTS, MAX_URL, MediaClient, MediaHosts
from archiver.config import TransferSettings
from archiver.errors import (
    ArchiverError,
    MediaHostRefused,
    MediaUnreachable,
    MediaUrlExpired,
    MediaUrlRefused,
    RecordingRejected,
    TransferError,
)
from archiver.observe.transfers import Transfer, Transfers
from archiver.simulator.platform import Simulator
from tests.kore.conftest import SESSION, KoreHarness, dripping, http_answer, raw_server


class Names(AbstractResolver):
    """A name server of the test's own; remembers what it was asked."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses["any"].split(",")
        ]

    async def close(self) -> None:
        pass


class Fixed:
    """One URL, of which there is no fresh one."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def renew(self, refused: MediaUrlExpired) -> None:
        raise refused

    def refused_afresh(self) -> None:
        raise AssertionError


def hosts(*patterns: str) -> MediaHosts:
    return MediaHosts("bot", patterns)


@asynccontextmanager
async def media(*patterns: str, resolver: AbstractResolver | None = None, stall: float = 60.0) -> AsyncIterator[MediaClient]:
    terms = TransferSettings(stall_timeout=timedelta(seconds=stall))
    client = MediaClient(hosts(*(patterns or ("127.0.0.1",))), terms, resolver=resolver)
    try:
        yield client
    finally:
        await client.close()


async def fetched(client: MediaClient, url: str) -> bytes:
    async with Download(client, Fixed(url), Transfer("bot", "s", "f"), Transfers()) as body:
        return b"".join([piece async for piece in body.pieces()])


def refusal(allowed: MediaHosts, url: str) -> TransferError:
    with pytest.raises((MediaHostRefused, MediaUrlRefused)) as caught:
        allowed.check_url(url)
    return caught.value


# --- which hosts


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("*.kore.ai", "https://smartassist.kore.ai/x"),
        ("*.kore.ai", "https://a.b.kore.ai"),
        ("*.kore.ai", "https://SmartAssist.KORE.ai./x"),
        ("*.kore.ai", "https://media.kore.ai:8443/x?y"),
        ("media.kore.ai", "HTTPS://media.kore.ai?x"),
        ("*", "https://anything.example/x"),
        ("*", "https://8.8.8.8/x"),
        ("*", "https://[2606:4700::1111]/x"),
        ("8.8.8.8", "https://8.8.8.8/x"),
        ("*", "https://xn--mnchen-3ya.example/"),
        ("127.0.0.1", "http://127.0.0.1:9000/x"),
        ("::1", "http://[::1]:9000/x"),
        ("localhost", "http://localhost/x"),
        ("10.0.0.7", "https://10.0.0.7/x"),
        ("169.254.169.254", "https://169.254.169.254/x"),
    ],
)
def test_a_host_on_the_list_is_allowed(pattern: str, url: str) -> None:
    hosts("other.example", pattern).check_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "kore.ai",
        "evilkore.ai",
        "kore.ai.evil.com",
        "smartassist.kore.ai.evil.com",
        ".kore.ai",
        "smartassist-kore.ai",
        "8.8.8.8",
        "[2606:4700::1111]",
    ],
)
def test_a_host_that_the_list_does_not_cover_is_refused_by_name(host: str) -> None:
    error = refusal(hosts("*.kore.ai", "exact.example"), f"https://{host}/x?s=SIGNATURE")
    assert isinstance(error, MediaHostRefused)
    assert error.public
    assert error.host == host.strip("[]")
    assert "bots.bot.media_hosts" in error.hint
    assert "SIGNATURE" not in repr((error, error.facts))


INNER = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0a00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:0:0:0:0:80ff:fffe]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[ff0e::1]",
    "[64:ff9b:1::808:808]",
    "[2001:db8::1]",
    "[2002:808:808::1]",
    "[::ffff:0:808:808]",
    "[2606:4700::5efe:a00:1]",
]


@pytest.mark.parametrize("host", INNER)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_an_inner_address_is_refused_even_where_every_host_is_allowed(scheme: str, host: str) -> None:
    error = refusal(hosts("*", "localhost", "192.168.1.2"), f"{scheme}://{host}/latest/meta-data/")
    assert isinstance(error, MediaHostRefused)
    assert not error.public


@pytest.mark.parametrize("address", INNER)
async def test_a_name_that_leads_to_an_inner_address_is_refused(address: str) -> None:
    resolver = Names(any=f"8.8.8.8,{address.strip('[]')}")
    async with media("*", resolver=resolver) as client:
        with pytest.raises(MediaHostRefused) as caught:
            await fetched(client, "https://rebound.example/x")
    assert not caught.value.public
    assert caught.value.facts["address"] == address.strip("[]")
    assert resolver.asked == ["rebound.example"]


@pytest.mark.parametrize("host", ["localhost", "localhost.", "LOCALHOST", "0x7f.1", "0x7f000001", "0177.0x1"])
async def test_a_spelling_that_the_system_takes_for_this_machine_is_refused(host: str) -> None:
    async with raw_server(lambda head: http_answer(b"inner")) as raw, media("*") as client:
        with pytest.raises((MediaHostRefused, MediaUrlRefused)):
            await fetched(client, raw.url.replace("http://127.0.0.1", f"https://{host}"))
        with pytest.raises((MediaHostRefused, MediaUrlRefused)):
            await fetched(client, raw.url.replace("127.0.0.1", host))
    assert raw.heads == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.1.", "127.0.0.01", "0"])
async def test_a_number_in_place_of_a_host_is_refused_for_good(host: str) -> None:
    async with media("*") as client:
        with pytest.raises((MediaHostRefused, MediaUrlRefused)):
            await fetched(client, f"https://{host}/")


async def test_a_name_that_is_listed_literally_may_lead_inside() -> None:
    resolver = Names(any="127.0.0.1")
    async with raw_server(lambda head: http_answer(b"inner")) as raw, media("localhost", resolver=resolver) as client:
        assert await fetched(client, raw.url.replace("127.0.0.1", "localhost") + "/x") == b"inner"


async def test_a_wildcard_does_not_list_anything_literally() -> None:
    async with media("*.corp.example", resolver=Names(any="10.0.0.1")) as client:
        with pytest.raises(MediaHostRefused):
            await fetched(client, "https://minio.corp.example/x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "//media.kore.ai/x",
        "file:///etc/passwd",
        "ftp://media.kore.ai/x",
        "javascript:alert(1)",
        "data:audio/wav;base64,UklGRg==",
        "https:///x",
        "https://",
        "https:media.kore.ai/x",
        "https://user@media.kore.ai/x",
        "https://user:word@media.kore.ai/x",
        "https://evil.com@media.kore.ai/x",
        "https://media.kore.ai@evil.com/x",
        "https://evil.com\\@media.kore.ai/x",
        "https://evil.com\\.kore.ai/x",
        "https://evil.com#.kore.ai/x",
        "https://evil.com%2f.kore.ai/x",
        "https://%6dedia.kore.ai/x",
        "https://media.kore.ai/x\r\nauth: y",
        "https://media.kore.ai/x\n",
        "\thttps://media.kore.ai/x",
        "https://media.kore.ai/a b",
        "https://media.kore.ai/é",
        "https://mediä.kore.ai/",
        "https://media.kore.ai。/x",
        "https://media.kore.ai:0/x",
        "https://media.kore.ai:65536/x",
        "https://media.kore.ai:x/x",
        "https://media.kore.ai:443:80/x",
        "https://[::1/x",
        "https://[fe80::1%25eth0]/x",
        "https://media.kore.ai/\0",
        f"https://{'a' * 254}/x",
        "https://media.kore.ai/\ud800",
        "http://media.kore.ai/x",
        "HTTP://8.8.8.8/x",
    ],
)
def test_what_is_no_plain_https_url_is_refused_without_its_query_being_told(url: str) -> None:
    error = refusal(hosts("*", "*.kore.ai"), url + "?s=SIGNATURE")
    assert isinstance(error, MediaUrlRefused)
    for secret in ("SIGNATURE", "word@"):
        assert secret not in repr((error, error.message, error.facts))


async def test_no_url_takes_long_to_refuse() -> None:
    """Some thousand characters took nine seconds of the event loop, 300 KB outlasted the lease."""
    began = time.process_time()
    for host in ("." * 16_000, "." * 300_000, "._-" * 100_000, "a." * 150_000, "a" * 8_000 + "!"):
        error = refusal(hosts("*"), f"https://{host}")
        assert isinstance(error, MediaUrlRefused)
        assert len(repr((error, error.facts))) < 1000
    assert time.process_time() - began < 0.5


async def test_a_url_is_bounded_in_a_redirect_too() -> None:
    def reply(head: str) -> bytes:
        return http_answer(b"", "302 Found", Location="/" + "x" * (MAX_URL - 40)) if "GET /a " in head else http_answer(b"ok")

    async with raw_server(reply) as raw, media() as client:
        with pytest.raises(MediaUrlRefused, match="8192"):
            await fetched(client, f"{raw.url}/{'a' * MAX_URL}")
        assert raw.heads == []
        assert await fetched(client, f"{raw.url}/a") == b"ok"


# --- what goes over the wire

TRICKY = "/a//b/./c/../%41%7e%2F;p=1?e=1&n=2&s=$$+%2B%7E~%2a*/=%zz'()[]{}|\\^`<>\"&&x=%C3%A9?#"


async def test_a_url_is_requested_byte_for_byte() -> None:
    async with raw_server(lambda head: http_answer(b"ok")) as raw, media() as client:
        assert await fetched(client, raw.url + TRICKY) == b"ok"
    assert raw.targets == [TRICKY.removesuffix("#")]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("relative", [False, True])
async def test_a_redirect_is_followed_byte_for_byte_too(status: str, relative: bool) -> None:
    # An absolute one is not put together anew: that would lose the empty ";".
    target = ("/b" if relative else "/./b;") + "?s=$$+%2B%7E~%2a*/=&&x=%C3%A9"

    def reply(head: str) -> bytes:
        if head.startswith("GET /a "):
            return http_answer(b"", status, Location=("" if relative else raw.url) + target)
        return http_answer(b"ok")

    async with raw_server(reply) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == b"ok"
    assert raw.targets == ["/a", target]


async def test_the_platforms_signed_urls_arrive_unaltered_and_without_a_token(simulator: Simulator, kore: KoreHarness) -> None:
    faults = [{"kind": "redirect", "to": "same"}]
    simulator.script({"session_id": SESSION, "recordings": [{}, {"faults": faults}]})
    answer = await kore.ask()
    async with media() as client:
        for file in answer.files:
            assert (await fetched(client, file.url)).startswith(b"RIFF")
    report = simulator.report()["media"]
    assert (report["requests"], report["complete"]) == (3, 2)
    assert (report["altered_urls"], report["leaked_auth"]) == (0, 0)


async def test_nothing_of_ours_goes_to_the_media_host() -> None:
    reply = http_answer(b"", "302 Found", Location="/b", Set_Cookie="a=b")
    async with raw_server(lambda head: reply if "GET /a " in head else http_answer(b"ok")) as raw, media() as client:
        await fetched(client, f"{raw.url}/a")
    for head in raw.heads:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "accept", "accept-encoding", "user-agent"}
        assert "accept-encoding: identity" in head.lower()


# --- redirects


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("http://169.254.169.254/latest/meta-data/", MediaHostRefused),
        ("https://169.254.169.254/", MediaHostRefused),
        ("//10.0.0.1/x", MediaHostRefused),
        ("https://evil.com/x", MediaHostRefused),
        ("file:///etc/passwd", MediaUrlRefused),
        ("http://u:p@127.0.0.1/x", MediaUrlRefused),
        ("http://127.0.0.1:x/", MediaUrlRefused),
        ("http://127.0.0.1é/x", MediaUrlRefused),
        ("//[", MediaUrlRefused),
        ("http://[::1", MediaUrlRefused),
    ],
)
async def test_a_redirect_is_checked_like_the_url_itself(location: str, error: type[ArchiverError]) -> None:
    async with raw_server(lambda head: http_answer(b"", "302 Found", Location=location)) as raw, media() as client:
        with pytest.raises(error):
            await fetched(client, f"{raw.url}/a")
    assert len(raw.heads) == 1


async def test_redirects_come_to_an_end() -> None:
    async with raw_server(lambda head: http_answer(b"", "302 Found", Location="/again")) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await client.open(f"{raw.url}/a")
    assert caught.value.reason == "media_redirects"
    assert len(raw.heads) == MAX_REDIRECTS + 1


async def test_a_redirect_to_nowhere_is_an_answer_like_any_other() -> None:
    async with raw_server(lambda head: http_answer(b"", "302 Found")) as raw, media() as client:
        with pytest.raises(RecordingRejected) as caught:
            await fetched(client, f"{raw.url}/a")
    assert caught.value.reason == "media_http_302"
    assert len(raw.heads) == 1


# --- answers


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (401, MediaUrlExpired, "media_url_rejected"),
        (403, MediaUrlExpired, "media_url_rejected"),
        (404, MediaUrlExpired, "media_url_rejected"),
        (410, MediaUrlExpired, "media_url_rejected"),
        (429, MediaUnreachable, "media_http_429"),
        (500, MediaUnreachable, "media_http_500"),
        (503, MediaUnreachable, "media_http_503"),
        (204, RecordingRejected, "media_http_204"),
        (206, RecordingRejected, "media_http_206"),
        (300, RecordingRejected, "media_http_300"),
        (304, RecordingRejected, "media_http_304"),
        (400, RecordingRejected, "media_http_400"),
        (418, RecordingRejected, "media_http_418"),
    ],
)
async def test_a_status_that_brings_no_recording(status: int, error: type[TransferError], reason: str) -> None:
    body = b"" if status in (204, 304) else b"RIFF"
    async with raw_server(lambda head: http_answer(body, f"{status} X")) as raw, media() as client:
        with pytest.raises(TransferError) as caught:
            await fetched(client, f"{raw.url}/a?s=SIGNATURE")
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert caught.value.facts["http_status"] == status
    assert "SIGNATURE" not in repr((caught.value, caught.value.facts))


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x-unknown"])
async def test_a_body_that_was_encoded_unasked_is_rejected(encoding: str) -> None:
    async with raw_server(lambda head: http_answer(b"x", Content_Encoding=encoding)) as raw, media() as client:
        with pytest.raises(RecordingRejected) as caught:
            await fetched(client, f"{raw.url}/a")
    assert caught.value.reason == "media_encoded"


async def test_identity_is_no_encoding() -> None:
    async with raw_server(lambda head: http_answer(b"x", Content_Encoding="Identity")) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == b"x"


# --- faults


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "reset"}, "media_unreachable"),
        ({"kind": "reset", "at": 1000}, "recording_truncated"),
        ({"kind": "truncate", "at": 1000}, "recording_truncated"),
        ({"kind": "stall", "at": 1000}, "recording_stalled"),
        ({"kind": "stall"}, "recording_stalled"),
    ],
)
async def test_a_broken_connection_is_translated(
    simulator: Simulator, kore: KoreHarness, fault: dict[str, object], reason: str
) -> None:
    simulator.script({"session_id": SESSION, "recordings": [{"faults": [fault | {"times": None}]}]})
    (file,) = (await kore.ask()).files
    async with media(stall=0.3 if fault["kind"] == "stall" else 30) as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetched(client, file.url)
    assert caught.value.reason == reason
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "reply", [b"", b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_what_is_no_http_is_a_fault(reply: bytes) -> None:
    async with raw_server(lambda head: reply) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetched(client, f"{raw.url}/a?s=SIGNATURE")
    assert "SIGNATURE" not in repr((caught.value, caught.value.facts))


@asynccontextmanager
async def flooding(first: bytes, flood: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a server that answers with `first`, then with `flood` for ever; and whether anybody has stopped it."""
    stopped = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            for _ in range(2000):
                writer.write(flood)
                await writer.drain()
        except ConnectionError:
            stopped.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a", stopped
    finally:
        server.close()


INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2500
UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" * 2000


async def test_answers_before_the_answer_have_an_end() -> None:
    """Each was read and thrown away, and nothing else of the worker ran meanwhile."""
    async with flooding(b"", INTERIM) as (url, stopped), media() as client:
        with pytest.raises(MediaUnreachable, match="more answers than were asked for"):
            await client.open(url)
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_few_answers_before_the_answer_are_none_too_many() -> None:
    reply = b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + http_answer(b"abc")
    async with raw_server(lambda head: reply) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == b"abc"


@pytest.mark.parametrize("flood", [INTERIM, UNASKED], ids=["interim", "unasked"])
async def test_what_comes_over_an_idle_connection_ends_it(flood: bytes) -> None:
    """It was read and kept in memory, a hundred megabytes a second, as long as the connection might have been used again."""
    async with flooding(http_answer(b"abc").replace(b"Connection: close\r\n", b""), flood) as (url, stopped), media() as client:
        assert await fetched(client, url) == b"abc"
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_certificate_that_nobody_vouches_for_is_a_fault_and_nothing_is_asked(unknown_authority: ssl.SSLContext) -> None:
    async with raw_server(lambda head: http_answer(b"x"), tls=unknown_authority) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetched(client, f"{raw.url}/a?s=SIGNATURE")
    assert "Certificate" in caught.value.facts["error"]
    assert raw.heads == []


async def test_a_name_that_nobody_knows_is_a_fault_that_may_pass() -> None:
    class Nobody(Names):
        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
            raise OSError(None, "no such name")

    async with media("*", resolver=Nobody()) as client:
        with pytest.raises(MediaUnreachable):
            await fetched(client, "https://gone.example/x")


async def test_a_host_name_too_long_for_any_name_server_is_refused() -> None:
    async with media("*") as client:
        with pytest.raises((MediaUrlRefused, MediaUnreachable)):
            await fetched(client, f"https://{'a' * 70}.example/")


async def test_a_reader_that_stops_early_or_is_cancelled_leaves_no_connection(simulator: Simulator, kore: KoreHarness) -> None:
    simulator.script({"session_id": SESSION, "recordings": [{"faults": [{"kind": "stall", "at": 100, "times": None}]}]})
    (file,) = (await kore.ask()).files
    async with media() as client:
        task = asyncio.create_task(fetched(client, file.url))
        await simulator.wait_for(lambda report: report["media"]["bytes"] >= 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with Download(client, Fixed(file.url), Transfer("bot", "s", "f"), Transfers()) as body:
            assert await anext(body.pieces())
        connector = client._http.connector
        assert connector is not None
        assert not connector._acquired
        assert not connector._conns


async def test_an_error_of_the_caller_passes_untranslated() -> None:
    async with raw_server(lambda head: http_answer(b"x")) as raw, media() as client:
        with pytest.raises(ZeroDivisionError):
            async with Download(client, Fixed(f"{raw.url}/a"), Transfer("bot", "s", "f"), Transfers()):
                raise ZeroDivisionError


# --- answers that are not as they should be


def chunked(body: bytes) -> bytes:
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in (body[:10], body[10:])) + b"0\r\n\r\n"


AUDIO = b"RIFF" + bytes(range(200))


@pytest.mark.parametrize("length", ["4", "204", "100000"])
async def test_a_length_beside_chunks_never_cuts_the_body_short(length: str) -> None:
    """Which of the two counts cannot be told for sure: a proxy in between may have seen another one (RFC 9112, 6.3)."""
    reply = http_answer(chunked(AUDIO), Content_Length=length, Transfer_Encoding="chunked")
    async with raw_server(lambda head: reply) as raw, media() as client:
        with pytest.raises(MediaUnreachable, match="Content-Length") as caught:
            await client.open(f"{raw.url}/a")
    assert caught.value.reason == "media_answer_unreadable"


@pytest.mark.parametrize("headers", [{"X_Long": "x" * 30_000}, {"Set_Cookie": "c=" + "y" * 60_000}])
async def test_a_header_may_be_long(headers: dict[str, str]) -> None:
    async with raw_server(lambda head: http_answer(AUDIO, **headers)) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == AUDIO


@pytest.mark.parametrize(
    "reply",
    [
        http_answer(AUDIO, X="x" * 70_000),
        http_answer(AUDIO, **{f"X{number}": "x" for number in range(1000)}),
        http_answer(AUDIO, status="2OO OK"),
        http_answer(AUDIO, Content_Length="many"),
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    ],
    ids=["long header", "many headers", "no status", "no length", "not HTTP", "no colon"],
)
async def test_what_the_parser_refuses_is_named_so(reply: bytes) -> None:
    async with raw_server(lambda head: reply) as raw, media() as client:
        with pytest.raises(MediaUnreachable, match="cannot be read as HTTP") as caught:
            await client.open(f"{raw.url}/a?s=SIGNATURE")
    assert caught.value.reason == "media_answer_unreadable"
    assert "SIGNATURE" not in repr((caught.value, caught.value.facts))


@pytest.mark.parametrize("encoding", ["aws-chunked", "UTF-8", "utf8", "binary", "none", "identity, aws-chunked", "", " , "])
async def test_what_encodes_nothing_is_no_encoding(encoding: str) -> None:
    async with raw_server(lambda head: http_answer(AUDIO, Content_Encoding=encoding)) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == AUDIO


async def test_a_partial_answer_that_has_all_is_as_good_as_a_whole_one() -> None:
    whole = f"bytes 0-{len(AUDIO) - 1}/{len(AUDIO)}"
    for reply in (
        http_answer(AUDIO, "206 Partial Content", Content_Range=whole),
        http_answer(chunked(AUDIO), "206 Partial Content", Content_Range=whole, Transfer_Encoding="chunked"),
    ):
        async with (
            raw_server(lambda head, reply=reply: reply) as raw,  # type: ignore[misc]
            media() as client,
            Download(client, Fixed(f"{raw.url}/a"), Transfer("bot", "s", "f"), Transfers()) as body,
        ):
            assert body.expected == len(AUDIO)
            assert b"".join([piece async for piece in body.pieces()]) == AUDIO


@pytest.mark.parametrize(
    "given",
    [
        "",
        "bytes 0-99/204",
        "bytes 1-203/204",
        "bytes 0-203/*",
        "bytes 0-203/205",
        "bytes 0-204/205",
        "bytes 0-9223372036854775807999/1",
        "items 0-203/204",
    ],
)
async def test_a_partial_answer_that_has_less_or_says_otherwise_is_refused(given: str) -> None:
    reply = http_answer(AUDIO, "206 Partial Content", Content_Range=given)
    async with raw_server(lambda head: reply) as raw, media() as client:
        with pytest.raises(RecordingRejected) as caught:
            await client.open(f"{raw.url}/a")
    assert caught.value.reason == "media_http_206"


def xml(code: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>s=SIGNATURE</Message></Error>'.encode()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, xml("ExpiredToken"), MediaUrlExpired),
        (400, xml("RequestExpired"), MediaUrlExpired),
        (400, xml("TokenRefreshRequired"), MediaUrlExpired),
        (400, b"\xef\xbb\xbf" + xml("AuthenticationFailed"), MediaUrlExpired),
        (400, xml("InvalidArgument"), RecordingRejected),
        (400, b"ExpiredToken", RecordingRejected),
        (400, b"", RecordingRejected),
        (400, b"x" * 100_000 + xml("ExpiredToken"), RecordingRejected),
        (403, xml("AccessDenied"), MediaUrlExpired),
        (403, xml("ExpiredToken"), MediaUrlExpired),
    ],
)
async def test_a_url_whose_time_is_over_is_known_by_the_hosts_word_for_it(
    status: int, body: bytes, error: type[TransferError]
) -> None:
    async with raw_server(lambda head: http_answer(body, f"{status} X")) as raw, media() as client:
        with pytest.raises(TransferError) as caught:
            await client.open(f"{raw.url}/a")
    assert type(caught.value) is error
    assert caught.value.facts["http_status"] == status
    assert "SIGNATURE" not in repr((caught.value, caught.value.facts))


async def test_a_refusal_that_never_ends_is_not_waited_for() -> None:
    async with dripping(b"HTTP/1.1 400 X\r\n\r\n", b"x" * 4096) as url, media() as client:
        with pytest.raises(RecordingRejected):
            await asyncio.wait_for(client.open(f"{url}/a"), 10)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b c.wav?s=%2B~+a b", "/b%20c.wav?s=%2B~+a%20b"),
        ("{url}/b c.wav?s=%2B~+a", "/b%20c.wav?s=%2B~+a"),
        ("/\u00c3\u00a9.wav?x=%C3%A9", "/%C3%A9.wav?x=%C3%A9"),  # UTF-8, as http_answer writes it
        ("{url}/a;\u00e9?s=$$", "/a;%E9?s=$$"),  # not UTF-8
    ],
)
async def test_a_redirect_has_just_those_bytes_encoded_that_no_url_has(location: str, target: str) -> None:
    def reply(head: str) -> bytes:
        if head.startswith("GET /a "):
            return http_answer(b"", "302 Found", Location=location.replace("{url}", raw.url))
        return http_answer(AUDIO)

    async with raw_server(reply) as raw, media() as client:
        assert await fetched(client, f"{raw.url}/a") == AUDIO
    assert raw.targets == ["/a", target]
