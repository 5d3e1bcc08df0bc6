"""Workers in this process, with a real Postgres, a simulated platform and a folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog

from archiver.cli.serving import composed_worker
from archiver.config import Settings
from archiver.observe.logs import add_subject
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.sessions import NewSession, Queue
from archiver.simulator.platform import Simulator
from archiver.worker.claiming import Drained
from archiver.worker.loop import Worker
from tests.conftest import is_recording, settings_data
from tests.queue.conftest import QueueHarness

Row = dict[str, Any]


def as_toml(data: dict[str, Any]) -> str:
    """A configuration file, for a worker in a process of its own."""
    lines = []
    for name, section in data.items():
        for block in section if isinstance(section, list) else [section]:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in block.items()]
    return "\n".join(lines) + "\n"


def session_id(number: int) -> str:
    return f"65e7133a3242653c58d7{number:04x}"


class Shift:
    """One worker that is running."""

    def __init__(self, worker: Worker, run: asyncio.Task[Drained]) -> None:
        self.worker = worker
        self.run = run

    async def ended(self, timeout: float = 30) -> Drained:
        """How it ended by itself."""
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self.run)

    async def stopped(self, *, hurry: bool = False, timeout: float = 30) -> Drained:
        """How it ended when told to."""
        if hurry:
            self.worker.hurry()
        else:
            self.worker.stop()
        return await self.ended(timeout)


class WorkerHarness:
    """Platform, database and store, with what a test wants to know of them."""

    def __init__(self, simulator: Simulator, database_url: str, root: Path, database: Database) -> None:
        self.simulator = simulator
        self.database_url = database_url
        self.root = root
        self.database = database

    def settings(self, **sections: dict[str, Any]) -> Settings:
        """The usual ones, with these keys changed; `bot={...}` changes the bot's."""
        data: dict[str, Any] = settings_data(self.simulator, self.database_url, self.root)
        for section, changes in sections.items():
            if section == "bot":
                data["bots"][0].update(changes)
            else:
                data[section].update(changes)
        return Settings.model_validate(data)

    def config_file(self, *, bot: Row | None = None, transfer: Row | None = None, log: Row | None = None, **worker: Any) -> Path:
        """The usual settings in a file, with these keys changed."""
        data: dict[str, Any] = settings_data(self.simulator, self.database_url, self.root)
        data["worker"].update(worker)
        data["bots"][0].update(bot or {})
        data |= {"transfer": transfer or {}, "log": log or {}}
        path = self.root.with_name("archiver.toml")
        path.write_text(as_toml(data))
        return path

    async def enqueue(self, *ids: str, bot: str = "bot", **fields: Any) -> None:
        queue = Queue(self.database, self.settings().retry)
        await queue.enqueue([NewSession(bot, one, **fields) for one in ids], actor="test")

    async def scripted(self, count: int, **fields: Any) -> list[str]:
        """So many sessions with one recording each, enqueued; `fields` alter the recording."""
        ids = [session_id(number) for number in range(count)]
        recording = {"file_name": "a.wav", "audio": {"bytes": 2000}, **fields}
        for number, one in enumerate(ids):
            audio = {"seed": number, **recording["audio"]}
            self.simulator.script({"session_id": one, "recordings": [{**recording, "audio": audio}]})
        await self.enqueue(*ids)
        return ids

    @asynccontextmanager
    async def shift(
        self, settings: Settings | None = None, *, drain: bool = False, max_wait: timedelta | None = None, night: bool = False
    ) -> AsyncIterator[Shift]:
        """A worker with a pool of its own, running; hurried out at the end if it still runs."""
        settings = settings or self.settings()
        async with Database(settings.database.url.get_secret_value(), pool_size=8) as database:
            queue = Queue(database, settings.retry)
            async with composed_worker(settings, database, queue, Tally()) as worker:
                run = asyncio.create_task(worker.run(drain=drain, max_wait=max_wait, night=night))
                try:
                    yield Shift(worker, run)
                finally:
                    worker.hurry()
                    await asyncio.wait([run])

    async def drained(self, settings: Settings | None = None, *, timeout: float = 60, **terms: Any) -> Drained:
        """A whole drain by one worker."""
        async with self.shift(settings, drain=True, **terms) as shift:
            return await shift.ended(timeout)

    async def rows(self, sql: str, *args: Any) -> list[Row]:
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *args)]

    async def sessions(self) -> dict[str, Row]:
        """Every session by its ID, as a reader sees them."""
        return {row["session_id"]: row for row in await self.rows("SELECT * FROM archive_sessions ORDER BY session_id")}

    async def states(self) -> dict[str, int]:
        rows = await self.rows("SELECT state, count(*) AS n FROM archive_sessions GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    async def events(self, one: str) -> list[str]:
        sql = """SELECT e.event FROM archive_history e JOIN archive_sessions s USING (queue_id)
                 WHERE s.session_id = $1 ORDER BY e.at, e.id, e.place"""
        return [row["event"] for row in await self.rows(sql, one)]

    async def eventually(self, sql: str, *args: Any, timeout: float = 15) -> list[Row]:
        """The rows of a query, as soon as there are any."""
        async with asyncio.timeout(timeout):
            while not (rows := await self.rows(sql, *args)):  # noqa: ASYNC110  # no signal comes of a settled row
                await asyncio.sleep(0.02)  # the database tells nobody of a settled row
        return rows

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if is_recording(path)
        }

    def parts(self) -> list[str]:
        return [path.name for path in self.root.rglob(".*.part")]

    async def parts_are(self, count: int) -> None:
        """So many temporary files lie there."""
        async with asyncio.timeout(10):
            while len(self.parts()) != count:  # noqa: ASYNC110  # nor of a file
                await asyncio.sleep(0.01)

    async def downloading(self, count: int) -> None:
        """So many stalled downloads have brought their first kilobyte."""
        await self.simulator.wait_for(lambda report: report["media"]["bytes"] >= count * 1000)

    async def assert_accounted_for(self) -> None:
        """Every archived session's files are there, equal to what the platform has and recorded once; nothing else is."""
        recorded = await self.rows("SELECT * FROM archived_recordings ORDER BY session_id, ordinal")
        files = {key: body for key, body in self.files().items() if not key.startswith("quarantine/")}
        assert sorted(row["store_key"] for row in recorded) == sorted(files)
        for row in recorded:
            assert self.simulator.sha256_of(row["session_id"])[row["ordinal"] - 1] == row["sha256"]
            assert len(files[row["store_key"]]) == row["bytes"]
        report = self.simulator.report()["media"]
        assert (report["altered_urls"], report["leaked_auth"]) == (0, 0)


