"""One command in several processes. The command is the first worker, and starts the others: each is a whole worker with a lease,
an event loop and connections of its own. All limits are the command's, and are shared out: more processes use more processors,
and change nothing else.

The others listen to a socket. They leave in order when they are told to, and when it closes: whatever ends the command, they end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from archiver.cli.shares import process_count, share_of, with_share
from archiver.cli.supervised import ENVIRONMENT, GO, RELOAD, say
from archiver.config import Settings
from archiver.config.loading import find_file
from archiver.errors import ConfigError
from archiver.observe import logs
from archiver.observe.tally import Tally
from archiver.worker.loop import FAREWELL_SECONDS, Worker

log = logs.logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before one that died is started again: the first time, and at most. One that has worked for the longest pause begins
with the first again.
"""

LOOK_SECONDS = 5.0
"""How long one may take to say how it is."""

SILENT_LEASES = 3
"""One that says nothing for so many leases hangs. It has lost its sessions to others by then, and gives up its place."""

START_SECONDS = 60.0
"""How long one may at least take until its first word: a busy machine starts no process within a short lease."""

MAX_LINE = 2**26
"""Bytes that one may say at once; its tally grows with the bots, and with the sessions at once."""


@dataclass(frozen=True)
class Command:
    """What a command was told that all its processes have to know."""

    config: Path | None = None
    log_level: str | None = None

    @classmethod
    def of(cls, ctx: click.Context) -> Command:
        """That of this command line; `config` is the file that applies, named or found."""
        return cls(ctx.obj["config"] or find_file(os.environ), ctx.obj["log_level"])

    def check_config(self) -> None:
        """Raises ConfigError for a file that only this process can read, or that can be read only once."""
        if self.config is None or str(self.config) == os.devnull:
            return
        path = self.config.absolute()
        ours = path.is_relative_to("/proc") or (path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm"))  # noqa: S108  # nothing is made there
        if ours or not self.config.is_file():
            raise ConfigError(
                f"{self.config}: the other processes of --processes cannot read it",
                hint="write the configuration into a file, or its secrets into the environment; or use --processes 1",
            )

    def arguments(self) -> list[str]:
        """The command line of a worker."""
        # Named, though it was found: one that is started later must find no other one, nor one where there was none.
        given = ["--config", os.devnull if self.config is None else str(self.config)]
        given += [] if self.log_level is None else ["--log-level", self.log_level]
        # As multiprocessing does it: -E, -I, -X utf8 and the like hold for all.
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        # -m looks into the working folder first, whatever lies there; a program that was not started by it does not.
        if getattr(sys.modules["__main__"], "__spec__", None) is None and not sys.flags.safe_path:
            flags.append("-P")
        return [sys.executable, *flags, "-m", "archiver", *given, "worker"]


class Processes:
    """The other processes of a command, `count` with itself. `settings` are the whole command's. Raises ConfigError where others
    could not read them.
    """

    def __init__(self, settings: Settings, count: int, command: Command = Command()) -> None:
        if count > 1:
            command.check_config()
        self.count = count
        self.settings = with_share(settings, share_of(settings, 1, count)) if count > 1 else settings
        """The command's own share."""
        self.whole = settings
        self._generation = 0
        """How often these have changed."""
        self._command = command
        self._prepared: dict[int, _Process] = {}
        self._running: dict[int, _Process] = {}
        self._ended = Tally()
        """What those did that have ended."""
        self._leaving = asyncio.Event()
        self._left_at = 0.0
        self._hurrying = False
        if count > 1:
            logs.number_process(1)

    def share(self, settings: Settings) -> Settings:
        """What the command itself would get of these. Raises ConfigError where they cannot be shared out."""
        if self.count == 1:
            return settings
        process_count(settings, self.count)
        return with_share(settings, share_of(settings, 1, self.count))

    def change(self, settings: Settings) -> None:
        """These are the whole command's settings from now on: the others read theirs again, each with its share."""
        self.whole, self.settings = settings, self.share(settings)
        self._generation += 1
        for process in self._running.values():
            self._tell_share(process)

    def _tell_share(self, process: _Process) -> None:
        process.send(f"{RELOAD} {json.dumps(share_of(self.whole, process.number, self.count))}")

    async def look(self) -> None:
        """Ask each of them how it is; one that does not answer in time is as it was."""
        asked = [asyncio.create_task(process.look()) for process in self._running.values()]
        if asked:
            await asyncio.wait(asked, timeout=LOOK_SECONDS)
            for task in asked:
                task.cancel()

    def tally(self, own: Tally) -> Tally:
        """What all have done, as of the last look; `own` is the command's."""
        if self.count == 1:
            return own
        return Tally.sum_of([own, self._ended, *(process.tally for process in self._running.values())])

    def slots(self, own: Worker) -> tuple[int, int, float]:
        """Slots and how many are in use, of all; and the shortest time that a lease has left."""
        others = [process.now for process in self._running.values() if process.now is not None]
        slots, in_use = own.concurrency, own.running
        left = [own.lease_remaining, *(now[2] for now in others)]
        return slots + sum(int(now[0]) for now in others), in_use + sum(int(now[1]) for now in others), min(left)

    @property
    def troubles(self) -> list[dict[str, str]]:
        """Why each of them does not archive as it should, as of its last word; see Worker.troubles."""
        return [
            {reason: f"process {process.number}: {message}" for reason, message in process.troubles.items()}
            for process in self._running.values()
        ]

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """Start the others while the command itself starts: what they import takes as long. They do nothing before `beside`."""
        for number in range(2, self.count + 1):
            with suppress(OSError):  # it is tried again
                self._prepared[number] = await self._start(number)
        try:
            yield
        finally:
            for process in self._prepared.values():  # it was not to be
                process.kill()
                await process.ended(on_idle=lambda: None)

    @asynccontextmanager
    async def beside(self, worker: Worker) -> AsyncIterator[None]:
        """Have the others work as long as this worker does, and leave when it does. They have left in the end. Again with the
        next worker, if there is one: a night may have two rounds.
        """
        if self.count == 1:
            yield
            return
        self._leaving.clear()
        self._hurrying, self._ended = False, Tally()
        keepers = [
            asyncio.create_task(self._keep(number, worker), name=f"process {number}") for number in range(2, self.count + 1)
        ]
        telling = [
            asyncio.create_task(self._tell(worker.leaving, "stop")),
            asyncio.create_task(self._tell(worker.hurrying, "hurry")),
        ]
        try:
            yield
        finally:
            self._leave()
            self._send("stop")
            if await self._any_late(keepers, worker):
                for process in self._running.values():
                    log.error("worker_process_killed", process=process.number, pid=process.pid, because="it did not leave")
                    process.kill()
            await asyncio.wait(keepers)
            for task in telling:
                task.cancel()
            done = self.tally(worker.tally)
            log.info("worker_processes_stopped", processes=self.count, **done.ended, files=done.files,
                     bytes=done.transfers.bytes, lost=done.lost)  # fmt: skip

    def _leave(self) -> None:
        if not self._leaving.is_set():
            self._left_at = time.monotonic()
            self._leaving.set()

    async def _any_late(self, keepers: Sequence[asyncio.Task[None]], worker: Worker) -> bool:
        """Wait until all have left, but no longer than they may take: each leaves by itself within the grace, or when told to
        hurry. What does not is no process any more that anybody could reason with.
        """
        grace = self._left_at + self.whole.worker.drain_grace_seconds + 2 * FAREWELL_SECONDS - time.monotonic()
        left = asyncio.create_task(asyncio.wait(keepers))
        hurried = asyncio.create_task(worker.hurrying())
        await asyncio.wait([left, hurried], timeout=max(grace, 0), return_when=asyncio.FIRST_COMPLETED)
        if hurried.done():
            await asyncio.wait([left], timeout=2 * FAREWELL_SECONDS)
        hurried.cancel()
        late = not left.done()
        left.cancel()
        return late

    async def _tell(self, when: Callable[[], Awaitable[Any]], what: str) -> None:
        await when()
        self._leave()
        self._hurrying = self._hurrying or what == "hurry"
        self._send(what)

    def _send(self, what: str) -> None:
        for process in self._running.values():
            process.send(what)

    async def _keep(self, number: int, worker: Worker) -> None:
        """Keep one of them running until it is time to leave."""
        pause = FIRST_PAUSE
        while not self._leaving.is_set():
            began = time.monotonic()
            process, code = None, "not started"
            try:
                process = self._prepared.pop(number, None) or await self._start(number)
            except OSError as error:
                code = error.strerror or str(error)
            if process is not None:
                self._running[number] = process
                process.send(GO)
                if process.generation != self._generation:
                    self._tell_share(process)
                if self._leaving.is_set():
                    process.send("hurry" if self._hurrying else "stop")
                watching = asyncio.create_task(self._watch(process))
                code = _how_ended(await process.ended(on_idle=worker.wake))
                watching.cancel()
                del self._running[number]
                self._ended.add(process.tally.ended_only().as_json())
            if self._leaving.is_set():
                return
            pause = FIRST_PAUSE if time.monotonic() - began >= LONGEST_PAUSE else pause
            wait = pause * random.uniform(0.5, 1)  # noqa: S311  # jitter, no secret
            log.error("worker_process_ended", process=number, exit=code, again_in_seconds=round(wait, 1))
            pause = min(2 * pause, LONGEST_PAUSE)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), wait)

    async def _start(self, number: int) -> _Process:
        generation = self._generation
        process = await _Process.start(number, self._command.arguments(), self.environment(number))
        process.generation = generation
        return process

    async def _watch(self, process: _Process) -> None:
        """End it if it hangs: a process that is there and does nothing is worse than none."""
        lease = self.whole.worker.lease_seconds
        while True:
            await asyncio.sleep(lease)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.look(), lease)
            if process.silent >= process.patience(lease):
                log.error("worker_process_killed", process=process.number, pid=process.pid, because="it hangs")
                process.kill()
                return

    def environment(self, number: int) -> dict[str, str]:
        """That of process `number`: this one's, and its share of the limits, instead of what was set, in whichever case."""
        shares = share_of(self.whole, number, self.count)
        keys = {f"ARCHIVER_{key.replace('.', '__').upper()}": str(value) for key, value in shares.items()}
        keys["ARCHIVER_METRICS__LISTEN"] = keys["ARCHIVER_METRICS__TEXTFILE"] = ""
        return {name: value for name, value in os.environ.items() if name.upper() not in keys} | keys


