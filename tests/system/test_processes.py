"""One command in several processes: as of one, whatever becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from archiver.cli.processes import START_SECONDS, Command, Processes, _how_ended, _Process
from archiver.cli.shares import AUTO, process_count, share_of, with_share
from archiver.cli.supervised import ENVIRONMENT
from archiver.config.loading import load
from archiver.errors import ConfigError
from archiver.observe.tally import Tally
from archiver.runtime.event_loop import loop_factory
from archiver.runtime.processors import usable_processors
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, Running, eventually


@pytest.fixture
def data(data: dict[str, Any]) -> dict[str, Any]:
    data["worker"] |= {"concurrency": 2, "lease_seconds": 2}
    return data


def pids(command: Running) -> list[int]:
    """Those of its children."""
    path = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(*processes: int) -> None:
    async def look() -> bool:
        return not any(map(lives, processes))

    await eventually(look)


async def both_busy(archiver: Program, simulator: Simulator, *options: str, seconds: float | None = None) -> Running:
    """A command in two processes, each of which is at one recording that takes so long, or for ever, after 1000 bytes."""
    for name in ("one", "two"):
        slow = {"kind": "slow", "bytes_per_second": round(100_000 / (seconds or 1))}
        faults = [{"kind": "stall", "at": 1000} if seconds is None else slow]
        simulator.script({"session_id": name, "recordings": [{"audio": {"bytes": 100_000}, "faults": faults}]})
    if "--drain" in options:
        await archiver("enqueue", "one", "two")
    # What is ignored here is ignored by what is started here: these tests may run under nohup themselves.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        command = await archiver.start("worker", "--processes", "2", *options)
    finally:
        signal.signal(signal.SIGHUP, before)
    await command.logged("worker_started", times=2)
    if "--drain" not in options:
        await archiver("enqueue", "one", "two")  # each takes one
    await simulator.wait_for(lambda report: report["media"]["requests"] >= 2)
    return command


async def test_a_drain_in_two_processes_is_as_one(archiver: Program, simulator: Simulator, sql: Any) -> None:
    command = await both_busy(archiver, simulator, seconds=6)
    workers = await sql.fetch("SELECT worker_id FROM archive_queue WHERE state = 'claimed'")
    assert len({row["worker_id"] for row in workers}) == 2
    names = [f"more-{number}" for number in range(30)]
    for name in names:
        simulator.script({"session_id": name})
    await archiver("enqueue", *names)

    second = await archiver("worker", "--drain", "--processes", "2")
    assert second.code == 0
    events = [json.loads(line) for line in second.stderr.splitlines()]
    assert [line["processes"] for line in events if line["event"] == "worker_processes_stopped"] == [2]
    command.send(signal.SIGTERM)
    first = await command.ended()
    assert first.code == 143

    states = await sql.fetch("SELECT state, count(*), sum(calls) AS calls FROM archive_queue GROUP BY 1")
    assert [tuple(row) for row in states] == [("archived", 32, 32)]
    told = [line for line in (*events, *command.events) if line["event"] == "worker_processes_stopped"]
    assert sum(line.get("archived", 0) for line in told) == 32
    assert {line["process"] for line in command.events} == {1, 2}
    assert (await archiver("workers", "--json")).document["workers"] == []


async def test_a_drain_that_saw_a_failure_is_incomplete_whoever_saw_it(archiver: Program, simulator: Simulator) -> None:
    simulator.script({"session_id": "bad", "answers": [{"status": "failed"}]})
    simulator.script({"session_id": "good"})
    await archiver("enqueue", "bad", "good")
    assert (await archiver("worker", "--drain", "--processes", "2")).code == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_stops_all_of_them_after_what_runs(
    archiver: Program, simulator: Simulator, number: signal.Signals, code: int, sql: Any
) -> None:
    command = await both_busy(archiver, simulator, seconds=1)
    children = pids(command)
    command.send(number)
    assert (await command.ended()).code == code
    assert not any(map(lives, children))
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'archived'") == 2


async def test_a_second_signal_hands_back_at_once(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["worker"]["drain_grace_seconds"] = 60
    archiver.configure(data)
    command = await both_busy(archiver, simulator)
    command.send(signal.SIGTERM)
    await command.logged("worker_stopping", times=2)
    command.send(signal.SIGTERM)
    assert (await command.ended(timeout=30)).code == 143  # well within the grace
    rows = await sql.fetch("SELECT state, failures + crashes AS counted FROM archive_queue")
    assert [tuple(row) for row in rows] == [("pending", 0)] * 2


@pytest.mark.thorough
async def test_a_second_signal_waits_for_none_that_hangs(archiver: Program, data: dict[str, Any]) -> None:
    data["worker"] |= {"drain_grace_seconds": 600, "lease_seconds": 600}
    archiver.configure(data)
    command = await archiver.start("worker", "--processes", "2")
    await command.logged("worker_started", times=2)
    [child] = pids(command)
    os.kill(child, signal.SIGSTOP)
    command.send(signal.SIGTERM)
    await command.logged("worker_stopped")
    command.send(signal.SIGTERM)
    assert (await command.ended(timeout=40)).code == 143
    [killed] = [line for line in command.events if line["event"] == "worker_process_killed"]
    assert (killed["pid"], killed["because"]) == (child, "it did not leave")


async def test_the_others_are_the_same_program_with_the_same_configuration(archiver: Program) -> None:
    (archiver.folder / "json.py").write_text("raise SystemExit('not the one of the standard library')")
    assert archiver.config is not None
    found = archiver.config.rename(archiver.folder / "archiver.toml")
    archiver.config, archiver.command = None, [str(Path(sys.executable).with_name("archiver"))]
    command = await archiver.start("worker", "--processes", "2")
    await command.logged("worker_started", times=2)
    found.unlink()
    [child] = pids(command)
    os.kill(child, signal.SIGRTMIN + 1)
    assert (await command.logged("worker_process_ended"))["exit"] == f"signal {signal.SIGRTMIN + 1}"
    # Not with an embedded database of its own, for example.
    assert (await command.logged("worker_process_ended", times=2))["exit"] == "exit code 2"
    command.send(signal.SIGTERM)
    assert (await command.ended()).code == 143


async def test_a_configuration_that_one_process_alone_can_read_is_refused(archiver: Program) -> None:
    refused = await archiver.shell(
        f"cat {archiver.config} > piped; archiver --config /dev/stdin worker --processes 2 < piped; code=$?; "
        "archiver --config <(cat piped) worker --processes 2; exit $((code + $?))"
    )
    assert refused.code == 4
    assert refused.stderr.count("cannot read it") == refused.stderr.count("use --processes 1") == 2


async def test_one_that_is_killed_is_replaced_and_nothing_is_lost(archiver: Program, simulator: Simulator, sql: Any) -> None:
    command = await both_busy(archiver, simulator, "--drain", "--max-wait", "60s", seconds=3)
    [child] = pids(command)
    os.kill(child, signal.SIGKILL)
    ended = await command.logged("worker_process_ended")
    assert (ended["process"], ended["exit"], ended["level"]) == (2, "SIGKILL", "error")
    result = await command.ended()
    assert result.code == 0
    rows = await sql.fetch("SELECT state, failures FROM archive_queue")
    assert [tuple(row) for row in rows] == [("archived", 0)] * 2
    assert (await archiver("verify")).code == 0


async def test_one_that_dies_again_and_again_is_started_ever_later(archiver: Program) -> None:
    command = await archiver.start("worker", "--processes", "2")
    for times in (1, 2, 3):
        await command.logged("worker_started", times=1 + times)
        [child] = pids(command)
        os.kill(child, signal.SIGKILL)
        await command.logged("worker_process_ended", times=times)
    pauses = [line["again_in_seconds"] for line in command.events if line["event"] == "worker_process_ended"]
    assert [low <= pause <= 2 * low for pause, low in zip(pauses, (0.5, 1, 2), strict=True)] == [True] * 3
    command.send(signal.SIGTERM)  # in the pause
    assert (await command.ended()).code == 143


async def test_one_that_hangs_is_replaced(archiver: Program, data: dict[str, Any]) -> None:
    data["worker"]["lease_seconds"] = 1
    archiver.configure(data)
    command = await archiver.start("worker", "--processes", "2")
    await command.logged("worker_started", times=2)
    [child] = pids(command)
    os.kill(child, signal.SIGSTOP)
    try:
        killed = await command.logged("worker_process_killed")
        assert (killed["pid"], killed["because"]) == (child, "it hangs")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)  # it sees that the command is gone only if it runs
    await command.logged("worker_started", times=3)
    command.send(signal.SIGTERM)
    assert (await command.ended()).code == 143


async def test_one_that_is_slow_to_start_does_not_hang() -> None:
    told = json.dumps({"tally": Tally().as_json(), "now": [1, 0, 1.0]})
    script = (
        f"import os; fd = int(os.environ[{ENVIRONMENT!r}].split()[1]); os.read(fd, 9); os.write(fd, {told!r}.encode() + b'\\n')"
    )
    process = await _Process.start(2, [sys.executable, "-c", script], {})
    assert process.patience(lease_seconds=1) == START_SECONDS
    assert process.patience(lease_seconds=60) == 180
    process.send("look")
    assert await process.ended(on_idle=lambda: None) == 0
    assert process.patience(lease_seconds=1) == 3


async def test_whatever_ends_the_command_the_others_end(archiver: Program, simulator: Simulator, sql: Any) -> None:
    command = await both_busy(archiver, simulator, seconds=4)
    children = pids(command)
    command.process.kill()
    await gone(*children)
    result = await command.ended()
    assert "error:" not in result.stderr
    assert [line["process"] for line in command.events if line["event"] == "worker_stopped"] == [2]
    # It finished what it was at; the command's own is left to its lease, which may have run out meanwhile.
    states = [row["state"] for row in await sql.fetch("SELECT state FROM archive_queue ORDER BY 1")]
    assert states in (["archived", "claimed"], ["archived", "pending"])


async def test_metrics_are_those_of_all(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    archiver.configure({**data, "metrics": {"listen": "127.0.0.1:0"}})
    command = await both_busy(archiver, simulator)
    [started] = [line for line in command.events if line["event"] == "metrics_server_started"]
    url = f"http://127.0.0.1:{started['port']}/metrics"

    async def scrape() -> dict[tuple[str, ...], float]:
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            families = text_string_to_metric_families(await response.text())
        return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}

    seen = await scrape()
    assert (seen["archiver_slots",], seen["archiver_slots_in_use",]) == (2, 2)
    assert seen["archiver_transfers_running", "bot"] == 2
    assert seen["archiver_ready",] == 1
    assert seen["archiver_received_bytes_total", "bot"] == 2000
    [child] = pids(command)
    os.kill(child, signal.SIGKILL)
    await command.logged("worker_process_ended")
    seen = await scrape()
    # What it had counted stays counted; what it was at, it is at no longer.
    assert (seen["archiver_received_bytes_total", "bot"], seen["archiver_transfers_running", "bot"]) == (2000, 1)


@pytest.mark.parametrize("wanted", ["0", "-1", "1.5", "many", "257", ""])
@pytest.mark.parametrize("command", ["worker", "nightly"])
async def test_a_number_of_processes_that_is_none_is_refused(archiver: Program, command: str, wanted: str) -> None:
    (await archiver(command, f"--processes={wanted}")).refused(2, "--processes", f'"{wanted}"', "from 1 to 256, or auto")


async def test_limits_that_cannot_be_shared_out_are_named(archiver: Program) -> None:
    (await archiver("worker", "--processes", "3")).refused(2, "--processes 3", "worker.concurrency = 2", "at most --processes 2")


async def test_a_night_in_two_processes(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    data["bots"][0] |= {"account_id": simulator.settings.account_id, "account_rate_limits": ["60000/minute"]}
    simulator.settings.account_rate_limits = ()
    archiver.configure(data)
    began = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    simulator.set_history({"calls": [
        {"session_id": f"65e7133a3242653c{number:08x}", "started_at": (began + timedelta(seconds=number)).isoformat(),
         "ended_at": (began + timedelta(seconds=number + 1)).isoformat(), "appears_after": 1 if number == 7 else 0}
        for number in range(20)
    ]})  # fmt: skip
    result = await archiver("nightly", "--from", began.isoformat(), "--to", datetime.now(UTC).isoformat(), "--processes", "2",
                            environment={"ARCHIVER_WORKER__CONCURRENCY": "4"})  # fmt: skip
    assert result.code == 0, result
    assert "20 calls = 20 archived" in result.stdout
    events = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert [line["calls"] for line in events if line["event"] == "calls_listed_late"] == [1]
    assert [line["process"] for line in events if line["event"] == "worker_started"] in ([1, 2, 1, 2], [1, 2, 2, 1])
    assert [line["archived"] for line in events if line["event"] == "worker_processes_stopped"] == [19, 1]


# --- shares


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_what_is_shared_out_is_all_there_is(archiver: Program, data: dict[str, Any], count: int) -> None:
    data["worker"]["concurrency"] = 16
    data["transfer"] = {"max_buffer": "1GiB", "max_bandwidth": "10MiB", "connections_per_host": 9}
    settings = load(archiver.configure(data), {})
    assert process_count(settings, count) == count
    shares = [share_of(settings, number, count) for number in range(1, count + 1)]
    assert {key: sum(share[key] for share in shares) for key in shares[0]} == {
        "worker.concurrency": 16, "transfer.max_buffer": 2**30, "transfer.max_bandwidth": 10 * 2**20,
        "transfer.connections_per_host": 9,
    }  # fmt: skip
    assert all(max(values) - min(values) <= 1 for values in zip(*(share.values() for share in shares), strict=True))
    assert with_share(settings, shares[-1]).worker.concurrency == 16 // count


def test_as_many_as_there_are_processors_if_the_limits_allow_it(archiver: Program, data: dict[str, Any]) -> None:
    data["worker"]["concurrency"] = 1
    assert process_count(load(archiver.configure(data), {}), AUTO) == 1
    data["worker"]["concurrency"] = 1000
    data["transfer"] = {"max_buffer": "64GiB"}
    assert process_count(load(archiver.configure(data), {}), AUTO) == usable_processors()


@pytest.mark.parametrize(
    ("transfer", "words"),
    [
        ({"max_buffer": "32MiB"}, 'transfer.max_buffer = "32MiB"'),
        ({"connections_per_host": 2}, "transfer.connections_per_host = 2"),
        ({"max_bandwidth": "2KiB"}, "transfer.max_bandwidth = 2048"),
    ],
)
def test_each_limit_is_held_against_the_processes(
    archiver: Program, data: dict[str, Any], transfer: dict[str, Any], words: str
) -> None:
    data["worker"]["concurrency"] = 16
    settings = load(archiver.configure(data | {"transfer": transfer}), {})
    assert process_count(settings, 2) == 2
    with pytest.raises(ConfigError, match="--processes 3") as caught:
        process_count(settings, 3)
    assert words in caught.value.message
    assert caught.value.hint.endswith("use at most --processes 2")


def test_a_container_has_the_processors_that_it_is_given(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/pod/box\n")
    (tmp_path / "pod/box").mkdir(parents=True)
    assert usable_processors(tmp_path, own) == len(os.sched_getaffinity(0))
    (tmp_path / "pod/cpu.max").write_text("150000 100000\n")
    (tmp_path / "pod/box/cpu.max").write_text("max 100000\n")
    assert usable_processors(tmp_path, own) == 1
    own.write_text("12:cpu:/old\n")
    assert usable_processors(tmp_path, own) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "told", [b"{", b"\xff", b"7", b'{"tally": {}, "now": []}', b'{"tally": {"ended": 5}}', b'{"tally": 1, "now": null}']
)
async def test_one_that_talks_nonsense_is_killed(told: bytes) -> None:
    program = f"import os, time; os.write(int(os.environ['{ENVIRONMENT}'].split()[1]), {told + bytes([10])!r}); time.sleep(60)"
    process = await _Process.start(2, [sys.executable, "-ISc", program], os.environ)
    assert await asyncio.wait_for(process.ended(on_idle=lambda: None), 30) == -signal.SIGKILL


def test_one_that_is_gone_can_be_spoken_to() -> None:
    async def speak() -> None:
        process = await _Process.start(2, ["true"], os.environ)
        await asyncio.wait_for(process.ended(on_idle=lambda: None), 30)
        process.send("stop")
        await asyncio.sleep(0)
        process.send("stop")

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(speak())


async def test_one_may_tell_of_many_bots() -> None:
    program = (
        f"import json, os; null = None; tally = {json.dumps(Tally().as_json())}; "
        "tally['attempts'] = [[f'bot {n}', 'failed', 'x' * 20, 1] for n in range(50_000)]; "
        f"own = os.fdopen(int(os.environ['{ENVIRONMENT}'].split()[1]), 'w'); "
        "own.write(json.dumps(dict(tally=tally, now=[1, 0, 0])) + chr(10))"
    )
    process = await _Process.start(2, [sys.executable, "-ISc", program], os.environ)
    assert await asyncio.wait_for(process.ended(on_idle=lambda: None), 30) == 0
    assert process.tally.attempts.total() == 50_000


@pytest.mark.parametrize(("code", "told"), [(0, "exit code 0"), (2, "exit code 2"), (-9, "SIGKILL"), (-35, "signal 35")])
def test_how_one_ended_is_told_whatever_ended_it(code: int, told: str) -> None:
    assert _how_ended(code) == told


def test_a_share_goes_before_what_the_environment_says(archiver: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_worker__concurrency", "8")
    monkeypatch.setenv("ARCHIVER_METRICS__listen", "127.0.0.1:0")
    whole = load(archiver.config)
    assert (whole.worker.concurrency, whole.metrics.listen) == (8, "127.0.0.1:0")
    other = load(archiver.config, Processes(whole, 2, Command(archiver.config)).environment(2))
    assert (other.worker.concurrency, other.metrics.listen) == (4, "")


async def test_alone_a_command_has_all_and_starts_nothing(archiver: Program) -> None:
    settings = load(archiver.config, {})
    alone = Processes(settings, 1)
    assert alone.settings is settings
    tally = Tally()
    assert alone.tally(tally) is tally
    await asyncio.wait_for(alone.look(), 1)


def test_a_configuration_in_memory_is_a_file_as_any() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        Command(Path(file.name)).check_config()
    for path in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"):
        with pytest.raises(ConfigError, match="cannot read it"):
            Command(Path(path)).check_config()
