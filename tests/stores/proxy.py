"""A line to a bucket's server on which things go wrong: answers get lost, connections break, servers are busy, headers vanish."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

READ = 64 * 1024

_OF_A_SAS = frozenset({"se", "sig", "sp", "sr", "st", "sv"})


@dataclass(frozen=True)
class Request:
    """What passed."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]

    @property
    def operation(self) -> str:
        """What S3 calls it; of Azure's, blocks are called by their number, and what makes an object of them is a "Commit"."""
        match self.method, sorted(self.query):
            case "PUT", ["blockid", "comp"]:
                return f"Block {int(base64.b64decode(self.query['blockid'])[16:])}"
            case "PUT", ["comp"]:
                return "Commit"
            case "HEAD", ["restype"]:
                return "Container"
            case "POST", ["uploads"]:
                return "Create"
            case "POST", ["uploadId"]:
                return "Complete"
            case "PUT", ["partNumber", "uploadId"]:
                return "CopyPart" if "x-amz-copy-source" in self.headers else f"Part {self.query['partNumber']}"
            case "DELETE", ["uploadId"]:
                return "Abort"
            case method, []:
                return {"PUT": "Put", "GET": "Get", "HEAD": "Head", "DELETE": "Delete"}[method]
            case method, names:
                return f"{method} {','.join(names)}"


@dataclass
class Fault:
    """What is done to requests of this operation, so many times."""

    operation: str
    times: int = 1
    answer: bytes | None = None
    """Sent in place of the server's, which never hears of the request."""

    lose_answer: bool = False
    """The server does what it was asked to, and its answer is lost."""

    break_after: int | None = None
    """The connection is reset after so many bytes of the request's body."""

    cut_answer: int | None = None
    """The connection is reset after so many bytes of the answer's body."""

    hold: asyncio.Event | None = None
    """The request waits here before it goes on."""

    strip: str = ""
    """Lines of the answer's head that match are left out."""

    blind_to: str = ""
    """A header that the server never sees."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request has come here."""


def error(status: int, code: str, message: str = "no", *, headers: str = "", inside: str = "") -> bytes:
    """An answer of S3, or of Azure, that says no."""
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message>{inside}</Error>"
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n{body}".encode()


class Proxy:
    """See the module. One request a connection, in the order in which they came in `requests`."""

    def __init__(self, target: str) -> None:
        at = urlsplit(target)
        self._target = (at.hostname or "", at.port or 80)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def count(self, operation: str) -> int:
        """So many requests of an operation have come."""
        return sum(request.operation == operation for request in self.requests)

    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, as it does when it is cancelled
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parsed(head)
        self.requests.append(request)
        faults = self._matching(request.operation)
        for fault in faults:
            fault.reached.set()
            if fault.hold is not None:
                await fault.hold.wait()
            if fault.blind_to:
                head = re.sub(rf"(?im)^{fault.blind_to}:.*\r\n".encode(), b"", head)
        left = int(request.headers.get("content-length", 0))
        for fault in faults:
            if fault.answer is not None:
                await _passed_on(reader, None, left, None)
                writer.write(fault.answer)
                await writer.drain()
                writer.write_eof()
                return
        there, back = await asyncio.open_connection(*self._target)
        try:
            back.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            limit = next((fault.break_after for fault in faults if fault.break_after is not None), None)
            await _passed_on(reader, back, left, limit)
            if limit is None:
                await self._answer(there, writer, faults)
            else:
                _reset(writer)
        finally:
            back.transport.abort()

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: list[Fault]) -> None:
        answer = await there.readuntil(b"\r\n\r\n")
        for fault in faults:
            if fault.strip:
                answer = re.sub(rf"(?im)^{fault.strip}:.*\r\n".encode(), b"", answer)
        cut = next((fault.cut_answer for fault in faults if fault.cut_answer is not None), None)
        if any(fault.lose_answer for fault in faults):
            await there.read()
            return
        writer.write(answer)
        sent = 0
        while block := await there.read(READ):
            if cut is not None and sent + len(block) > cut:
                writer.write(block[: cut - sent])
                await writer.drain()
                writer.transport.close()  # what was written still arrives; then the end, too early
                return
            sent += len(block)
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    def _matching(self, operation: str) -> list[Fault]:
        found: list[Fault] = []
        for fault in self.faults:
            answered = any(other.answer is not None for other in found)
            if fault.times and re.fullmatch(fault.operation, operation) and not (answered and fault.answer is not None):
                fault.times -= 1
                found.append(fault)
        return found


def _parsed(head: bytes) -> Request:
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    at = urlsplit(target)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    query = {name: values[0] for name, values in parse_qs(at.query, keep_blank_values=True).items() if name not in _OF_A_SAS}
    return Request(method, unquote(at.path), query, headers)


async def _passed_on(reader: asyncio.StreamReader, back: asyncio.StreamWriter | None, left: int, limit: int | None) -> None:
    passed = 0
    while left and (limit is None or passed < limit):
        block = await reader.read(min(left, READ))
        if not block:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(block)
        passed += len(block)
        if back is not None:
            back.write(block)
            await back.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End it as a router does that has forgotten the connection."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