def _how_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"signal {-code}")


class _Process:
    """One of the others, as the command sees it."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, reader: asyncio.StreamReader,
                 writer: asyncio.StreamWriter) -> None:  # fmt: skip
        self.number = number
        self.pid = process.pid
        self.generation = 0
        """Of the settings that it was started with."""
        self.tally = Tally()
        """As of its last word."""
        self.now: tuple[float, float, float] | None = None
        self.troubles: dict[str, str] = {}
        self._process = process
        self._reader = reader
        self._writer = writer
        self._looked = asyncio.Event()
        self._heard = time.monotonic()

    @classmethod
    async def start(cls, number: int, arguments: Sequence[str], environment: Mapping[str, str]) -> _Process:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**environment, ENVIRONMENT: f"{number} {theirs.fileno()}"},
                # Ctrl-C is the command's to pass on: the others would take it, and then the command's word, for a second signal.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
        return cls(number, process, reader, writer)

    @property
    def silent(self) -> float:
        """Seconds since its last word."""
        return time.monotonic() - self._heard

    def patience(self, lease_seconds: float) -> float:
        """After how many silent seconds it hangs."""
        leases = SILENT_LEASES * lease_seconds
        return max(leases, START_SECONDS) if self.now is None else leases

    def send(self, what: str) -> None:
        """Tell it."""
        say(self._writer, what.encode())

    async def look(self) -> None:
        """Ask how it is, and wait for the answer."""
        self._looked.clear()
        self.send("look")
        await self._looked.wait()

    async def ended(self, *, on_idle: Callable[[], None]) -> int:
        """Hear what it says until it has ended: its exit code; below 0, the signal that ended it."""
        try:
            while line := await self._reader.readline():
                self._heard = time.monotonic()
                told = json.loads(line)
                if "tally" in told:
                    tally = Tally()
                    tally.add(told["tally"])
                    self.tally, self.now, self.troubles = tally, tuple(told["now"]), dict(told.get("troubles", {}))
                    self._looked.set()
                else:
                    on_idle()
        except OSError:
            self.kill()  # it is most likely gone
        except Exception as error:  # noqa: BLE001  # half a line, or what another version says: it must not be lost sight of
            log.error(  # noqa: TRY400  # what is wrong is in it; how it was found helps nobody
                "worker_process_killed", process=self.number, pid=self.pid, because="it cannot be understood",
                error=f"{type(error).__name__}: {error}",
            )  # fmt: skip
            self.kill()
        code = await self._process.wait()
        self._looked.set()
        self._writer.close()
        return code

    def kill(self) -> None:
        """At once."""
        with suppress(ProcessLookupError):
            self._process.kill()
