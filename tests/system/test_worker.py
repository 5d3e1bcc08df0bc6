from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.conftest import is_recording
from tests.system.conftest import Program, Running, eventually

PLAIN_INSERT = "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', '65e7133a3242653c58d70001') ON CONFLICT DO NOTHING"


async def counts(sql: Any) -> dict[str, int]:
    """The sessions by state, those that are there."""
    return {row[0]: row[1] for row in await sql.fetch("SELECT state, count(*) FROM archive_sessions GROUP BY 1")}


async def test_a_drain_that_leaves_nothing_is_complete(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.script({"session_id": "good"})
    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    await archiver("enqueue", "good", "none")

    result = await archiver("worker", "--drain")

    assert (result.code, result.stdout) == (0, "")
    assert await counts(sql) == {"archived": 1, "unavailable": 1}
    assert (await archiver("verify")).code == 0
    assert (await archiver("worker", "--drain")).code == 0


async def test_a_worker_says_at_its_start_which_links_it_does_not_follow(archiver: Program) -> None:
    elsewhere, store = archiver.folder / "elsewhere", archiver.folder / "store"
    elsewhere.mkdir()
    store.mkdir(exist_ok=True)
    (store / "bot=bot").symlink_to(elsewhere)

    result = await archiver("worker", "--drain")

    assert result.code == 0
    (told,) = (json.loads(line) for line in result.stderr.splitlines() if '"event": "store_advice_given"' in line)
    assert told["message"].startswith(f"{store}/bot=bot is a symbolic link, which is not followed")
    assert f"mount --bind {elsewhere} {store}/bot=bot" in told["hint"]


async def test_a_drain_that_saw_a_failure_is_incomplete_and_a_later_one_is_not(archiver: Program, simulator: Simulator) -> None:
    simulator.script({"session_id": "bad", "answers": [{"status": "failed"}]})
    await archiver("enqueue", "bad")

    result = await archiver("worker", "--drain")

    assert result.code == 3
    assert '"event": "sessions_failed"' in result.stderr
    assert (await archiver("worker", "--drain")).code == 0
    assert (await archiver("verify")).code == 0


async def test_a_drain_waits_for_sessions_that_fall_due_later(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.script({"session_id": "later"})
    simulator.script({"session_id": "running", "answers": [{"status": "call_in_progress", "times": 3}, {"status": "success"}]})
    await archiver("migrate")  # records the bot that an INSERT may leave out
    await sql.execute(
        "INSERT INTO archive_queue (session_id, run_at) VALUES ('later', now() + interval '1.5 s'), ('running', now())"
    )

    assert (await archiver("worker", "--drain", "--max-wait", "30s")).code == 0

    assert await counts(sql) == {"archived": 2}
    row = await sql.fetchrow("SELECT failures, checks FROM archive_sessions WHERE session_id = 'running'")
    assert tuple(row) == (0, 3)


async def test_a_drain_waits_no_longer_than_it_may(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.script({"session_id": "now"})
    await archiver("migrate")  # records the bot that an INSERT may leave out
    await sql.execute(
        "INSERT INTO archive_queue (session_id, run_at) VALUES ('now', now()), ('tomorrow', now() + interval '1 day')"
    )

    result = await archiver("worker", "--drain", "--max-wait", "1s")

    assert result.code == 3
    assert '"because": "due_later"' in result.stderr
    assert await counts(sql) == {"archived": 1, "pending": 1}


async def test_sessions_of_an_unknown_bot_are_left_warned_of_by_name_and_not_waited_for(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.script({"session_id": "good"})
    await sql.execute(
        "INSERT INTO archive_queue (bot, session_id) VALUES ('stranger', 's1'), ('stranger', 's2'), ('bot', 'good')"
    )

    running = await archiver.start("worker", "--drain")
    result = await running.ended()

    assert result.code == 3
    warnings = [line for line in running.events if line["event"] == "unknown_bot_found"]
    assert [(line["bot"], line["sessions"]) for line in warnings] == [("stranger", 2)]
    assert await counts(sql) == {"archived": 1, "pending": 2}

    cancelled = await archiver("cancel", "--all", "--bot", "stranger", "--reason", "a slip")
    assert (cancelled.code, cancelled.stdout) == (0, "2 cancelled\n")
    (await archiver("cancel", "--all", "--bot", "nobody", "--reason", "a slip")).refused(2, 'unknown bot "nobody"')
    assert (await archiver("worker", "--drain")).code == 0


async def test_a_paused_bot_is_left_until_it_is_resumed(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.script({"session_id": "good"})
    await sql.execute("DELETE FROM archive_bots")  # as after an upgrade of the configuration, before any worker's start
    await archiver("enqueue", "good")
    (await archiver("pause", "--bot", "nobody")).refused(2, 'unknown bot "nobody"')
    assert (await archiver("pause", "--all")).stdout == "paused: bot\n"
    assert (await archiver("status", "--json")).document["paused"] == ["bot"]
    assert "archiver resume --bot bot" in (await archiver("status")).stdout

    drained = await archiver("worker", "--drain")
    assert (drained.code, await counts(sql)) == (3, {"pending": 1})
    assert '"because": "paused"' in drained.stderr

    assert (await archiver("resume", "--bot", "bot")).stdout == "resumed: bot\n"
    assert ((await archiver("worker", "--drain")).code, await counts(sql)) == (0, {"archived": 1})
    assert simulator.report()["api"]["calls"] == 1


async def test_rejected_credentials_hold_the_bot_and_cost_nothing_until_they_are_mended(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    ids = [f"s{number}" for number in range(20)]
    for session_id in ids:
        simulator.script({"session_id": session_id})
    await archiver("enqueue", *ids)
    simulator.reject_credentials = True

    result = await archiver("worker", "--drain")

    assert result.code == 3
    assert '"event": "bot_held"' in result.stderr
    assert await counts(sql) == {"pending": 20}
    assert tuple(await sql.fetchrow("SELECT sum(failures), sum(checks), sum(crashes) FROM archive_sessions")) == (0, 0, 0)
    document = (await archiver("status", "--json")).document
    assert [(hold["bot"], hold["kind"], hold["reason"]) for hold in document["holds"]] == [
        ("bot", "recording", "credentials_rejected")
    ]
    told = (await archiver("status")).stdout
    assert "held: bot (recording)" in told
    assert "bots.bot.bot_id" in told
    assert "archiver resume" in told
    calls = simulator.report()["api"]["calls"]
    assert (await archiver("worker", "--drain")).code == 3
    assert simulator.report()["api"]["calls"] == calls  # held for every worker, also for later ones

    simulator.reject_credentials = False
    assert (await archiver("resume", "--all")).stdout == "resumed: bot, 1 hold(s) released\n"
    assert (await archiver("worker", "--drain")).code == 0
    assert await counts(sql) == {"archived": 20}


async def test_a_running_worker_archives_a_row_that_another_program_inserts(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.script({"session_id": "65e7133a3242653c58d70001"})
    running = await archiver.start("worker")
    await running.logged("worker_started")

    await sql.execute(PLAIN_INSERT)
    await sql.execute(PLAIN_INSERT)

    archived = await running.logged("session_archived")
    assert (archived["session"], archived["bot"], archived["attempt"]) == ("65e7133a3242653c58d70001", "bot", 1)
    took = await sql.fetchval("SELECT extract(epoch FROM finished_at - enqueued_at)::float8 FROM archive_sessions")
    assert took < 2
    stored = await sql.fetchrow("SELECT store_key, sha256 FROM archived_recordings")
    assert [stored["sha256"]] == simulator.sha256_of("65e7133a3242653c58d70001")
    assert (archiver.folder / "store" / stored["store_key"]).is_file()
    running.send(signal.SIGTERM)
    assert (await running.ended()).code == 143


def slow(session_id: str, seconds: float) -> dict[str, Any]:
    """A session whose download takes about so long."""
    fault = {"kind": "slow", "bytes_per_second": round(100_000 / seconds)}
    return {"session_id": session_id, "recordings": [{"audio": {"bytes": 100_000}, "faults": [fault]}]}


async def _busy(archiver: Program, simulator: Simulator, seconds: float) -> Any:
    """A worker in the middle of a download."""
    simulator.script(slow("slow", seconds))
    simulator.script({"session_id": "later"})
    await archiver("enqueue", "slow")
    await archiver("enqueue", "later")  # its turn comes after: there is one slot
    running = await archiver.start("worker", environment={"ARCHIVER_WORKER__CONCURRENCY": "1"})
    await simulator.wait_for(lambda report: report["media"]["requests"] > 0)
    return running


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_stops_a_worker_after_what_runs(
    archiver: Program, simulator: Simulator, number: signal.Signals, code: int, sql: Any
) -> None:
    running = await _busy(archiver, simulator, 2)
    running.send(number)
    assert (await running.ended()).code == code
    assert await counts(sql) == {"archived": 1, "pending": 1}
    assert (await archiver("status", "--json")).document["workers"] == []


async def test_a_second_signal_hands_back_at_once(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["worker"]["drain_grace_seconds"] = 60
    archiver.configure(data)
    running = await _busy(archiver, simulator, 60)
    running.send(signal.SIGTERM)
    await running.logged("worker_stopping")
    running.send(signal.SIGTERM)

    result = await running.ended(timeout=30)  # well within the grace

    assert result.code == 143
    assert await counts(sql) == {"pending": 2}
    assert await sql.fetchval("SELECT sum(failures + crashes) FROM archive_sessions") == 0
    assert not list((archiver.folder / "store").rglob("*.part"))


async def test_the_grace_ends_and_what_runs_is_handed_back(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["worker"]["drain_grace_seconds"] = 0.5
    archiver.configure(data)
    running = await _busy(archiver, simulator, 60)
    running.send(signal.SIGTERM)
    assert (await running.ended()).code == 143
    assert await counts(sql) == {"pending": 2}


async def test_a_command_that_waits_for_a_start_ends_on_sigterm(archiver: Program, data: dict[str, Any]) -> None:
    data["database"]["url"] = "embedded:queue"
    archiver.configure(data)
    holder = await archiver.shell("mkdir -m 700 queue; (umask 077; : > queue/users.lock; : > queue/start.lock)")
    assert holder.code == 0
    running = await archiver.start("worker")

    async def starting() -> bool:
        return any((archiver.folder / "queue").glob("data*"))

    await eventually(starting)
    running.send(signal.SIGTERM)
    result = await running.ended()
    assert result.code == 143
    assert "Traceback" not in result.stderr


async def test_a_store_that_cannot_be_written_is_told_before_anything_is_claimed(
    archiver: Program, data: dict[str, Any], sql: Any
) -> None:
    (archiver.folder / "file").write_text("not a folder")
    data["storage"]["url"] = (archiver.folder / "file/store").as_uri()
    archiver.configure(data)
    await archiver("enqueue", "s1")
    (await archiver("worker", "--drain")).refused(1, "no folder", "storage.url", "storage.url")
    assert await counts(sql) == {"pending": 1}


async def test_healthcheck_tells_a_working_worker_from_a_hung_one_and_from_none(archiver: Program, data: dict[str, Any]) -> None:
    data["worker"]["lease_seconds"] = 1
    archiver.configure(data)
    (await archiver("healthcheck")).refused(1, "no worker of host")
    running = await archiver.start("worker")
    await running.logged("worker_started")
    healthy = await archiver("healthcheck")
    assert (healthy.code, healthy.stdout) == (0, "1 worker(s) of this host hold their lease\n")

    running.send(signal.SIGSTOP)
    await eventually(_unhealthy(archiver), timeout=10)
    (await archiver("healthcheck")).refused(1, "has been silent for", "restart it")
    running.send(signal.SIGCONT)
    await running.logged("worker_started", times=2)
    assert (await archiver("healthcheck")).code == 0


def _unhealthy(archiver: Program) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await archiver("healthcheck")).code == 1

    return look


async def _stopped_with_sessions_in_its_hands(worker: Running, sql: Any) -> None:
    """Between two claims it holds nothing; then it goes on for a moment, and is stopped again."""
    held = "SELECT count(*) FROM archive_queue q JOIN archive_workers w ON w.id = q.worker_id WHERE w.pid = $1"

    async def stopped() -> bool:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(0.3)  # what it has sent already, the database still carries out; nobody tells when that is over
        if await sql.fetchval(held, worker.process.pid):
            return True
        worker.send(signal.SIGCONT)
        return False

    await eventually(stopped)


async def test_of_two_workers_the_killed_ones_sessions_are_taken_over_and_nothing_is_lost_doubled_or_partial(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["worker"]["lease_seconds"] = 2
    archiver.configure(data)
    ids = [f"s{number:03}" for number in range(120)]
    for session_id in ids:
        simulator.script(slow(session_id, 0.5))
    await archiver("enqueue", stdin="\n".join(ids).encode())
    workers = [await archiver.start("worker", "--drain") for _ in range(2)]
    for worker in workers:
        await worker.logged("session_archived", times=5, timeout=30)

    await _stopped_with_sessions_in_its_hands(workers[0], sql)
    workers[0].send(signal.SIGKILL)
    result = await workers[1].ended(timeout=60)

    assert (await workers[0].ended()).code == 137
    assert result.code == 0
    assert any(line["event"] == "session_rescued" for line in workers[1].events)
    assert await counts(sql) == {"archived": 120}
    files = await sql.fetch("SELECT session_id, store_key, sha256 FROM archived_recordings ORDER BY session_id")
    assert [row["session_id"] for row in files] == ids
    assert all([row["sha256"]] == simulator.sha256_of(row["session_id"]) for row in files)
    stored = {
        str(path.relative_to(archiver.folder / "store")) for path in (archiver.folder / "store").rglob("*") if is_recording(path)
    }
    assert stored == {row["store_key"] for row in files}  # none missing, none besides, no .part
    verified = await archiver("verify", "--json")
    assert (verified.code, verified.document["equal"]) == (0, 120)