@pytest.fixture
def harness(simulator: Simulator, database_url: str, tmp_path: Path, database: Database) -> WorkerHarness:
    return WorkerHarness(simulator, database_url, tmp_path / "store", database)


class Logged:
    """What is logged, and a signal at every entry."""

    def __init__(self) -> None:
        self.entries: list[Row] = []
        self._more = asyncio.Event()

    def __call__(self, _logger: object, method: str, event: Any) -> Any:
        self.entries.append({**event, "log_level": method})
        self._more.set()
        raise structlog.DropEvent

    def named(self, *names: str) -> list[Row]:
        return [entry for entry in self.entries if entry["event"] in names]

    async def more(self) -> None:
        """Wait for the next entry."""
        self._more.clear()
        await self._more.wait()

    async def until(self, name: str, timeout: float = 15, *, times: int = 1) -> Row:
        """The nth entry of that name."""
        async with asyncio.timeout(timeout):
            while len(found := self.named(name)) < times:
                await self.more()
        return found[times - 1]


@pytest.fixture
async def logged(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """What the worker has logged, whatever this process has done with its logs before."""
    seen = Logged()
    processors: list[structlog.typing.Processor] = [add_subject, seen]
    log = structlog.wrap_logger(None, processors, structlog.make_filtering_bound_logger(0))
    for name, module in list(sys.modules.items()):
        if name.startswith(("archiver.worker.", "archiver.cli.reloading")) and hasattr(module, "log"):
            monkeypatch.setattr(module, "log", log)
    return seen


class TcpProxy:
    """A TCP line to Postgres that can be made to hang, as a network does that drops packets, or to lead to another server."""

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        self._target = self._first = (parts.hostname or "", parts.port or 0)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    @property
    def url(self) -> str:
        """The database's, by way of this line."""
        assert self._server is not None
        host, port = self._first
        return self._url.replace(f"{host}:{port}", f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}")

    def hang(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def lead_to(self, port: int) -> None:
        """Let new connections go to another server of that host; those that stand go on to where they lead."""
        self._target = (self._target[0], port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        for source, target in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._pipe(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    await self._flowing.wait()
                    target.write(data)
                    await target.drain()
        finally:
            target.transport.abort()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(database_url) as proxy:
        yield proxy


async def cut_connections(url: str) -> int:
    """Terminate every other connection to this database, as an administrator or a failover does."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetchval(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'archiver'"""
        )
        return int(found)
    finally:
        await connection.close()


@pytest.fixture
def queue_harness(database: Database, queue: Queue) -> QueueHarness:
    return QueueHarness(database, queue)
