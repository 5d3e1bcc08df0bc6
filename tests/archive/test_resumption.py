"""A body goes on where its connection broke, if it is the same file still; else it begins again."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from archiver.archive import media as media_module
from archiver.archive.download import Download
from archiver.archive.excerpt import HEAD_BYTES
from archiver.archive.media import MediaClient, MediaHosts
from archiver.config import TransferSettings
from archiver.errors import MediaNotResumable, MediaUnreachable, MediaUrlExpired
from archiver.observe.transfers import Transfer, Transfers
from archiver.runtime import retry as transient
from archiver.runtime.bandwidth import Bandwidth
from tests.kore.conftest import RawServer, http_answer, raw_server
from tests.kore.conftest import dripping as drips

BODY = bytes(range(256)) * 4000
ETAG = '"the-first-edition"'
NOW = datetime.now(UTC)


class Urls:
    """The signed URLs of one file; each renewal takes the next one."""

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)
        self.refused = 0

    @property
    def url(self) -> str:
        return self._urls[0]

    async def renew(self, refused: MediaUrlExpired) -> None:
        if len(self._urls) == 1:
            raise refused
        del self._urls[0]

    def refused_afresh(self) -> None:
        self.refused += 1


@asynccontextmanager
async def media(**terms: object) -> AsyncIterator[MediaClient]:
    limit = terms.pop("max_bandwidth", None)
    client = MediaClient(
        MediaHosts("bot", ("127.0.0.1",)),
        TransferSettings.model_validate(terms),
        bandwidth=Bandwidth(limit) if isinstance(limit, int) else None,
    )
    try:
        yield client
    finally:
        await client.close()


async def fetch(client: MediaClient, urls: Urls, progress: Transfer | None = None) -> Download:
    """A whole body, held against what it should be."""
    received = hashlib.sha256()
    progress = progress or Transfer("bot", "s", "f")
    async with Download(client, urls, progress, Transfers()) as body:
        async for piece in body.pieces():
            received.update(piece)
    assert received.digest() == hashlib.sha256(BODY).digest()
    assert (bytes(body.excerpt.head), body.excerpt.length) == (BODY[:HEAD_BYTES], len(BODY))
    assert progress.received == progress.total == body.received == len(BODY)
    return body


def asked_range(head: str) -> tuple[int, str | None]:
    """Where a request wants to begin, and what it names as the edition."""
    start = re.search(r"\r\nRange: bytes=(\d+)-\r\n", head)
    edition = re.search(r"\r\nIf-Range: (.*)\r\n", head)
    return int(start[1]) if start else 0, edition[1].strip() if edition else None


def breaking(*, at: int, etag: str | None = ETAG, **headers: str) -> Callable[[str], bytes]:
    """A host that honours ranges and breaks off `at` bytes into each answer, unless that is its end."""

    def reply(head: str) -> bytes:
        start, _ = asked_range(head)
        sent = headers | ({"ETag": etag} if etag else {}) | {"Content_Length": str(len(BODY) - start)}
        status = "200 OK"
        if start:
            status, sent["Content_Range"] = "206 Partial Content", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        return http_answer(BODY[start : start + at], status, **sent)

    return reply


async def test_a_body_goes_on_at_the_byte_where_it_broke() -> None:
    async with raw_server(breaking(at=300_000)) as raw, media() as client:
        body = await fetch(client, Urls(f"{raw.url}/a?s=x$$"))
    assert body.breaks == 3
    assert [asked_range(head) for head in raw.heads] == [(0, None), *((at, ETAG) for at in (300_000, 600_000, 900_000))]


async def test_a_date_that_is_old_enough_names_the_edition_as_well() -> None:
    old = format_datetime(NOW - timedelta(hours=1), usegmt=True)
    reply = breaking(at=600_000, etag=None, Last_Modified=old, Date=format_datetime(NOW, usegmt=True))
    async with raw_server(reply) as raw, media() as client:
        await fetch(client, Urls(f"{raw.url}/a"))
    assert [asked_range(head) for head in raw.heads] == [(0, None), (600_000, old)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"weak"'},
        {"ETag": "unquoted"},
        {"ETag": ETAG, "Accept_Ranges": "none"},
        {"Last_Modified": format_datetime(NOW, usegmt=True), "Date": format_datetime(NOW, usegmt=True)},
        {"Last_Modified": format_datetime(NOW - timedelta(hours=1), usegmt=True)},
        {"Last_Modified": "yesterday", "Date": "today"},
    ],
    ids=["nothing", "weak", "unquoted", "no ranges", "changed just now", "no date", "no dates at all"],
)
async def test_what_names_no_edition_for_certain_is_begun_again(headers: dict[str, str]) -> None:
    async with raw_server(breaking(at=600_000, etag=None, **headers)) as raw, media() as client:
        with pytest.raises(MediaNotResumable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert len(raw.heads) == 1
    assert caught.value.reason == "recording_truncated"
    assert caught.value.facts["received"] == 600_000


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", {}),
        ("412 Precondition Failed", {}),
        ("416 Range Not Satisfiable", {"Content_Range": "bytes */17"}),
        ("206 Partial Content", {}),
        ("206 Partial Content", {"Content_Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}),
        ("206 Partial Content", {"Content_Range": f"bytes 600000-{len(BODY)}/{len(BODY) + 1}"}),
        ("206 Partial Content", {"Content_Range": f"bytes 600000-700000/{len(BODY)}"}),
        ("206 Partial Content", {"Content_Range": f"bytes 600000-{len(BODY) - 1}/{len(BODY)}", "ETag": '"another"'}),
        ("206 Partial Content", {"Content_Range": f"bytes 600000-{len(BODY) - 1}/{len(BODY)}"}),
    ],
    ids=str,
)
async def test_another_edition_is_never_joined_to_the_first(status: str, headers: dict[str, str]) -> None:
    def reply(head: str) -> bytes:
        if asked_range(head)[0]:
            return http_answer(b"other bytes", status, **headers)
        return breaking(at=600_000)(head)

    async with raw_server(reply) as raw, media() as client:
        with pytest.raises(MediaNotResumable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert len(raw.heads) == 2
    assert "resumption" in caught.value.facts


async def test_another_date_is_another_edition() -> None:
    dates = iter([format_datetime(NOW - timedelta(hours=hours), usegmt=True) for hours in (2, 1)])

    def reply(head: str) -> bytes:
        return breaking(at=600_000, etag=None, Last_Modified=next(dates), Date=format_datetime(NOW, usegmt=True))(head)

    async with raw_server(reply) as raw, media() as client:
        with pytest.raises(MediaNotResumable):
            await fetch(client, Urls(f"{raw.url}/a"))


async def test_a_rest_that_is_refused_leaves_the_error_of_the_body_that_broke() -> None:
    """What came may be the only copy: it must not be forgotten for what became of a second request."""

    def reply(head: str) -> bytes:
        return http_answer(b"", "403 Forbidden") if asked_range(head)[0] else breaking(at=600_000)(head)

    async with raw_server(reply) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert (caught.value.reason, caught.value.facts["received"]) == ("recording_truncated", 600_000)
    assert "403" in caught.value.facts["resumption"]


async def test_a_rest_that_is_longer_than_promised_is_cut_off() -> None:
    endless = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        try:
            if not asked_range(head)[0]:
                writer.write(breaking(at=600_000)(head))
                return
            there = {"Content_Range": f"bytes 600000-{len(BODY) - 1}/{len(BODY)}", "ETag": ETAG, "Transfer_Encoding": "chunked"}
            writer.write(http_answer(b"", "206 Partial Content", **there))
            while True:
                writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                await writer.drain()
        except ConnectionError:
            endless.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    async with media() as client:
        async with Download(client, Urls(url), Transfer("bot", "s", "f"), Transfers()) as body:
            received = sum([len(piece) async for piece in body.pieces()])
        assert len(BODY) < received < len(BODY) + 1_000_000
        await asyncio.wait_for(endless.wait(), 10)
    server.close()


async def test_a_body_that_breaks_behind_its_last_byte_is_whole() -> None:
    """Chunks without their end: all that was promised has come."""
    async with dripping(len(BODY), 3600) as raw, media(stall_timeout="1s") as client:
        body = await fetch(client, Urls(f"{raw.url}/a"))
    assert body.breaks == 0


@pytest.mark.parametrize("connections", [0, 1])
@pytest.mark.parametrize(
    ("first", "drip"),
    [(b"HTTP/1.1 200 OK\r\nX: ", b"x"), (b"", b"HTTP/1.1 102 Processing\r\n\r\n")],
    ids=["header", "provisional"],
)
async def test_a_head_that_never_ends_is_given_up(
    first: bytes, drip: bytes, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it may wait long for its turn: that is over when the request has gone out."""
    monkeypatch.setattr(media_module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(transient, "SECONDS", 0.0)
    async with drips(first, drip) as url, media(stall_timeout="200ms", connections_per_host=connections) as client:
        with pytest.raises(MediaUnreachable):
            await asyncio.wait_for(fetch(client, Urls(url)), 10)


async def test_a_body_that_brings_nothing_but_its_wrapping_is_given_up() -> None:
    """The extension of a chunk may be as long as it likes: the connection is alive, and no byte of the recording comes."""
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n4;x="
    async with drips(body, b"x") as url, media(stall_timeout="200ms", min_rate="") as client:
        with pytest.raises(MediaUnreachable) as caught:
            await asyncio.wait_for(fetch(client, Urls(url)), 10)
    assert (caught.value.reason, caught.value.facts["received"]) == ("recording_stalled", 4)


async def test_a_url_that_expired_meanwhile_is_asked_for_afresh_and_goes_on() -> None:
    def reply(head: str) -> bytes:
        if "/old" in head and asked_range(head)[0]:
            return http_answer(b"<Error/>", "403 Forbidden")
        return breaking(at=600_000)(head)

    async with raw_server(reply) as raw, media() as client:
        urls = Urls(f"{raw.url}/old", f"{raw.url}/new")
        await fetch(client, urls)
    assert raw.targets == ["/old", "/old", "/new"]
    assert asked_range(raw.heads[-1]) == (600_000, ETAG)
    assert urls.refused == 0


async def test_a_fresh_url_that_is_refused_too_is_said_so() -> None:
    async with raw_server(lambda head: http_answer(b"", "403 Forbidden")) as raw, media() as client:
        urls = Urls(f"{raw.url}/old", f"{raw.url}/new")
        with pytest.raises(MediaUrlExpired):
            await fetch(client, urls)
    assert (raw.targets, urls.refused) == (["/old", "/new"], 1)


async def test_a_host_that_is_away_for_a_moment_is_waited_for() -> None:
    away = iter([False, True, True])

    def reply(head: str) -> bytes:
        return http_answer(b"", "503 Busy") if next(away, False) else breaking(at=600_000)(head)

    async with raw_server(reply) as raw, media() as client:
        await fetch(client, Urls(f"{raw.url}/a"))
    assert [asked_range(head)[0] for head in raw.heads] == [0, 600_000, 600_000, 600_000]


async def test_an_answer_without_a_byte_is_no_progress() -> None:
    def reply(head: str) -> bytes:
        return breaking(at=0 if asked_range(head)[0] else 600_000)(head)

    async with raw_server(reply) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert not isinstance(caught.value, MediaNotResumable)
    assert len(raw.heads) == 1 + 3
    assert caught.value.facts["received"] == 600_000


async def test_a_host_that_brings_next_to_nothing_each_time_is_given_up() -> None:
    async with raw_server(breaking(at=100)) as raw, media() as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert caught.value.reason == "recording_truncated"
    assert len(raw.heads) == 4


@asynccontextmanager
async def dripping(size: int, pause: float) -> AsyncIterator[RawServer]:
    """A host that sends `size` bytes every `pause` seconds."""
    raw = RawServer(lambda head: b"")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(http_answer(b"", Content_Length=str(len(BODY))))
        try:
            for at in range(0, len(BODY), size):
                writer.write(BODY[at : at + size])
                await writer.drain()
                await asyncio.sleep(pause)  # a slow host is made of waiting
        except ConnectionError:
            pass  # given up, as it should be
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()


async def test_a_body_that_trickles_is_given_up_though_it_never_stalls() -> None:
    async with dripping(10, 0.02) as raw, media(stall_timeout="1s", min_rate="64KiB") as client:
        with pytest.raises(MediaUnreachable) as caught:
            await fetch(client, Urls(f"{raw.url}/a"))
    assert caught.value.reason == "recording_slow"


async def test_a_body_that_is_slow_but_fast_enough_has_all_the_time_it_needs() -> None:
    async with dripping(25_000, 0.05) as raw, media(stall_timeout="1s", min_rate="64KiB") as client:
        await fetch(client, Urls(f"{raw.url}/a"))


async def test_the_pace_of_the_process_is_kept_by_all_transfers_together() -> None:
    """Four megabytes at two a second: the clock of the loop says how long it took at least; how long at most is the machine's."""
    loop = asyncio.get_running_loop()
    async with raw_server(breaking(at=len(BODY))) as raw, media(max_bandwidth=2 * 2**20) as client:
        began = loop.time()
        await asyncio.gather(*(fetch(client, Urls(f"{raw.url}/{n}")) for n in range(4)))
        took = loop.time() - began
    assert took >= 4 * len(BODY) / (2 * 2**20) - 0.2


async def test_connections_to_one_host_are_as_few_as_configured() -> None:
    open_now, most = 0, 0
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await reader.readuntil(b"\r\n\r\n")
        if most == 2:
            release.set()
        await release.wait()
        writer.write(http_answer(BODY))
        await writer.drain()
        open_now -= 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
    async with media(connections_per_host=2) as client:
        await asyncio.gather(*(fetch(client, Urls(url)) for _ in range(6)))
    server.close()
    assert most == 2
