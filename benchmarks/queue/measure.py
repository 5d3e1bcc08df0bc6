"""One measurement: so many jobs enqueued, then worked off by so many client processes; both checked in the database."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import asyncpg

from benchmarks.queue.server import Server
from benchmarks.queue.tool import Settled, Tool, session_ids

READY_SECONDS = 60.0
ROUND_SECONDS = 1800.0


class NotTheSameWork(Exception):
    """A tool did not end every job exactly once: its rate says nothing."""


@dataclass(frozen=True)
class Rate:
    """So many jobs in so many seconds, and what they cost."""

    jobs: int
    seconds: float
    client_cpu: float = 0.0
    server_cpu: float = 0.0

    @property
    def per_second(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


async def enqueue(tool: Tool, dsn: str, first: int, jobs: int) -> Rate:
    """Enqueue so many sessions over one connection, in the tool's batches."""
    ids = session_ids(first, jobs)
    batch = tool.tuning["batch"]
    async with tool.producer(dsn) as put:
        began = time.perf_counter()
        for start in range(0, jobs, batch):
            await put(ids[start : start + batch])
        return Rate(jobs, time.perf_counter() - began)


async def settle_down(server: Server, dsn: str) -> None:
    """The same calm before every round: no work of a vacuum or checkpoint is left over from what came before."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("VACUUM ANALYZE", timeout=3600)
    finally:
        await connection.close()
    await server.administer("CHECKPOINT")


async def work_off(server: Server, tool: Tool, dsn: str, jobs: int, processes: int, *, profile: str = "") -> Rate:
    """Let so many processes, released together, work off what is there. Ends with the last job's commit."""
    await settle_down(server, dsn)
    clients: list[asyncio.subprocess.Process] = []
    try:
        for number in range(processes):
            client = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks.queue.client",
                tool.name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            clients.append(client)
            _tell(client, json.dumps({"dsn": dsn, "tuning": tool.tuning, "profile": profile if number == 0 else ""}))
        async with asyncio.timeout(READY_SECONDS):
            for client in clients:
                await _said(client)
        server_before = server.cpu_seconds()
        began = time.time()
        for client in clients:
            _tell(client, "go")
        async with asyncio.timeout(ROUND_SECONDS):
            told: list[dict[str, Any]] = [json.loads(await _said(client)) for client in clients]
            server_cpu = server.cpu_seconds() - server_before
            for client in clients:
                await client.wait()
    finally:
        for client in clients:
            if client.returncode is None:
                client.kill()
                await client.wait()
    connection = await asyncpg.connect(dsn)
    try:
        settled = await tool.settled(connection, began)
    finally:
        await connection.close()
    ran = sum(one["jobs"] for one in told)
    if settled != Settled(jobs, jobs, jobs, 0, settled.last) or ran != jobs:
        raise NotTheSameWork(f"{tool.name}: {jobs} jobs, of which the clients ran {ran}: {settled}")
    return Rate(jobs, settled.last - began, sum(one["cpu_seconds"] for one in told), server_cpu)


def _tell(client: asyncio.subprocess.Process, line: str) -> None:
    assert client.stdin is not None
    client.stdin.write(line.encode() + b"\n")


async def _said(client: asyncio.subprocess.Process) -> str:
    assert client.stdout is not None
    line = await client.stdout.readline()
    if not line:
        raise NotTheSameWork(f"a client ended with {await client.wait()}; its errors are above")
    return line.decode()
