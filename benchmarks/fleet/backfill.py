"""Two years of calls are archived by one `archiver backfill` that is killed again and again; `reconcile` finds none missing.

python -m benchmarks.fleet.backfill [--calls 200000] [--kills 5] [--days 730] [--source call_details|sessions] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from benchmarks.fleet.fleet import BOT, Broken, Server, Verdict, configured, log_of, run, server, show, spawn

END = datetime(2026, 1, 1, tzinfo=UTC)
"""The made calls took place before it."""

SECONDS = [0.1, 0.2]
"""How long a call is: its recording has some 2 KB, so that a run takes gigabytes and not terabytes."""

UNAVAILABLE, CHATS = 0.002, 0.03
"""Shares of all calls: without a recording; of channels that are not voice."""

PEAK = {"hour": 10, "share": 0.2}

LIMIT = "60000/minute"
"""Of the bot and of the account: more than this machine can do. What limits cost is for the other proofs."""

LEASE_SECONDS = 5
PAGE = 100
STALLED = 180.0
"""Seconds without anything listed or ended after which the proof is broken."""

LONGEST = 3600.0
"""Seconds that `reconcile` and `verify` may take."""

GENTLE = 20
"""The pause after a look at the database is so many times as long as the look."""


@dataclass
class Platform:
    """A simulated platform in a process of its own."""

    url: str
    http: aiohttp.ClientSession

    async def list_calls(self, history: dict[str, Any]) -> int:
        """Let these calls have happened. How many are voice calls, by the platform's own word."""
        async with self.http.post(f"{self.url}/_simulator/history", json=history) as answer:
            return int((await answer.json())["voice"])

    async def report(self) -> dict[str, Any]:
        """What it was asked so far."""
        async with self.http.get(f"{self.url}/_simulator/report") as answer:
            found: dict[str, Any] = await answer.json()
            return found


@asynccontextmanager
async def platform(folder: Path) -> AsyncIterator[Platform]:
    """`archiver simulate` on free ports of loopback, ended with this."""
    process = await spawn(folder, "simulate", "simulate", "--port", "0")
    try:
        deadline = time.monotonic() + 60
        while "ready" not in (said := log_of(folder, "simulate")).split():
            if process.returncode is not None or time.monotonic() > deadline:
                raise Broken(f"archiver simulate does not start:\n{said}")
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as http:
            yield Platform(said.partition("API")[2].split()[0], http)
    finally:
        await _end(process)


