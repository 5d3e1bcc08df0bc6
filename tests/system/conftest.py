"""The command line as its users meet it: a process of its own, an environment without surprises, a real database and platform."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from archiver.runtime.event_loop import VARIABLE
from archiver.simulator.platform import Simulator
from tests.conftest import settings_data

T = TypeVar("T")

ON_EVERY_PYTHON = ("test_help.py", "test_worker.py")
"""Commands whole, whatever the Python. The others of this folder say what a command does, and once is enough for that: what is
below them has tests of its own on each.
"""

ESCAPE = "\x1b[31m\x9b2J\u202e[bold]:bug:"
"""What a terminal would carry out, and what rich would."""

ROOT = Path(__file__).parents[2]
"""The checkout."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the others `once`, before the marks choose."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent in (here, here / "account") and item.path.name not in ON_EVERY_PYTHON:
            item.add_marker(pytest.mark.once)


@dataclass(frozen=True)
class Result:
    """How a command ended. `code` is as a shell has it: 143 for a SIGTERM, whether handled or not."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.stdout)

    def refused(self, code: int, *words: str) -> None:
        """Assert that it ended with this code, one clear complaint that has all these words, nothing on standard output."""
        assert self.code == code, self
        assert self.stdout == "", self
        for word in words:
            assert word in self.stderr, (word, self.stderr)
        assert "Traceback" not in self.stderr
        assert "internal error" not in self.stderr


class Running:
    """A command that runs on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout = ""
        self.log: list[str] = []
        self._news = asyncio.Condition()
        self._readers = asyncio.gather(self._read_stdout(), self._read_stderr())

    async def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.stdout += line.decode()

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.log.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self.log.append("")
            self._news.notify_all()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The structured lines of the log."""
        return [json.loads(line) for line in self.log if line.startswith("{")]

    async def logged(self, event: str, *, times: int = 1, timeout: float = 20) -> dict[str, Any]:
        """The line of the log that tells the nth happening of `event`."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.events if line["event"] == event]

        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: len(found()) >= times), timeout)
            except TimeoutError:
                raise AssertionError(f"{event} was not logged {times} times: {self.log}") from None
        return found()[times - 1]

    async def printed(self, text: str, *, timeout: float = 20) -> None:
        """Wait for a line of standard error that holds `text`."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: any(text in line for line in self.log)), timeout)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self, *, timeout: float = 30) -> Result:
        """Wait for its end."""
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
            await self._readers
        return Result(code if code >= 0 else 128 - code, self.stdout, "\n".join(self.log))

    async def kill(self) -> None:
        """Whatever it does, end it and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await self._readers


class Program:
    """`archiver`, in a folder of its own, with a home of its own, configured by `configure`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Path | None = None
        self.command: Sequence[str] = (sys.executable, "-m", "archiver")
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "XDG_DATA_HOME": str(folder / "home/data"),
            "XDG_CONFIG_HOME": str(folder / "home/config"),
            "XDG_CACHE_HOME": str(folder / "home/cache"),
            "TMPDIR": str(folder),
            **{name: os.environ[name] for name in (VARIABLE,) if name in os.environ},
        }
        (folder / "home").mkdir()
        self._running: list[Running] = []

    def configure(self, data: Mapping[str, Any], name: str = "archiver-test.toml") -> Path:
        """Write a configuration, which every later call names."""
        self.config = self.folder / name
        self.config.touch(mode=0o600)
        self.config.write_text(toml(data), encoding="utf-8")
        return self.config

    async def __call__(
        self, *arguments: str | bytes, stdin: bytes = b"", environment: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Result:
        """Run a command to its end."""
        process = await self._spawn(arguments, asyncio.subprocess.PIPE, environment)
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(stdin)
        assert process.returncode is not None
        code = process.returncode
        return Result(code if code >= 0 else 128 - code, stdout.decode(), stderr.decode())

    async def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
        """Start a command and leave it running; the test's end ends it."""
        running = Running(await self._spawn(arguments, asyncio.subprocess.DEVNULL, environment))
        self._running.append(running)
        return running

    async def shell(self, script: str, *, timeout: float = 60) -> Result:
        """Run a shell script in which `archiver` is this program."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f'set -o pipefail; archiver() {{ {self._quoted()} "$@"; }}; {script}',
            cwd=self.folder, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate()
        assert process.returncode is not None
        return Result(process.returncode, stdout.decode(), stderr.decode())

    def _quoted(self) -> str:
        import shlex

        return shlex.join([*self.command, *(["--config", str(self.config)] if self.config else [])])

    async def _spawn(
        self, arguments: Sequence[str | bytes], stdin: int, environment: Mapping[str, str] | None
    ) -> asyncio.subprocess.Process:
        named = ("--config", str(self.config)) if self.config is not None else ()
        return await asyncio.create_subprocess_exec(
            *self.command, *named, *arguments,
            cwd=self.folder, env={**self.environment, **(environment or {})}, start_new_session=True, limit=1 << 22,
            stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def close(self) -> None:
        """End what still runs."""
        for running in self._running:
            await running.kill()


async def archived(archiver: Program, simulator: Simulator, *ids: str) -> None:
    """Archive some plain sessions."""
    for session_id in ids:
        simulator.script({"session_id": session_id})
    assert (await archiver("enqueue", *ids)).code == 0
    assert (await archiver("worker", "--drain")).code == 0


def toml(data: Mapping[str, Any]) -> str:
    """Two levels of TOML: sections, and lists of sections."""
    lines: list[str] = []
    for section, content in data.items():
        for table in content if isinstance(content, list) else [content]:
            lines.append(f"[[{section}]]" if isinstance(content, list) else f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


async def eventually(look: Callable[[], Awaitable[T]], timeout: float = 20, *, every: float = 0.03) -> T:
    """Look until something true is seen, which is returned."""
    deadline = time.monotonic() + timeout
    while True:
        seen = await look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {timeout} s; last seen: {seen!r}"
        await asyncio.sleep(every)


@pytest.fixture
async def blank(tmp_path: Path) -> AsyncIterator[Program]:
    """The program without any configuration."""
    program = Program(tmp_path)
    yield program
    await program.close()


@pytest.fixture
def data(simulator: Simulator, database_url: str, tmp_path: Path) -> dict[str, Any]:
    """A configuration for a migrated database, a simulated platform and a store in `store/`; one bot, called "bot"."""
    return settings_data(simulator, database_url, tmp_path / "store")


@pytest.fixture
def archiver(blank: Program, data: dict[str, Any]) -> Program:
    """The program, configured so."""
    blank.configure(data)
    return blank


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Another program's connection to the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
