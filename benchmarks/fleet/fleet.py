"""What the proofs share: a Postgres in a temporary folder, a simulated platform, and worker processes of the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from archiver.postgres.embedded.server import embedded_postgres
from archiver.simulator.platform import Simulator, SimulatorSettings

BOT = "bot"


class Broken(Exception):
    """A proof could not be carried out."""


@dataclass(frozen=True)
class Server:
    """A folder that is gone afterwards, and the Postgres in it."""

    folder: Path
    url: str


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """A Postgres of the proof's own."""
    with tempfile.TemporaryDirectory(prefix="archiver-fleet-") as name:
        folder = Path(name)
        async with embedded_postgres(folder / "postgres") as url:
            yield Server(folder, url)


@dataclass
class Fleet:
    """Bots on a simulated platform, one fresh database, and as many worker processes as are started."""

    folder: Path
    simulator: Simulator
    sql: asyncpg.Connection
    config: Path
    bots: list[str] = field(default_factory=lambda: [BOT])
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def archiver(self, *arguments: str) -> None:
        """Run a command to its end. Raises Broken if it fails."""
        process = await spawn(self.folder, "command", "--config", str(self.config), *arguments)
        if await process.wait():
            raise Broken(f"archiver {' '.join(arguments)} ended with {process.returncode}:\n{self.log_of('command')}")

    async def start(self, count: int, *options: str) -> None:
        """Start so many workers."""
        for _ in range(count):
            name = f"worker-{len(self.workers)}"
            self.workers.append(await spawn(self.folder, name, "--config", str(self.config), "worker", *options))

    async def drained(self, timeout: float) -> None:
        """Wait until every worker has ended by itself, with 0. Raises Broken."""
        try:
            async with asyncio.timeout(timeout):
                codes = await asyncio.gather(*(worker.wait() for worker in self.workers))
        except TimeoutError:
            raise Broken(f"workers still run after {timeout:.0f} s") from None
        for number, code in enumerate(codes):
            if code:
                raise Broken(f"worker {number} ended with {code}:\n{self.log_of(f'worker-{number}')}")

    async def until(self, look: Callable[[], Awaitable[bool]], timeout: float, what: str) -> None:
        """Look until it is so, while every worker runs. Raises Broken."""
        deadline = time.monotonic() + timeout
        while not await look():
            self.all_run()
            if time.monotonic() > deadline:
                raise Broken(f"not within {timeout:.0f} s: {what}")
            await asyncio.sleep(0.1)

    def all_run(self) -> None:
        """Raises Broken if a worker has ended."""
        for number, worker in enumerate(self.workers):
            if worker.returncode is not None:
                raise Broken(f"worker {number} ended with {worker.returncode}:\n{self.log_of(f'worker-{number}')}")

    async def stop(self) -> None:
        """End the workers: first in order, then for certain."""
        for worker in self.workers:
            if worker.returncode is None:
                worker.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await asyncio.gather(*(worker.wait() for worker in self.workers))
        except TimeoutError:
            for worker in self.workers:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()

    @property
    def calls(self) -> int:
        """API calls so far, as the platform counted them."""
        return int(self.simulator.report()["api"]["calls"])

    @property
    def refused(self) -> int:
        """Of these, calls over the platform's rate limit."""
        return int(self.simulator.report()["api"]["rate_limited"])

    def log_of(self, name: str) -> str:
        """The end of what a process wrote."""
        return log_of(self.folder, name)


async def spawn(folder: Path, name: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start `archiver` with these arguments. What it prints goes into NAME.out in `folder`, what it logs into NAME.log."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
    }
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "archiver", *arguments,
            cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=log,
        )  # fmt: skip


def log_of(folder: Path, name: str) -> str:
    """The end of what a process logged."""
    return (folder / f"{name}.log").read_text(errors="replace")[-2000:]


