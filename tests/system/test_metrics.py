"""A worker's metrics, as Prometheus gets them: over HTTP, in its text format, while recordings are on their way."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from archiver.observe.metrics import metrics
from archiver.observe.tally import Tally
from archiver.outcome import REASONS
from archiver.session import State
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, Result, Running, eventually

Samples = dict[tuple[str, ...], float]
SIZE, PACE = 1_200_000, 300_000


class Scraper:
    """What asks a worker."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.url = ""
        self.text = ""

    async def finds(self, worker: Running) -> None:
        """The port that the worker has chosen."""
        line = await worker.logged("metrics_server_started")
        self.url = f"http://{line['host']}:{line['port']}{line['path']}"

    async def __call__(self, **headers: str) -> Samples:
        """Every sample, by its name and the values of its labels in the order of their names."""
        async with self._http.get(self.url, headers=headers) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            self.text = await response.text()
        families = text_string_to_metric_families(self.text)
        return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


@pytest.fixture
async def scrape() -> AsyncIterator[Scraper]:
    async with aiohttp.ClientSession() as http:
        yield Scraper(http)


@pytest.fixture
def metered(archiver: Program, data: dict[str, Any]) -> Program:
    """The program, serving its metrics at a port that is free."""
    archiver.configure({**data, "metrics": {"listen": "127.0.0.1:0"}})
    return archiver


def lines(result: Result) -> list[dict[str, Any]]:
    """The structured lines of its log."""
    return [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]


async def test_sessions_of_the_whole_archive_are_told_by_state(metered: Program, scrape: Scraper, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 'in valid'), ('other', 'in valid')")
    await sql.execute(
        """INSERT INTO archive_findings (queue_id, source, found_by, findings)
           SELECT id, 'verify', 'me', '[{"store_key": "k", "verdict": "missing", "message": "m"}]' FROM archive_queue
           WHERE bot = 'bot'"""
    )
    worker = await metered.start("worker")
    await scrape.finds(worker)

    async def counted() -> dict[tuple[str, ...], float] | None:
        return {key[1:]: value for key, value in (await scrape()).items() if key[0] == "archiver_queue_sessions"} or None

    expected = {("bot", state.value): float(state is State.FAILED) for state in State}
    assert await eventually(counted) == expected, "a bot that is not configured is nobody's label"

    async def damaged() -> float | None:
        return (await scrape()).get(("archiver_damaged_sessions",))

    assert await eventually(damaged) == 1