@dataclass
class Job:
    """The long backfill, on a database and a store of its own."""

    folder: Path
    config: Path
    sql: asyncpg.Connection[asyncpg.Record]
    span: tuple[str, str]
    memory: Counter[str] = field(default_factory=Counter)
    """The most that a process of each command had, in KiB."""
    killed: list[str] = field(default_factory=list)
    """For each kill, what it fell into."""

    @property
    def store(self) -> Path:
        return self.folder / "store"

    async def archiver(self, command: str, *arguments: str) -> tuple[int, float, str]:
        """Run a command to its end, at most `LONGEST`: its exit code, its seconds, what it printed."""
        process, began = await self._spawn(command, *arguments), time.monotonic()
        try:
            while process.returncode is None:
                if time.monotonic() - began > LONGEST:
                    raise Broken(f"archiver {command} still runs after {LONGEST:.0f} s")
                self._weigh(command, process.pid)
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 0.2)
        finally:
            await _end(process)
        assert process.returncode is not None
        return process.returncode, time.monotonic() - began, (self.folder / f"{command}.out").read_text()

    async def backfill(self, voice: int, kills: int, chance: random.Random) -> int:
        """Run it until it ends by itself; its exit code. It is killed so often before: half of the times while the listings are
        read, the others after that, at moments spread at random over what is left of either.
        """
        for kill in range(kills):
            reading = kill < kills // 2
            spread = (kills // 2 if reading else kills) - kill
            listed, ended, _ = await self._look()
            now = listed if reading else ended
            # The first of so many moments, each as likely, in what is left.
            until = now + (voice - now) * (1 - (1 - chance.random()) ** (1 / spread))
            code = await self._until(until, reading=reading)
            if code is not None:
                raise Broken(f"the backfill ended with {code} before kill {kill + 1}:\n{log_of(self.folder, 'backfill')}")
        code = await self._until(float("inf"), reading=False)
        assert code is not None
        return code

    async def _until(self, count: float, *, reading: bool) -> int | None:
        """Run a backfill until it ends (its exit code), or so many calls are listed or have ended: it is killed (None)."""
        process = await self._spawn("backfill", "--from", self.span[0], "--to", self.span[1])
        before, news_at = (0, 0), time.monotonic()
        try:
            while True:
                began = time.monotonic()
                listed, ended, read = await self._look()
                if (listed, ended) != before:
                    before, news_at = (listed, ended), began
                if began - news_at > STALLED:
                    raise Broken(f"nothing happens for {STALLED:.0f} s:\n{log_of(self.folder, 'backfill')}")
                self._weigh("backfill", process.pid)
                if process.returncode is None and (listed if reading else ended) >= count:
                    process.kill()
                    await process.wait()
                    self.killed.append("archiving" if read else "reading")
                    self._say(f"killed after {listed} calls were listed, {ended} had ended")
                    return None
                with suppress(TimeoutError):
                    pause = max(0.05, GENTLE * (time.monotonic() - began))
                    return await asyncio.wait_for(process.wait(), pause)
        finally:
            await _end(process)

    async def _look(self) -> tuple[int, int, bool]:
        """How many calls were listed, how many sessions have ended, and whether all listings have been read."""
        row = await self.sql.fetchrow(
            "SELECT (SELECT coalesce(sum(calls), 0) FROM archive_discoveries) AS listed, "
            "(SELECT count(finished_at) FROM archive_queue) AS ended, "
            "EXISTS (SELECT FROM archive_discoveries WHERE newest_first AND reached = from_at) AS read"
        )
        assert row is not None
        return int(row["listed"]), row["ended"], row["read"]

    def _weigh(self, command: str, pid: int) -> None:
        with suppress(OSError):  # it has ended
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.memory[command] = max(self.memory[command], int(line.split()[1]))

    async def _spawn(self, command: str, *arguments: str) -> asyncio.subprocess.Process:
        return await spawn(self.folder, command, "--config", str(self.config), command, *arguments)

    def _say(self, what: str) -> None:
        print(what, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Files:
    """What lies in the store."""

    whole: int
    parts: int
    twice: int
    """Sessions that have more than the one file that the platform has of each."""


def files_in(store: Path) -> Files:
    """Walk the store."""
    sessions: Counter[str] = Counter()
    parts = 0
    for path in store.rglob("*"):
        if path.name.endswith(".part"):
            parts += 1
        elif path.is_file():
            sessions[path.parts[-3]] += 1
    return Files(sessions.total(), parts, sum(count > 1 for count in sessions.values()))


@asynccontextmanager
async def job(where: Server, platform: Platform, source: str, span: tuple[datetime, datetime]) -> AsyncIterator[Job]:
    """A migrated database and a configuration for it."""
    config = configured(
        where.folder,
        {
            "database": {"url": where.url},
            "[bots]": {
                "name": BOT,
                "host": platform.url,
                # What `archiver simulate` takes unless told otherwise.
                "bot_id": "st-simulated",
                "client_id": "cs-simulated",
                "client_secret": "simulated-secret-of-no-worth-0123456789",
                "account_id": "a-simulated",
                "rate_limits": [LIMIT],
                "account_rate_limits": [LIMIT],
                "discovery": source,
                "media_hosts": ["127.0.0.1"],
            },
            "storage": {"url": (where.folder / "store").as_uri()},
            "worker": {"lease_seconds": LEASE_SECONDS},
        },
    )
    sql = await asyncpg.connect(where.url)
    try:
        made = Job(where.folder, config, sql, (span[0].isoformat(), span[1].isoformat()))
        if (await made.archiver("migrate"))[0]:
            raise Broken(f"archiver migrate failed:\n{log_of(where.folder, 'migrate')}")
        yield made
    finally:
        await sql.close()


async def proof(verdict: Verdict, *, calls: int, kills: int, days: int, source: str, seed: int) -> None:
    """Make the history, run the backfill through its kills, then ask `reconcile`, `verify`, the database and the store."""
    span = (END - timedelta(days=days), END)
    unavailable, chats = round(calls * UNAVAILABLE), round(calls * CHATS)
    history = {
        "from": span[0].isoformat(), "to": span[1].isoformat(), "calls": calls, "seed": seed, "seconds": SECONDS,
        "peak": PEAK, "unavailable": unavailable, "other_channels": chats,
    }  # fmt: skip
    async with server() as where, platform(where.folder) as there, job(where, there, source, span) as it:
        voice = await there.list_calls({"made": history})
        began = time.monotonic()
        code = await it.backfill(voice, kills, random.Random(f"{seed} kills"))
        seconds = time.monotonic() - began
        asked = await there.report()
        reconciled, reconcile_seconds, printed = await it.archiver(
            "reconcile", "--from", it.span[0], "--to", it.span[1], "--format", "json"
        )
        account = json.loads(printed) if printed else {}
        asked_again = await there.report()
        verified, verify_seconds, read = await it.archiver("verify", "--json")
        rescued = await it.sql.fetchval("SELECT count(*) FROM archive_history WHERE event = 'rescued'")
        recorded = await it.sql.fetchval("SELECT count(*) FROM archived_recordings")
        rows = await it.sql.fetchval("SELECT count(*) FROM archive_queue")
        found = files_in(it.store)
    endpoint = "get_sessions" if source == "sessions" else "call_details"
    # Full pages only, and at least one for each of the longest stretches that a request can span.
    listed, longest = (calls, 7 - 1 / 24) if source == "sessions" else (voice, 7)
    least = max(ceil(listed / PAGE), ceil(days / longest))
    requests = asked["listings"][endpoint]
    requests_again = asked_again["listings"][endpoint] - requests
    show(
        [f"a backfill of {days} days, by {source}", ""],
        [
            ["calls of the history, voice calls among them", f"{calls:,}, {voice:,}"],
            ["sessions", f"{rows:,}"],
            ["kills, of these while listings were read", f"{len(it.killed)}, {it.killed.count('reading')}"],
            ["sessions taken over from the killed", str(rescued)],
            ["seconds, kills and starts included", f"{seconds:.0f}"],
            ["sessions a second", f"{rows / seconds:.0f}"],
            ["requests to the listing (the least possible)", f"{requests:,} ({least:,})"],
            ["calls of the recordings API (the least possible)", f"{asked['api']['calls']:,} ({voice:,})"],
            ["refused by the platform (429)", str(asked_again["listings"]["rate_limited"] + asked["api"]["rate_limited"])],
            ["most memory of the backfill", f"{it.memory['backfill'] / 1024:.0f} MiB"],
            ["reconcile: seconds, requests to the listing, most memory",
             f"{reconcile_seconds:.0f}, {requests_again:,}, {it.memory['reconcile'] / 1024:.0f} MiB"],
            ["reconcile: archived, unavailable, missing, mismatched",
             ", ".join(f"{account.get(name, 0):,}" for name in ("archived", "unavailable", "missing", "mismatched"))],
            ["verify: seconds", f"{verify_seconds:.0f}"],
            ["files in the store", f"{found.whole:,}"],
        ],
    )  # fmt: skip
    verdict.check(code == 0, "the backfill's last run ends with 0")
    verdict.check(kills < 2 or len(set(it.killed)) == 2, "it was killed while listings were read, and after that")
    verdict.check(reconciled == 0 and account.get("complete") is True, "reconcile ends with 0: every call is accounted for")
    verdict.check(account.get("calls") == voice, "it accounts for as many calls as the platform knows")
    verdict.check(account.get("missing") == 0, "none is missing")
    ended = {name: account.get(name) for name in ("archived", "unavailable")}
    verdict.check(
        ended == {"archived": voice - unavailable, "unavailable": unavailable},
        "every other one is archived, or unavailable because it has no recording",
    )
    verdict.check(not account.get("unlisted") and not account.get("problems"), "the archive holds nothing else")
    verdict.check(verified == 0 and json.loads(read)["equal"] == recorded, "verify ends with 0: every file is whole and equal")
    verdict.check(found.whole == recorded == voice - unavailable and not found.twice, "no recording is stored twice")
    verdict.check(not found.parts, "nothing of the killed is left in the store")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--calls", type=int, default=200_000)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--days", type=int, default=730)
    options.add_argument("--source", choices=["call_details", "sessions"], default="call_details")
    options.add_argument("--seed", type=int, default=1)
    run(partial(proof, **vars(options.parse_args())))