@asynccontextmanager
async def fleet(
    where: Server,
    name: str,
    *,
    platform_limits: Sequence[str] = (),
    bot_limits: Sequence[str] = (),
    concurrency: int = 16,
    retry: Mapping[str, Any] | None = None,
    bots: int = 1,
) -> AsyncIterator[Fleet]:
    """A migrated database called `name`, and a platform with its own rate limits. Workers are ended with it. Several `bots` are
    of one account, and are told no limits.
    """
    administrator = await asyncpg.connect(where.url)
    await administrator.execute(f"CREATE DATABASE {name}")
    await administrator.close()
    url = where.url.rpartition("/")[0] + f"/{name}"
    folder = where.folder / name
    folder.mkdir()
    async with Simulator(SimulatorSettings(account_rate_limits=tuple(platform_limits))) as simulator:
        bot: dict[str, Any] = {
            "name": BOT,
            "host": simulator.api_url,
            "bot_id": simulator.bot_id,
            "client_id": simulator.client_id,
            "client_secret": simulator.client_secret,
            "rate_limits": list(bot_limits),
            "media_hosts": ["127.0.0.1"],
        }
        blocks = [bot]
        for number in range(2, bots + 1):
            blocks.append(bot | {"name": f"{BOT}-{number}", "bot_id": f"{simulator.bot_id}-{number}"})
            simulator.add_bot(blocks[-1]["bot_id"], simulator.client_id, simulator.client_secret)
        if bots > 1:
            for block in blocks:
                block["account_id"] = simulator.settings.account_id
                del block["rate_limits"]
        config = configured(
            folder,
            {
                "database": {"url": url},
                "[bots]": blocks,
                "storage": {"url": (folder / "store").as_uri()},
                "worker": {"concurrency": concurrency},
                "retry": retry or {},
            },
        )
        sql = await asyncpg.connect(url)
        made = Fleet(folder, simulator, sql, config, [block["name"] for block in blocks])
        try:
            await made.archiver("migrate")
            yield made
        finally:
            await made.stop()
            await sql.close()


def configured(folder: Path, sections: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> Path:
    """A configuration file in `folder`; a section may have several blocks."""
    config = folder / "archiver.toml"
    config.touch(mode=0o600)
    lines = [
        line
        for name, section in sections.items()
        for values in ([section] if isinstance(section, Mapping) else section)
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), "")
    ]
    config.write_text("\n".join(lines))
    return config


async def enqueue(sql: asyncpg.Connection, first: int, count: int, *, priority: str = "normal", bot: str = BOT) -> None:
    """Insert sessions numbered from `first`, in one statement, as any other program would."""
    await sql.execute(
        "INSERT INTO archive_queue (bot, session_id, priority) SELECT $1, to_char(n, 'FM00000000'), $4 "
        "FROM generate_series($2::integer, $2 + $3::integer - 1) n",
        bot, first, count, priority,
    )  # fmt: skip


async def states(sql: asyncpg.Connection) -> dict[str, int]:
    """How many sessions are in each state."""
    return {row["state"]: row["n"] for row in await sql.fetch("SELECT state, count(*) AS n FROM archive_queue GROUP BY 1")}


@dataclass
class Verdict:
    """What a proof promised, and whether it was kept."""

    broken: list[str] = field(default_factory=list)

    def check(self, kept: bool, promise: str) -> None:
        """Print the promise with what became of it."""
        print(f"{'kept  ' if kept else 'BROKEN'}  {promise}", flush=True)
        if not kept:
            self.broken.append(promise)


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are figures."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def run(proof: Callable[[Verdict], Coroutine[Any, Any, None]]) -> None:
    """Carry out a proof. Exit code 1 if a promise isn't kept, or it could not be carried out."""
    verdict = Verdict()
    try:
        asyncio.run(proof(verdict))
    except Broken as error:
        print(f"BROKEN  {error}", file=sys.stderr)
        raise SystemExit(1) from None
    raise SystemExit(1 if verdict.broken else 0)
