"""A nightly batch of high priority passes a running backfill, and the backfill goes on meanwhile.

python -m benchmarks.fleet.nightly [--backfill 100000] [--batch 100] [--workers 3] [--rate 60000/minute]
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.fleet.fleet import Verdict, enqueue, fleet, run, server, show

WARM = 500
"""So many sessions of the backfill are settled before the batch comes."""

OVERTAKEN = 300
"""Before so many further sessions of the backfill are settled, the whole batch is."""

FAIR = 1 / 3 / 2
"""Sessions of the backfill for one of the batch: one to three is what is promised; half of that allows for an uneven end."""


async def proof(verdict: Verdict, *, backfill: int, batch: int, workers: int, rate: str) -> None:
    """Enqueue the backfill, let it run, enqueue the batch, and count by the history what was settled between."""
    async with server() as where, fleet(where, "nightly", platform_limits=[rate], bot_limits=[rate]) as it:
        it.simulator.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.25}}]})
        await enqueue(it.sql, 1, backfill, priority="low")
        await it.start(workers)

        async def settled(priority: str, count: int) -> bool:
            query = "SELECT count(finished_at) >= $2 FROM (SELECT finished_at FROM archive_queue WHERE priority = $1) q"
            return bool(await it.sql.fetchval(query, priority, count))

        await it.until(partial(settled, "low", WARM), 120, f"{WARM} sessions of the backfill settled")
        async with it.sql.transaction():
            await enqueue(it.sql, backfill + 1, batch, priority="high")
            # Just before the commit: what is settled in between counts against us.
            came = await it.sql.fetchval("SELECT clock_timestamp()")
        await it.until(partial(settled, "high", batch), 120, "the batch settled")
        happened = await it.sql.fetch(
            "SELECT e.at, q.priority, e.event FROM archive_history e JOIN archive_queue q ON q.id = e.queue_id "
            "WHERE e.event IN ('claimed', 'archived', 'unavailable', 'failed') AND e.at > $1 ORDER BY e.at, e.id",
            came,
        )
        before = await it.sql.fetchval("SELECT count(*) FROM archive_queue WHERE priority = 'low' AND finished_at <= $1", came)
        refused = it.refused
    claims = [row["priority"] for row in happened if row["event"] == "claimed"]
    beside = _between(claims).count("low")
    ends = [row for row in happened if row["event"] != "claimed"]
    high = [row for row in ends if row["priority"] == "high"]
    last = high[-1]["at"]
    meanwhile = [row for row in ends if row["priority"] == "low" and row["at"] <= last]
    seconds = (last - came).total_seconds()
    show(
        ["a batch into a backfill", ""],
        [
            ["backfill (low)", str(backfill)],
            ["batch (high)", str(batch)],
            ["worker processes", str(workers)],
            ["backfill settled before the batch came", str(before)],
            ["from the batch's commit to its last session settled", f"{seconds:.2f} s"],
            ["backfill settled meanwhile", str(len(meanwhile))],
            ["backfill claimed between the batch's first claim and its last", str(beside)],
            ["sessions a second meanwhile", f"{(len(meanwhile) + batch) / seconds:.0f}"],
            ["refused by the platform (429)", str(refused)],
        ],
    )
    archived = all(row["event"] == "archived" for row in high)
    verdict.check(len(high) == batch and archived, "the whole batch is archived")
    verdict.check(len(meanwhile) < OVERTAKEN, f"before {OVERTAKEN} further sessions of the backfill were settled")
    verdict.check(
        beside >= batch * FAIR, "the backfill goes on meanwhile: one of its sessions to three of the batch, or half as many"
    )
    verdict.check(refused == 0, "the platform refused no call")


def _between(claims: list[str]) -> list[str]:
    """The claims from the first of the batch to its last."""
    first, last = claims.index("high"), len(claims) - claims[::-1].index("high")
    return claims[first:last]


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--backfill", type=int, default=100_000)
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--rate", default="60000/minute")
    run(partial(proof, **vars(options.parse_args())))
