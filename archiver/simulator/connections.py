"""Rough treatment of connections, and headers that every answer has."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web


def reset_connection(request: web.BaseRequest) -> None:
    """End the connection with RST: what is under way is lost, and the client's next read fails with ECONNRESET."""
    if (transport := request.transport) is None:
        return
    if (sock := transport.get_extra_info("socket")) is not None:
        # Linger 0 makes the close a reset (Linux, socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close_connection(request: web.BaseRequest) -> None:
    """End the connection with FIN, after what was written is sent; promised bytes that were not written never come."""
    if (transport := request.transport) is not None:
        transport.close()


async def until_the_client_goes() -> None:
    """Never returns: the request's task is cancelled when its connection ends, and the simulator ends them all."""
    await asyncio.Event().wait()


def http_date(skew_seconds: float) -> str:
    """The Date header of a clock that is `skew_seconds` ahead."""
    return formatdate(time.time() + skew_seconds, usegmt=True)
