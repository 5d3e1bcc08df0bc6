"""Three worker processes share one bot's budget: the platform never has to refuse a call, and hardly any of the budget is wasted.

python -m benchmarks.fleet.budget [--sessions 1500] [--workers 3] [--observe 30]
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial

from benchmarks.fleet.fleet import Server, Verdict, enqueue, fleet, run, server, show, states

MINUTE = 600
HOUR = 300
SLACK = 1.05
"""The run may take so much longer than the sessions divided by the limit."""


async def proof(verdict: Verdict, *, sessions: int, workers: int, observe: float) -> None:
    """Both parts."""
    async with server() as where:
        await one_window(where, verdict, sessions, workers)
        print()
        await two_windows(where, verdict, workers, observe)


async def one_window(where: Server, verdict: Verdict, sessions: int, workers: int) -> None:
    """`sessions` ready sessions at 600 a minute: one call each."""
    limit = f"{MINUTE}/minute"
    ideal = sessions / MINUTE * 60
    async with fleet(where, "one_window", platform_limits=[limit], bot_limits=[limit]) as it:
        it.simulator.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.5}}]})
        await enqueue(it.sql, 1, sessions)
        began = await it.sql.fetchval("SELECT clock_timestamp()")
        await it.start(workers, "--drain")
        await it.drained(ideal * 2 + 60)
        ended = await it.sql.fetchval("SELECT max(finished_at) FROM archive_queue")
        first = await it.sql.fetchval("SELECT min(at) FROM archive_history WHERE event = 'claimed'")
        share = await it.sql.fetch("SELECT count(*) FROM archive_history WHERE event = 'archived' GROUP BY actor ORDER BY 1")
        report = it.simulator.report()["api"]
        found = await states(it.sql)
    whole, working = ((ended - start).total_seconds() for start in (began, first))
    show(
        ["one window", limit],
        [
            ["sessions", str(sessions)],
            ["worker processes", str(workers)],
            ["sessions archived by each", ", ".join(str(row["count"]) for row in share)],
            ["calls as the platform counted them", str(report["calls"])],
            ["most in any sliding minute", str(report["max_in_window"]["minute"])],
            ["refused by the platform (429)", str(report["rate_limited"])],
            ["sessions / limit", f"{ideal:.1f} s"],
            ["start of the first process to the last session settled", f"{whole:.1f} s ({whole / ideal:.3f})"],
            ["first claim to the last session settled", f"{working:.1f} s ({working / ideal:.3f})"],
        ],
    )
    verdict.check(report["rate_limited"] == 0, "the platform refused no call")
    verdict.check(
        found == {"archived": sessions} and report["calls"] == sessions, "every session is archived, with one call each"
    )
    verdict.check(whole <= SLACK * ideal, f"done within {SLACK} of sessions / limit, process start included")


async def two_windows(where: Server, verdict: Verdict, workers: int, observe: float) -> None:
    """600 a minute and 300 an hour together: 300 calls, and then none."""
    limits = [f"{MINUTE}/minute", f"{HOUR}/hour"]
    async with fleet(where, "two_windows", platform_limits=limits, bot_limits=limits) as it:
        it.simulator.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.5}}]})
        await enqueue(it.sql, 1, 2 * HOUR)
        await it.start(workers, "--drain")

        async def all_drawn() -> bool:
            return it.calls >= HOUR and (await states(it.sql)).get("archived", 0) >= HOUR

        await it.until(all_drawn, HOUR / MINUTE * 60 * 2 + 30, f"{HOUR} sessions archived")
        with suppress(TimeoutError):  # no further call: as it should be
            await it.simulator.wait_for(lambda report: report["api"]["calls"] > HOUR, observe)
        it.all_run()
        report = it.simulator.report()["api"]
        found = await states(it.sql)
    show(
        ["two windows", " and ".join(limits)],
        [
            ["sessions", str(2 * HOUR)],
            ["worker processes", str(workers)],
            ["calls as the platform counted them", str(report["calls"])],
            ["most in any sliding minute", str(report["max_in_window"]["minute"])],
            ["refused by the platform (429)", str(report["rate_limited"])],
            ["observed after the last call", f"{observe:.0f} s"],
            ["archived", str(found.get("archived", 0))],
            ["waiting", str(found.get("pending", 0))],
        ],
    )
    verdict.check(report["calls"] == HOUR, f"the platform saw {HOUR} calls, and no other while the workers ran on")
    verdict.check(report["rate_limited"] == 0, "the platform refused no call")
    verdict.check(found == {"archived": HOUR, "pending": HOUR}, "what the budget doesn't reach waits")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sessions", type=int, default=1500)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--observe", type=float, default=30, help="seconds after the hour's last call")
    run(partial(proof, **vars(options.parse_args())))
