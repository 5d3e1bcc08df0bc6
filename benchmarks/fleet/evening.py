"""An evening: calls end over an hour, their media are ready later. How many API calls does one archived recording cost?

    python -m benchmarks.fleet.evening [--calls 600] [--factor 20] [--seeds 1 2 3] [--media uniform lognormal] [--workers 2]

The same evening three times at once, each with a database, a platform and workers of its own:

    planner         the call's end is given (`ended_at`): the first ask is timed by what this bot's media needed lately
    own delays      it is not: asked at the call's end, then after 30 s, 1 m, 2 m, 5 m, 10 m, 30 m
    every 60 s      it is not: asked at the call's end, then every 60 seconds, as is common

Time runs `factor` times as fast: call ends, media and every configured duration are divided by it, rate limits multiplied.
All figures are in the evening's own time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import mean, median, quantiles

from benchmarks.fleet.fleet import BOT, Broken, Fleet, Server, Verdict, fleet, run, server, show

HOUR = 3600.0
CALLS_A_MINUTE = 60
GIVE_UP = 2 * HOUR
"""After the last call's end everything is archived within this, or the proof is broken."""

OWN_DELAYS = (30, 60, 120, 300, 600, 1800)
FIRST_ASK = 120.0
"""`archive_bots.first_ask` before anything is learnt, as the migrations have it."""

AIM = 1.15
PATIENCE = 2.0

MEDIA: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda chance: chance.uniform(20, 300),
    "lognormal": lambda chance: min(1800.0, max(5.0, chance.lognormvariate(math.log(90), 0.7))),
}
"""Seconds from a call's end until its media are ready."""


@dataclass(frozen=True)
class Call:
    """One call of the evening, in its own seconds."""

    session_id: str
    ends: float
    ready: float


@dataclass(frozen=True)
class Arm:
    """One way to ask."""

    name: str
    planned: bool
    delays: tuple[float, ...]


PLANNER = Arm("planner", True, OWN_DELAYS)
OWN = Arm("own delays", False, OWN_DELAYS)
FIXED = Arm("every 60 s", False, (60,))
ARMS = (PLANNER, OWN, FIXED)


@dataclass(frozen=True)
class Found:
    """What one arm came to in one evening. `delays`: from when the media were ready until they were archived.

    `behind`: how late sessions were inserted. A machine that is busy with something else delays asks too, and makes them fewer.
    """

    calls_a_recording: float
    delays: list[float]
    behind: list[float]
    refused: int


def evening(seed: int, calls: int, media: str) -> list[Call]:
    """The evening of this seed, by the calls' ends."""
    chance = random.Random(f"{seed} {media}")
    ends = sorted(chance.uniform(0, HOUR) for _ in range(calls))
    return [Call(f"{at:08}", end, end + MEDIA[media](chance)) for at, end in enumerate(ends)]


async def play(where: Server, arm: Arm, seed: int, media: str, *, calls: int, factor: float, workers: int) -> Found:
    """One arm's evening, from the first call's end until everything is archived."""
    limit = f"{round(CALLS_A_MINUTE * factor)}/minute"
    retry = {"not_ready_delays": [f"{delay / factor * 1000:.0f}ms" for delay in arm.delays]}
    name = f"{media}_{seed}_{ARMS.index(arm)}"
    async with fleet(where, name, platform_limits=[limit], bot_limits=[limit], retry=retry) as it:
        if arm.planned:
            await _scale_the_prior(it, FIRST_ASK / factor)
        await it.start(workers)
        await it.until(partial(_all_serve, it, workers), 60, "every worker has started")
        told = evening(seed, calls, media)
        began = time.time()
        it.simulator.script_all([_script(call, factor) for call in told])
        behind = await _enqueue_at_their_ends(it, told, began, factor, ended_at=arm.planned)
        await it.until(partial(_all_settled, it, calls), GIVE_UP / factor, "everything archived")
        ended = await it.sql.fetch(
            "SELECT session_id, state, extract(epoch FROM finished_at)::float8 AS at FROM archive_sessions"
        )
        recordings = await it.sql.fetchval("SELECT count(*) FROM archived_recordings")
        if recordings != calls:
            raise Broken(f"{name}: {recordings} recordings of {calls} sessions")
        ready = {call.session_id: call.ready for call in told}
        delays = [(row["at"] - began) * factor - ready[row["session_id"]] for row in ended]
        return Found(it.calls / recordings, delays, behind, it.refused)


def _script(call: Call, factor: float) -> dict[str, object]:
    return {
        "session_id": call.session_id,
        "call_ends_at": call.ends / factor,
        "ready_at": call.ready / factor,
        "recordings": [{"audio": {"seconds": 0.25}}],
    }