async def test_metrics_follow_a_recording_and_end_as_what_is_stored(
    metered: Program, simulator: Simulator, scrape: Scraper, sql: Any
) -> None:
    slow = {"file_name": "long.wav", "audio": {"bytes": SIZE}, "faults": [{"kind": "slow", "bytes_per_second": PACE}]}
    refused = {"audio": {"bytes": 2000}, "faults": [{"kind": "status", "http_status": 418, "times": None}]}
    simulator.script({"session_id": "lengthy", "recordings": [slow]})
    simulator.script({"session_id": "two", "recordings": [{"audio": {"bytes": 2000}}, {"audio": {"bytes": 4000}}]})
    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    simulator.script({"session_id": "later", "answers": [{"status": "call_in_progress"}, {"status": "success"}]})
    simulator.script({"session_id": "declined", "recordings": [refused]})
    worker = await metered.start("worker")
    await scrape.finds(worker)
    before = await scrape()
    assert before["archiver_files_total", "bot"] == before["archiver_received_bytes_total", "bot"] == 0
    ends = {(state, reason) for state, reasons in REASONS.items() for reason in reasons}
    born = {key[1:]: value for key, value in before.items() if key[0] == "archiver_sessions_total"}
    assert born == {("bot", reason, state): 0 for state, reason in ends}, "increase() is blind to what is born at 1"
    assert (before[("archiver_slots",)], before[("archiver_slots_in_use",)]) == (8, 0)
    await metered("enqueue", "lengthy")

    async def on_its_way(more_than: float) -> Samples | None:
        seen = await scrape()
        return seen if seen["archiver_transfer_bytes_in_flight", "bot"] > more_than else None

    first = await eventually(lambda: on_its_way(0))
    assert first is not None
    later = await eventually(lambda: on_its_way(first["archiver_transfer_bytes_in_flight", "bot"]))
    assert later is not None
    assert later["archiver_transfers_running", "bot"] == later[("archiver_slots_in_use",)] == 1
    assert later["archiver_transfer_bytes_expected", "bot"] == SIZE
    assert later["archiver_received_bytes_total", "bot"] == later["archiver_transfer_bytes_in_flight", "bot"]
    assert 0 < later[("archiver_lease_remaining_seconds",)] <= 5
    assert later["archiver_files_total", "bot"] == 0

    await metered("enqueue", "two", "none", "later", "declined")
    await worker.logged("session_archived", times=3)
    await worker.logged("session_failed")

    async def quiet() -> Samples | None:
        seen = await scrape()
        return seen if seen[("archiver_slots_in_use",)] == 0 else None

    last = await eventually(quiet)
    assert last is not None
    files, size = await sql.fetchrow("SELECT count(*), sum(bytes) FROM archived_recordings")
    assert (last["archiver_files_total", "bot"], last["archiver_bytes_stored_total", "bot"]) == (files, size)
    assert last["archiver_received_bytes_total", "bot"] >= size
    assert last["archiver_transfers_running", "bot"] == last["archiver_transfer_bytes_in_flight", "bot"] == 0
    counted = {key[1:]: value for key, value in last.items() if key[0] == "archiver_sessions_total" and value}
    assert counted == {
        ("bot", "", "archived"): 3,
        ("bot", "media_unavailable", "unavailable"): 1,
        ("bot", "call_in_progress", "pending"): 1,
        ("bot", "media_http_4xx", "pending"): 2,
        ("bot", "media_http_4xx", "failed"): 1,
    }
    assert {key for key in last if key[0] == "archiver_sessions_total"} == {("archiver_sessions_total", *key) for key in born}
    buckets = [value for key, value in last.items() if key[0] == "archiver_transfer_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == last["archiver_transfer_seconds_count", "bot"] == files
    assert last["archiver_transfer_seconds_sum", "bot"] > SIZE / PACE / 2
    for outside in ("lengthy", "two", "declined", "long.wav", simulator.client_secret, simulator.client_id):
        assert outside not in scrape.text
    assert "_created" not in scrape.text

    worker.send(signal.SIGTERM)  # with the scraper's connection still open
    assert (await worker.ended(timeout=10)).code == 143


async def test_it_answers_what_prometheus_asks_for_and_nothing_else(metered: Program, scrape: Scraper) -> None:
    await scrape.finds(await metered.start("worker"))
    asked = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    async with aiohttp.ClientSession() as http:
        async with http.get(scrape.url, headers={"Accept": asked}) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
            assert (await response.text()).endswith("# EOF\n")
        async with http.get(scrape.url.removesuffix("metrics")) as response:
            assert response.status == 404
        async with http.post(scrape.url) as response:
            assert response.status == 405


async def test_a_flood_of_connections_leaves_the_worker_its_descriptors(
    metered: Program, simulator: Simulator, scrape: Scraper
) -> None:
    """More than twice as many as it may have descriptors: silent ones, half a head, a head without end, none closed by us."""
    metered.command = ("bash", "-c", 'ulimit -n 128 && exec "$@"', "bash", *metered.command)
    worker = await metered.start("worker")
    await scrape.finds(worker)
    await worker.logged("worker_started")  # before that, whoever connects may have to wait
    url = URL(scrape.url)
    assert url.host is not None
    assert url.port is not None
    head = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    with ExitStack() as flood:
        for number in range(300):
            connection = flood.enter_context(socket.socket())
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
            with suppress(ConnectionError):  # it may be ended already
                connection.send((b"", head, head + b"a: b\r\n" * 20_000)[number % 3])
        assert (await scrape())[("archiver_slots",)] == 8, "whoever asks is answered, in the middle of it"
        simulator.script({"session_id": "s"})
        assert (await metered("enqueue", "s")).code == 0
        await worker.logged("session_archived")
        descriptors = len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir()))  # noqa: ASYNC240
        assert descriptors < 90, descriptors
        assert (await scrape())["archiver_files_total", "bot"] == 1


