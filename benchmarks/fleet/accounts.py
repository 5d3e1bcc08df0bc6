"""Four worker processes serve three bots of one account, at the limit that every account has: the platform, which counts all of
them together, never has to refuse a call, hardly any of the budget is wasted, and each bot gets its share.

python -m benchmarks.fleet.accounts [--sessions 300] [--workers 4]
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.fleet.fleet import Verdict, enqueue, fleet, run, server, show, states

BOTS = 3
MINUTE = 60
SLACK = 1.05
"""The run may take so much longer than the sessions divided by the limit."""


async def proof(verdict: Verdict, *, sessions: int, workers: int) -> None:
    """As many sessions of each bot, one call each. No limit is configured."""
    ideal = sessions / MINUTE * 60
    each = sessions // BOTS
    async with server() as where, fleet(where, "accounts", platform_limits=[f"{MINUTE}/minute"], bots=BOTS) as it:
        it.simulator.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.5}}]})
        for number, bot in enumerate(it.bots):
            await enqueue(it.sql, number * each + 1, each, bot=bot)
        began = await it.sql.fetchval("SELECT clock_timestamp()")
        await it.start(workers, "--drain")
        await it.drained(ideal * 2 + 60)
        ended = await it.sql.fetchval("SELECT max(finished_at) FROM archive_queue")
        first = await it.sql.fetchval("SELECT min(at) FROM archive_history WHERE event = 'claimed'")
        half = await it.sql.fetch(
            """SELECT q.bot, count(*) FROM archive_queue q
               JOIN (SELECT queue_id FROM archive_history WHERE event = 'claimed' ORDER BY at LIMIT $1) e ON e.queue_id = q.id
               GROUP BY 1 ORDER BY 1""",
            sessions // 2,
        )
        report = it.simulator.report()["api"]
        found = await states(it.sql)
    whole, working = ((ended - start).total_seconds() for start in (began, first))
    show(
        [f"{BOTS} bots of one account", f"{MINUTE}/minute"],
        [
            ["sessions", str(each * BOTS)],
            ["worker processes", str(workers)],
            ["of each bot in the first half", ", ".join(str(row["count"]) for row in half)],
            ["calls as the platform counted them", str(report["calls"])],
            ["most in any sliding minute", str(report["max_in_window"]["minute"])],
            ["refused by the platform", str(report["rate_limited"])],
            ["sessions / limit", f"{ideal:.1f} s"],
            ["start of the first process to the last session settled", f"{whole:.1f} s ({whole / ideal:.3f})"],
            ["first claim to the last session settled", f"{working:.1f} s ({working / ideal:.3f})"],
        ],
    )
    verdict.check(report["rate_limited"] == 0, "the platform refused no call")
    verdict.check(
        found == {"archived": each * BOTS} and report["calls"] == each * BOTS, "every session is archived, with one call each"
    )
    verdict.check(whole <= SLACK * ideal, f"done within {SLACK} of sessions / limit, process start included")
    shares = [row["count"] for row in half]
    verdict.check(len(shares) == BOTS and max(shares) - min(shares) <= 2, "each bot has the same share")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("--sessions", type=int, default=300)
    options.add_argument("--workers", type=int, default=4)
    run(partial(proof, **vars(options.parse_args())))
