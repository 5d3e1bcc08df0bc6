"""What is served at `metrics.listen`, to whoever asks and however; and metrics as a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from archiver.observe import exposition, listening
from archiver.observe.exposition import served, write_file
from archiver.observe.figures import BotFigures, Figures, Hold
from archiver.observe.fleet_metrics import fleet_metrics

ODD = 'a "quoted" \\ bot\nof two lines \u202e\x1b[31m'


class Process:
    """A stand-in for what a process knows: its metrics, and whether it is ready."""

    def __init__(self) -> None:
        self.ready = True
        self.read = 0
        self.size = 1
        self.going = asyncio.Event()
        self.going.set()

    def metrics(self) -> Iterator[Metric]:
        self.read += 1
        family = GaugeMetricFamily("archiver_test", "A test.", labels=["n"])
        for n in range(self.size):
            family.add_metric([f"{n:0100}"], n)
        yield family

    def readiness(self) -> dict[str, Any]:
        return {"ready": self.ready, "reasons": []}

    async def before(self) -> None:
        await self.going.wait()


@pytest.fixture
async def process() -> Process:
    return Process()


@pytest.fixture
async def port(process: Process, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    found: list[int] = []
    monkeypatch.setattr(exposition.log, "info", lambda _, **facts: found.append(facts["port"]), raising=False)
    async with served("127.0.0.1", 0, metrics=process.metrics, readiness=process.readiness, before=process.before):
        yield found[0]


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.request(method, f"http://127.0.0.1:{port}{path}") as response:
        assert response.headers["Connection"] == "close"
        return response.status, await response.text()


async def test_it_says_whether_it_is_ready_while_metrics_are_awaited(port: int, process: Process) -> None:
    process.going.clear()
    waiting = asyncio.create_task(get(port, "/metrics"))
    assert await get(port, "/livez") == (200, "alive\n")
    assert await get(port, "/readyz") == (200, '{"ready": true, "reasons": []}')
    process.ready = False
    assert await get(port, "/readyz") == (503, '{"ready": false, "reasons": []}')
    assert await get(port, "/readyz", "HEAD") == (503, "")
    process.going.set()
    code, text = await waiting
    assert code == 200
    assert "process_start_time_seconds" in text


async def test_all_who_ask_at_one_time_get_one_page(port: int, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    came, all_came = 0, asyncio.Event()

    def arrive(accept: str) -> Any:
        nonlocal came
        came += 1
        if came == 20:
            all_came.set()
        return choose_encoder(accept)

    monkeypatch.setattr("archiver.observe.exposition.choose_encoder", arrive)
    process.going.clear()
    asking = [asyncio.create_task(get(port, "/metrics")) for _ in range(20)]
    await asyncio.wait_for(all_came.wait(), 10)
    process.going.set()
    assert {code for code, _ in await asyncio.gather(*asking)} == {200}
    assert process.read == 2, "the first one's, and one for all who came meanwhile"
    await get(port, "/metrics")
    assert process.read == 3, "and who asks later, a later one"


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=abc", "text/plain;version=;escaping", ";,;q=", "é"])
async def test_formats_that_are_none_are_answered_with_the_usual_one(port: int, accept: str) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept}) as answer,
    ):
        assert answer.status == 200
        assert "archiver_test" in await answer.text()


async def test_one_that_never_reads_is_cut_off(port: int, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_SECONDS", 0.3)
    process.size = 100_000  # more than the kernel takes for somebody who does not read
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.5)
    assert (await get(port, "/livez"))[0] == 200
    with contextlib.suppress(ConnectionError):
        assert len(await asyncio.wait_for(reader.read(2**27), 10)) < 10_000_000
    writer.transport.abort()


async def test_a_thousand_connections_keep_nobody_from_an_answer(port: int) -> None:
    silent = []
    for _ in range(1000):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        silent.append(writer)
    assert (await get(port, "/readyz"))[0] == 200
    for writer in silent:
        writer.transport.abort()


async def test_what_goes_wrong_is_in_the_log_and_not_in_the_answer(
    port: int, process: Process, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(exposition.log, "error", lambda event, **_: logged.append(event), raising=False)
    monkeypatch.setattr(process, "size", None)
    assert await get(port, "/metrics") == (500, "the log says why\n")
    assert logged == ["metrics_request_failed"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_no_name_breaks_out_of_its_label(tmp_path: Path) -> None:
    bot = BotFigures({"pending": 3}, False, 1.0, None, None)
    figures = Figures(1.0, 1, 1, None, None, 0, (Hold(ODD, "recording", 'why" } 1\n'),), {ODD: bot})
    write_file(tmp_path / "a.prom", lambda: fleet_metrics(figures, 1.0))
    families = list(text_string_to_metric_families((tmp_path / "a.prom").read_text()))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["bot"] for sample in samples if "bot" in sample.labels} == {ODD}
    assert {sample.labels["reason"] for sample in samples if "reason" in sample.labels} == {'why" } 1\n'}
    assert "archiver_gaps" not in {sample.name for sample in samples}


def test_a_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "archiver.prom"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("somebody else's")
    path.symlink_to(elsewhere)
    process = GaugeMetricFamily("archiver_test", "A test.", 1)
    before = os.umask(0o077)
    try:
        write_file(path, lambda: [process])
    finally:
        os.umask(before)
    assert path.read_text().endswith("archiver_test 1.0\n")
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert elsewhere.read_text() == "somebody else's"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["archiver.prom", "elsewhere"]


@pytest.mark.parametrize("where", ["missing/a.prom", "folder.prom", "file/a.prom"])
def test_where_no_file_can_be_nothing_is_left(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"No such file|Is a directory|Not a directory"):
        write_file(tmp_path / where, list)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder.prom"]
