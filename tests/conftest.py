"""Real parts for every test: an embedded Postgres shared by the run, a fresh database a test, a simulated platform."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

import asyncpg
import hypothesis
import pytest

from archiver.config import RetrySettings, Settings
from archiver.postgres.database import Database
from archiver.postgres.embedded.server import embedded_postgres
from archiver.postgres.migrate import migrate
from archiver.queue.sessions import Queue
from archiver.simulator.platform import Simulator, SimulatorSettings
from archiver.stores import MARKER
from tests import azure_servers, s3_servers
from tests.azure_servers import AzureServer
from tests.s3_servers import S3Server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script, this run ignores Ctrl-C, and so would every command that a test ends by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine that is busy may stop any of us for longer than the 200 ms that Hypothesis gives one example.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")

ON_ONE_PYTHON = (
    "kore/listings/test_reader.py", "queue/test_model.py",
    "worker/test_bots.py", "worker/test_late.py", "worker/test_memory.py", "worker/test_progress.py", "worker/test_refusals.py",
    "worker/test_room.py",
)  # fmt: skip
"""What the platform, a listing or the store does to a worker, in much time. What a Python could do otherwise (tasks, timers,
cancellation, signals, connections) is tried by their neighbours on each.
"""

_numbers = itertools.count()

MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 << 30
"""Where a file system in memory usually is, and how much of it must be free."""

RETRY = RetrySettings(
    max_attempts=3,
    backoff_base=timedelta(milliseconds=50),
    backoff_max=timedelta(milliseconds=200),
    not_ready_delays=(timedelta(milliseconds=50), timedelta(milliseconds=100)),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these `once`, before the marks choose; and begin with whole commands, which take longest: at the end of a run the
    processes are to have something small left to share.
    """
    here = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(here)) in ON_ONE_PYTHON:
            item.add_marker(pytest.mark.once)
    items.sort(key=lambda item: not item.path.is_relative_to(here / "system"))


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    """A folder for databases, which all processes of the run see and nobody has to tidy up."""
    with _memory(_shared(tmp_path_factory, worker_id)) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(memory: Path) -> Iterator[str]:
    """The URL of one Postgres for the whole run: every process of the run joins it, the last stops it."""
    with asyncio.Runner() as runner:
        context = embedded_postgres(memory / "postgres")
        url = runner.run(context.__aenter__())
        runner.run(_forget_on_power_cut(url))
        try:
            yield url
        finally:
            runner.run(context.__aexit__(None, None, None))


@contextmanager
def _memory(shared: Path) -> Iterator[Path]:
    """A folder in memory that all processes of the run see, as long as one of them needs it; `shared` where memory is short.

    A database is a few hundred files. In memory it is made and dropped in a sixth of the time that a disk takes, which every
    commit would wait for besides. What a killed run has left there is removed by the next one of this checkout.
    """
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield shared
        return
    folder = MEMORY / f"archiver-tests-{os.geteuid()}-{hashlib.sha256(bytes(shared.resolve())).hexdigest()[:16]}"
    with (shared / "memory.lock").open("a") as lock:
        _remove_unless_used(folder, lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        folder.mkdir(mode=0o711, exist_ok=True)  # started by root, Postgres runs as another account
        try:
            yield folder
        finally:
            _remove_unless_used(folder, lock)


def _remove_unless_used(folder: Path, lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    shutil.rmtree(folder, ignore_errors=True)


async def _forget_on_power_cut(url: str) -> None:
    """Nobody reads these databases after the run: nothing has to reach the disk at once."""
    connection = await asyncpg.connect(url)
    try:
        for setting in ("synchronous_commit", "full_page_writes"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """One S3 server for the whole run."""
    with s3_servers.seaweedfs(_shared(tmp_path_factory, worker_id) / "weed") as server:
        yield server


@pytest.fixture(scope="session")
def localstack(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[S3Server]:
    """Another one, likewise."""
    with s3_servers.localstack(_shared(tmp_path_factory, worker_id) / "localstack") as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[AzureServer]:
    """One Azure server, likewise."""
    with azure_servers.azurite(_shared(tmp_path_factory, worker_id) / "azurite") as server:
        yield server


def _shared(factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of the run see."""
    base = factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def template(postgres: str, worker_id: str) -> str:
    """The name of a migrated database that each test's own is a copy of."""
    name = f"template_{worker_id}"

    async def make() -> None:
        await _administer(postgres, f"CREATE DATABASE {name}")
        async with Database(_named(postgres, name), pool_size=1) as database:
            await migrate(database)

    asyncio.run(make())
    return name


@asynccontextmanager
async def _created(postgres: str, kind: str, worker_id: str, options: str = "") -> AsyncIterator[str]:
    """The URL of a database that lasts as long as this."""
    name = f"{kind}_{worker_id}_{next(_numbers)}"
    await _administer(postgres, f"CREATE DATABASE {name} {options}")
    yield _named(postgres, name)
    await _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database_url(postgres: str, worker_id: str) -> AsyncIterator[str]:
    """The URL of a database without any table."""
    async with _created(postgres, "empty", worker_id) as url:
        yield url


@pytest.fixture
async def latin_database_url(postgres: str, worker_id: str) -> AsyncIterator[str]:
    """The URL of a database without any table that holds Latin-1 alone."""
    async with _created(postgres, "latin", worker_id, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        yield url


@pytest.fixture
async def database_url(postgres: str, template: str, worker_id: str) -> AsyncIterator[str]:
    """The URL of a migrated database of this test's own."""
    async with _created(postgres, "test", worker_id, f"TEMPLATE {template} STRATEGY file_copy") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database of this test's own, opened."""
    async with Database(database_url, pool_size=8) as opened:
        yield opened


@pytest.fixture
def queue(database: Database) -> Queue:
    """The queue of that database, with delays of milliseconds and three attempts."""
    return Queue(database, RETRY)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulated platform without rate limits."""
    async with Simulator(SimulatorSettings(rate_limits=(), account_rate_limits=())) as platform:
        yield platform


@pytest.fixture
def settings(simulator: Simulator, database_url: str, tmp_path: Path) -> Settings:
    """A configuration for that platform, that database and a store of this test's own: one bot, called "bot"."""
    return Settings.model_validate(settings_data(simulator, database_url, tmp_path / "store"))


def is_recording(path: Path) -> bool:
    """Whether it is a file of a store, and not the one that says whose store it is."""
    return path.is_file() and path.name != MARKER


def settings_data(simulator: Simulator, database_url: str, store: Path) -> dict[str, object]:
    """The same as plain data, for tests that alter it or write it to a file."""
    return {
        "database": {"url": database_url},
        "bots": [
            {
                "name": "bot",
                "host": simulator.api_url,
                "bot_id": simulator.bot_id,
                "client_id": simulator.client_id,
                "client_secret": simulator.client_secret,
                "rate_limits": ["60000/minute"],
                "media_hosts": ["127.0.0.1"],
            }
        ],
        "storage": {"url": store.as_uri()},
        "worker": {"concurrency": 8, "lease_seconds": 5, "drain_grace_seconds": 5},
        "retry": {
            "max_attempts": 3,
            "backoff_base": "50ms",
            "backoff_max": "200ms",
            "not_ready_delays": ["50ms", "100ms"],
        },
    }


def _named(url: str, database: str) -> str:
    return url.rpartition("/")[0] + f"/{database}"


async def _administer(url: str, command: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(command)
    finally:
        await connection.close()
