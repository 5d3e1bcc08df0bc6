"""The media origin: recordings over HTTP at signed URLs, with the faults that their scripts ask for.

Vendor: the API "provides an S3-hosted URL", so the error pages are S3's, and a single range can be asked for (RFC 9110, 14).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from aiohttp import web

from archiver.simulator.audio import RawBody
from archiver.simulator.connections import close_connection, http_date, reset_connection, until_the_client_goes
from archiver.simulator.faults import (
    BothLengths,
    Empty,
    Headers,
    Json,
    NoLength,
    Page,
    Partial,
    Redirect,
    Reset,
    S3Error,
    Slow,
    Stall,
    Status,
    Truncate,
)
from archiver.simulator.tally import MediaTally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from archiver.simulator.audio import Body
    from archiver.simulator.faults import AnyFault
    from archiver.simulator.sessions import Recording
    from archiver.simulator.settings import SimulatorSettings
    from archiver.simulator.urls import UrlSigner

TICKS_A_SECOND = 20  # how smooth a slow body is

_HOPS = re.compile(r"/hops/([0-9]+)(/.*)")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Part(NamedTuple):
    """The bytes of a body from `start` up to `stop`, and the HTTP status that they are sent with."""

    status: int
    start: int
    stop: int


class MediaOrigin:
    """Serves the recordings in `recordings`, by path. `origin` is its own URL, for redirects."""

    def __init__(self, settings: SimulatorSettings, signer: UrlSigner, changed: Callable[[], None]) -> None:
        self.origin = ""
        self.recordings: dict[str, Recording] = {}
        self.tally = MediaTally()
        self._settings = settings
        self._signer = signer
        self._changed = changed

    def url(self, recording: Recording) -> str:
        """A fresh signed URL, expired already if the script says so."""
        expired = recording.url_faults.take() is not None
        lifetime = -60.0 if expired else self._settings.url_lifetime
        return self.origin + self._signer.sign(recording.path, time.time() + lifetime)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it asks for."""
        self.tally.requests += 1
        if "auth" in request.headers or "Authorization" in request.headers:
            self.tally.leaked_auth += 1
        self._changed()
        try:
            return await self._answer(request)
        except ConnectionError:
            return web.Response()  # the client is gone; aiohttp drops this
        finally:
            self._changed()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "GET":
            return await self._error(request, 405, "MethodNotAllowed", "The specified method is not allowed.")
        target = self._signer.check(request.raw_path)
        if target is None:
            self.tally.altered_urls += 1
            return await self._error(request, 403, "AccessDenied", "The signature does not match the URL.")
        if time.time() >= target.expires:
            self.tally.expired_urls += 1
            return await self._error(request, 403, "AccessDenied", "Request has expired")
        path, hops = target.path, 0
        if on_the_way := _HOPS.fullmatch(path):
            hops, path = int(on_the_way[1]), on_the_way[2]
        recording = self.recordings.get(path)
        if recording is None:
            return await self._error(request, 404, "NoSuchKey", "The specified key does not exist.")
        if hops:
            return await self._redirect(request, 302, self._elsewhere(path, hops - 1))

        fault = recording.faults.take(redirects=path == recording.path)
        return await self._serve(request, recording, fault)

    async def _serve(self, request: web.BaseRequest, recording: Recording, fault: AnyFault | None) -> web.StreamResponse:
        """A recording, or what its fault puts in its place."""
        match fault:
            case Reset(at=None):
                self.tally.by_status["reset"] += 1
                reset_connection(request)
                return web.Response()
            case Redirect():
                location = fault.to
                if location == "same":
                    location = self._elsewhere(recording.elsewhere[fault.spelled], fault.hops - 1)
                return await self._redirect(request, fault.status, location)
            case Status():
                return await self._page(request, fault.http_status, fault.body, fault.content_type)
            case Page() | Json():
                return await self._page(request, 200, fault.body, fault.content_type)
            case S3Error():
                return await self._error(request, fault.http_status, fault.code, "The request was refused.")
            case BothLengths():
                return await self._chunked(request, recording, fault.content_length)
            case Empty():
                return await self._page(request, 200, "", recording.content_type)
            case _:
                return await self._recording(request, recording, fault)

    async def _recording(self, request: web.BaseRequest, recording: Recording, fault: AnyFault | None) -> web.StreamResponse:
        body = recording.body
        etag = body.etag if recording.resumable == "yes" else f'"{secrets.token_hex(8)}"'
        whole = Part(200, 0, body.size)
        part = whole if recording.resumable == "no" else _part(request, body, etag)
        if isinstance(fault, Partial):
            part = whole._replace(status=206)
        if part is None:
            unsatisfied = {"Content-Range": f"bytes */{body.size}"}
            return await self._error(request, 416, "InvalidRange", "The range is not satisfiable", unsatisfied)

        stop = part.stop
        if isinstance(fault, Truncate | Reset | Stall | NoLength) and fault.at is not None:
            stop = min(stop, part.start + fault.at)

        response = web.StreamResponse(status=part.status, headers=self._headers(recording.content_type))
        if recording.resumable != "no":
            response.headers["ETag"] = etag
            response.headers["Accept-Ranges"] = "bytes"
        if part.status == 206:
            response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{body.size}"
        if not isinstance(fault, NoLength):
            response.content_length = part.stop - part.start
        if isinstance(fault, Headers):
            response.headers.update(fault.headers)
        self.tally.by_status[str(part.status)] += 1
        await response.prepare(request)
        pace = fault.bytes_per_second if isinstance(fault, Slow) else None
        async for piece in paced(body, part.start, stop, pace):
            await self._send(response, piece)

        match fault:
            case Truncate():
                close_connection(request)
            case Reset():
                reset_connection(request)
            case Stall():
                await until_the_client_goes()
            case _:
                await response.write_eof()
                if stop == body.size:
                    self.tally.complete += 1
        return response

    async def _chunked(self, request: web.BaseRequest, recording: Recording, content_length: int | None) -> web.StreamResponse:
        """A recording in chunks with a Content-Length besides, which aiohttp would not send; ends the connection."""
        body = recording.body
        headers = self._headers(recording.content_type) | {
            "Content-Length": str(body.size if content_length is None else content_length),
            "Transfer-Encoding": "chunked",
            "Connection": "close",
        }
        if (transport := request.transport) is None:
            raise ConnectionError
        self.tally.by_status["200"] += 1
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        transport.write("\r\n".join(lines).encode())
        for piece in body.pieces(0, body.size):
            self.tally.body_bytes += len(piece)
            transport.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
        transport.write(b"0\r\n\r\n")
        self.tally.complete += 1
        transport.close()
        return web.Response()

    def _elsewhere(self, path: str, hops: int) -> str:
        """A fresh URL for a path, by so many redirects. What is escaped in its first part is not in the last URL."""
        target = self._signer.sign(f"/hops/{hops}{path}" if hops else path, time.time() + self._settings.url_lifetime)
        first, slash, rest = target[1:].partition("/")
        return f"{self.origin}/{unquote(first)}{slash}{rest}"

    async def _redirect(self, request: web.BaseRequest, status: int, location: str) -> web.StreamResponse:
        return await self._page(request, status, "", "text/html", {"Location": location})

    async def _error(
        self, request: web.BaseRequest, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> web.StreamResponse:
        """An error page like S3's."""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            f"<RequestId>{secrets.token_hex(8).upper()}</RequestId></Error>"
        )
        return await self._page(request, status, body, "application/xml", headers)

    async def _page(
        self,
        request: web.BaseRequest,
        status: int,
        body: str,
        content_type: str,
        headers: dict[str, str] | None = None,
    ) -> web.StreamResponse:
        content = RawBody(body.encode())
        response = web.StreamResponse(status=status, headers=self._headers(content_type) | (headers or {}))
        response.content_length = content.size
        self.tally.by_status[str(status)] += 1
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in paced(content, 0, content.size, None):
                await self._send(response, piece)
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, piece: bytes | memoryview) -> None:
        self.tally.body_bytes += len(piece)
        self._changed()
        await response.write(piece)

    def _headers(self, content_type: str) -> dict[str, str]:
        return {"Content-Type": content_type, "Date": http_date(self._settings.clock_skew)}


def _part(request: web.BaseRequest, body: Body, etag: str) -> Part | None:
    """What a request's Range and If-Range ask for; None if it cannot be had.

    A range that is malformed, multiple, or of another edition of the body is as good as none (RFC 9110, 13.1.5 and 14.2).
    """
    whole = Part(200, 0, body.size)
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range", etag) != etag:
        return whole
    first, last = found.groups()
    if not first and not last:
        return whole
    if not first:
        start, stop = max(0, body.size - int(last)), body.size
    else:
        start, stop = int(first), min(int(last) + 1, body.size) if last else body.size
        if last and int(last) < start:
            return whole
    return Part(206, start, stop) if start < stop else None


async def paced(body: Body, start: int, stop: int, bytes_per_second: int | None) -> AsyncIterator[bytes | memoryview]:
    """The pieces of a body, no faster than `bytes_per_second`."""
    for piece in body.pieces(start, stop):
        if bytes_per_second is None:
            yield piece
            continue
        step = max(1, bytes_per_second // TICKS_A_SECOND)
        for at in range(0, len(piece), step):
            await asyncio.sleep(min(step, len(piece) - at) / bytes_per_second)
            yield piece[at : at + step]
