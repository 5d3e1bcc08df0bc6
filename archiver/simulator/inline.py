"""Recordings inside an answer, as version 1 of the recordings API sends them: {"recording": ["data:audio/wav;base64,..."]}.

The answer is made while it is sent, so that a recording of any size costs no more memory than a piece of it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from archiver.simulator.audio import RawBody
from archiver.simulator.connections import close_connection, reset_connection, until_the_client_goes
from archiver.simulator.faults import Empty, Json, Page, Reset, Slow, Stall, Truncate
from archiver.simulator.media import paced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from archiver.simulator.audio import Body
    from archiver.simulator.faults import AnyFault
    from archiver.simulator.sessions import Recording


async def inline_answer(request: web.Request, recordings: list[Recording]) -> AsyncIterator[bytes]:
    """The body of the answer, piece by piece. Each recording meets one of its faults, as far as that can happen here; `at` counts
    bytes of the recording. Raises ConnectionError once a fault has ended the connection.
    """
    yield b'{"recording": ['
    for place, recording in enumerate(recordings):
        fault = recording.faults.take()
        content_type = getattr(fault, "content_type", recording.content_type)
        yield b", " * (place > 0) + f'"data:{content_type};base64,'.encode()
        body, stop = _body(recording, fault), getattr(fault, "at", None)
        pace = fault.bytes_per_second if isinstance(fault, Slow) else None
        async for piece in _base64(paced(body, 0, body.size if stop is None else min(stop, body.size), pace)):
            yield piece
        match fault:
            case Truncate():
                close_connection(request)
                raise ConnectionError
            case Reset():
                reset_connection(request)
                raise ConnectionError
            case Stall():
                await until_the_client_goes()
            case _:
                yield b'"'
    yield b"]}"


def _body(recording: Recording, fault: AnyFault | None) -> Body:
    match fault:
        case Page() | Json():
            return RawBody(fault.body.encode())
        case Empty():
            return RawBody(b"")
        case _:
            return recording.body


async def _base64(pieces: AsyncIterator[bytes | memoryview]) -> AsyncIterator[bytes]:
    """Slashes are escaped, as many writers of JSON do."""
    left = b""
    async for piece in pieces:
        left += piece
        whole = len(left) - len(left) % 3
        yield base64.b64encode(left[:whole]).replace(b"/", b"\\/")
        left = left[whole:]
    yield base64.b64encode(left)