async def test_what_ends_by_itself_works_without_metrics_beside_a_worker_that_has_the_port(
    archiver: Program, data: dict[str, Any], simulator: Simulator, scrape: Scraper
) -> None:
    """Every night, in cron: the worker goes on serving, and the others do their work and say what they lack."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    archiver.configure({**data, "metrics": {"listen": address}})
    resident = await archiver.start("worker")
    await scrape.finds(resident)
    simulator.script({"session_id": "s"})
    assert (await archiver("enqueue", "s")).code == 0
    for command in (["worker", "--drain"], ["nightly"], ["backfill", "--from", "2020-01-01", "--to", "2020-01-02"]):
        result = await archiver(*command)
        assert result.code == 0, result
        (line,) = [line for line in lines(result) if line["event"] == "metrics_unavailable"]
        assert line["level"] == "warning"
        assert line["message"] == f'metrics.listen = "{address}": Address already in use'
        assert "ARCHIVER_METRICS__LISTEN=" in line["hint"]
    assert (await scrape())[("archiver_slots",)] == 8
    second = await archiver("worker")
    second.refused(1, f'metrics.listen = "{address}": Address already in use', "its own port")


async def test_what_ends_by_itself_leaves_its_metrics_in_a_file(
    archiver: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    path = archiver.folder / "archiver.prom"
    archiver.configure({**data, "metrics": {"textfile": str(path)}})
    simulator.script({"session_id": "s"})
    assert (await archiver("enqueue", "s")).code == 0

    def left() -> Samples:
        families = text_string_to_metric_families(path.read_text())
        return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}

    night = await archiver("nightly")
    assert night.code == 0, night
    found = left()
    assert (found["archiver_files_total", "bot"], found["archiver_queue_sessions", "bot", "archived"]) == (1, 1)
    assert found["archiver_gaps", "bot"] == 0, "of what this very night accounted for"
    assert found["archiver_api_calls_total", "bot"] >= 2
    assert found["archiver_last_complete_night_timestamp_seconds", "bot"] > 0
    momentary = ("archiver_ready", "archiver_not_ready", "archiver_slots", "archiver_lease_remaining_seconds")
    assert not [key for key in found if key[0] in momentary], "an ended process is not one that is not ready"

    archiver.configure({**data, "metrics": {"textfile": str(path)}, "database": {"url": "postgresql://127.0.0.1:1/none"}})
    assert (await archiver("worker", "--drain")).code == 1
    failed = left()
    assert failed["archiver_files_total", "bot"] == 0
    assert ("archiver_queue_sessions", "bot", "archived") not in failed

    archiver.configure({**data, "metrics": {"textfile": str(archiver.folder / "none" / "archiver.prom")}})
    drained = await archiver("worker", "--drain")
    assert drained.code == 0, drained
    (line,) = [line for line in lines(drained) if line["event"] == "metrics_textfile_failed"]
    assert line["message"].endswith('none/archiver.prom": No such file or directory')


async def test_a_worker_waits_for_a_port_that_is_soon_free(archiver: Program, data: dict[str, Any], scrape: Scraper) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        archiver.configure({**data, "metrics": {"listen": f"127.0.0.1:{taken.getsockname()[1]}"}})
        worker = await archiver.start("worker")
        await worker.logged("metrics_port_awaited")
    await scrape.finds(worker)
    assert (await scrape())[("archiver_slots",)] == 8


@pytest.mark.parametrize("address", ["no-such-host.invalid:9464", "192.0.2.1:9464"])
async def test_an_address_that_is_not_this_hosts_ends_a_worker_and_no_drain(
    archiver: Program, data: dict[str, Any], address: str
) -> None:
    archiver.configure({**data, "metrics": {"listen": address}})
    (await archiver("worker")).refused(1, f'metrics.listen = "{address}": ')
    drained = await archiver("worker", "--drain")
    assert drained.code == 0, drained
    assert [line["message"] for line in lines(drained) if line["event"] == "metrics_unavailable"]


async def test_without_the_library_a_worker_says_how_to_install_it_and_a_drain_goes_on(
    metered: Program, data: dict[str, Any]
) -> None:
    absent = metered.folder / "absent" / "prometheus_client"
    absent.mkdir(parents=True)
    missing = "raise ModuleNotFoundError('No module named prometheus_client', name='prometheus_client')"
    (absent / "__init__.py").write_text(missing)
    environment = {"PYTHONPATH": str(absent.parent)}
    install = "pip install 'kore-archiver[metrics]'"
    (await metered("worker", environment=environment)).refused(2, 'metrics.listen = "127.0.0.1:0"', install)
    drained = await metered("worker", "--drain", environment=environment)
    assert drained.code == 0, drained
    (line,) = [line for line in lines(drained) if line["event"] == "metrics_unavailable"]
    assert install in line["hint"]
    metered.configure(data)
    drained = await metered("worker", "--drain", environment=environment)
    assert drained.code == 0
    assert "metrics_unavailable" not in drained.stderr, "nobody asked for metrics"


def test_no_label_has_more_values_than_we_know() -> None:
    tally = Tally()
    for status in range(400, 600):
        tally.attempts["bot", "pending", f"media_http_{status}"] += 1
        tally.attempts["bot", "pending", f"what the host says {status}"] += 1
    families = metrics(["bot"], tally, {"failed": ["media_http_4xx"]})
    (sessions,) = [family for family in families if family.name == "archiver_sessions"]
    found = {(sample.labels["state"], sample.labels["reason"]): sample.value for sample in sessions.samples}
    pending = {("pending", "media_http_4xx"): 100, ("pending", "media_http_5xx"): 100, ("pending", "other"): 200}
    assert found == {("failed", "media_http_4xx"): 0, **pending}