async def _enqueue_at_their_ends(it: Fleet, told: list[Call], began: float, factor: float, *, ended_at: bool) -> list[float]:
    """As another program would, which hears of each call when it ends. Returns how late it was done."""
    behind = []
    plain = await it.sql.prepare("INSERT INTO archive_queue (bot, session_id) VALUES ($1, $2)")
    known = (
        await it.sql.prepare("INSERT INTO archive_queue (bot, session_id, ended_at) VALUES ($1, $2, $3)") if ended_at else None
    )
    for call in told:
        at = began + call.ends / factor
        await asyncio.sleep(at - time.time())
        if known is None:
            await plain.fetch(BOT, call.session_id)
        else:
            await known.fetch(BOT, call.session_id, datetime.fromtimestamp(at, UTC))
        behind.append((time.time() - at) * factor)
        it.all_run()
    return behind


async def _scale_the_prior(it: Fleet, seconds: float) -> None:
    """Before any bot has learnt anything: for those that `migrate` recorded, and for those to come."""
    await it.sql.execute(f"ALTER TABLE archive_bots ALTER COLUMN first_ask SET DEFAULT '{seconds} seconds'")
    await it.sql.execute("UPDATE archive_bots SET first_ask = $1", timedelta(seconds=seconds))


async def _all_serve(it: Fleet, workers: int) -> bool:
    return bool(await it.sql.fetchval("SELECT count(*) = $1 FROM archive_workers", workers))


async def _all_settled(it: Fleet, calls: int) -> bool:
    return bool(await it.sql.fetchval("SELECT count(finished_at) = $1 FROM archive_queue", calls))


async def has_planner(where: Server) -> bool:
    """Whether this version's queue takes a call's end."""
    async with fleet(where, "look", bot_limits=["60/minute"]) as it:
        columns = await it.sql.fetch(
            "SELECT FROM information_schema.columns WHERE (table_name, column_name) IN "
            "(('archive_queue', 'ended_at'), ('archive_bots', 'first_ask'))"
        )
        return len(columns) == 2


async def proof(verdict: Verdict, *, calls: int, factor: float, seeds: list[int], media: list[str], workers: int) -> None:
    """Every arm, every distribution, every seed; arms at the same time, so that they meet the same machine."""
    async with server() as where:
        planner = await has_planner(where)
        arms = ARMS if planner else ARMS[1:]
        found: dict[tuple[str, Arm], list[Found]] = {}
        for distribution in media:
            for seed in seeds:
                evenings = [play(where, arm, seed, distribution, calls=calls, factor=factor, workers=workers) for arm in arms]
                for arm, one in zip(arms, await asyncio.gather(*evenings), strict=True):
                    found.setdefault((distribution, arm), []).append(one)
                    print(f"seed {seed}, {distribution}, {arm.name}: {one.calls_a_recording:.3f}", file=sys.stderr, flush=True)
    print(f"{calls} calls in an hour, {len(seeds)} seeds, {factor:g} times as fast, {workers} worker processes each")
    show(
        ["media ready after", "ask", "calls a recording", "least", "most", "delay: median", "p95", "behind: p95", "refused"],
        [_row(distribution, arm, each) for (distribution, arm), each in found.items()],
    )
    verdict.check(planner, "the queue takes a call's end (archive_queue.ended_at)")
    verdict.check(not any(one.refused for each in found.values() for one in each), "the platform refused no call")
    for distribution in media if planner else ():
        cost = {arm: mean(one.calls_a_recording for one in found[distribution, arm]) for arm in arms}
        late = {arm: _p95(found[distribution, arm]) for arm in arms}
        verdict.check(cost[PLANNER] <= AIM, f"{distribution}: at most {AIM} calls a recording, nothing learnt before")
        verdict.check(
            late[PLANNER] <= PATIENCE * late[OWN],
            f"{distribution}: not by waiting for ever (p95 within {PATIENCE:g} times that of our own delays)",
        )


def _p95(each: list[Found]) -> float:
    return quantiles((delay for one in each for delay in one.delays), n=20)[-1]


def _behind(each: list[Found]) -> float:
    return quantiles((late for one in each for late in one.behind), n=20)[-1]


def _row(distribution: str, arm: Arm, each: list[Found]) -> list[str]:
    costs = [one.calls_a_recording for one in each]
    return [
        distribution,
        arm.name,
        f"{mean(costs):.3f}",
        f"{min(costs):.3f}",
        f"{max(costs):.3f}",
        f"{median(delay for one in each for delay in one.delays):.0f} s",
        f"{_p95(each):.0f} s",
        f"{_behind(each):.1f} s",
        str(sum(one.refused for one in each)),
    ]


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--calls", type=int, default=600)
    options.add_argument("--factor", type=float, default=20)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--media", choices=list(MEDIA), nargs="+", default=list(MEDIA))
    options.add_argument("--workers", type=int, default=2)
    run(partial(proof, **vars(options.parse_args())))
