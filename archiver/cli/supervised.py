"""One of the other processes of a command, as it sees itself. See `processes`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from archiver.observe import logs
from archiver.worker.loop import Worker

ENVIRONMENT = "_ARCHIVER_PROCESS"
"""In one that was started: its number, and the descriptor of its socket."""


GO = "go"
"""What the command says when it has started itself."""

RELOAD = "reload"
"""What it says when the configuration is to be read again; behind it is this process's share of the limits, as JSON."""


def say(writer: asyncio.StreamWriter, line: bytes) -> None:
    """Say it, if anybody is there."""
    with suppress(OSError, RuntimeError):  # the latter is uvloop's word for a socket that is closed
        writer.write(line + b"\n")


class Supervised:
    """One of the others, as it sees itself: `number`, and the command's socket."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._socket = socket.socket(fileno=descriptor)

    @classmethod
    def from_environment(cls) -> Supervised | None:
        """None in a process that a person started."""
        given = os.environ.pop(ENVIRONMENT, "").split()
        if len(given) != 2:
            return None
        number, descriptor = map(int, given)
        os.set_inheritable(descriptor, False)
        logs.number_process(number)
        supervised = cls(number, descriptor)
        supervised._wait()
        return supervised

    def _wait(self) -> None:
        """Until the command has started, or is gone: then this is the end."""
        told = b""
        while told != f"{GO}\n".encode():
            piece = self._socket.recv(len(GO) + 1 - len(told))
            if not piece:
                raise SystemExit(0)
            told += piece

    @asynccontextmanager
    async def listening(self, worker: Worker, reload: Callable[[Mapping[str, int]], None]) -> AsyncIterator[None]:
        """Do what the command says; when it is gone, leave. `reload` is called with this process's share of the limits."""
        reader, writer = await asyncio.open_connection(sock=self._socket)

        def tell(told: Mapping[str, Any]) -> None:
            say(writer, json.dumps(told).encode())

        def state() -> dict[str, Any]:
            return {"tally": worker.tally.as_json(), "now": [worker.concurrency, worker.running, worker.lease_remaining],
                    "troubles": worker.troubles}  # fmt: skip

        async def listen() -> None:
            with suppress(OSError):
                while line := await reader.readline():
                    match line:
                        case b"stop\n":
                            worker.stop()
                        case b"hurry\n":
                            worker.hurry()
                        case b"look\n":
                            tell(state())
                        case _ if line.startswith(f"{RELOAD} ".encode()):
                            reload(json.loads(line.removeprefix(RELOAD.encode())))
            worker.stop()

        listener = asyncio.create_task(listen(), name="command")
        worker.on_idle = lambda: tell({"idle": True})
        tell(state())
        try:
            yield
        finally:
            listener.cancel()
            tell(state())
            with suppress(OSError, RuntimeError):
                await writer.drain()
                writer.close()
