"""The part job: queue, API call, transfer, settle, against curl fetching the same pairs of URLs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.queue.server import Server, running
from benchmarks.transfer import ours
from benchmarks.transfer.bench import Bench, Case
from benchmarks.transfer.corpus import Corpus, NotTheSameWork, check_same, make_folders
from benchmarks.transfer.downloads import PEERS, Download
from benchmarks.transfer.figures import OURS
from benchmarks.transfer.nginx import Nginx
from benchmarks.transfer.process import Client, Cost

PEER = "curl"
CURVE = (2, 4, 8)
"""Processes that are held against one, as far as there are processors."""


async def measure(bench: Bench, label: str, corpus: Corpus, concurrency: Sequence[int], rounds: int, http: Nginx) -> None:
    """Rounds of: the peer, one process, and more of them. Turns are peer, ours, peer, ours: each ratio is between neighbours."""
    origin = f"{http.url}/files/{corpus.folder.name}"
    for file in corpus.files:
        answer = {"status": "success", "recording": [{"fileName": file.name, "fileUrl": f"{origin}/{file.key}"}]}
        (http.answers / f"{file.session}.json").write_text(json.dumps(answer))
    async with running(bench.folder / f"postgres-{label}") as server:
        await ours.install(await server.create("template_archiver"))
        for at_once in concurrency:
            case = Case("job", label, at_once, corpus, rounds)
            for number in range(rounds):
                for processes in (1, *(more for more in CURVE if more <= min(len(os.sched_getaffinity(0)), at_once))):
                    os.sync()
                    beside = PEER if processes == 1 else f"{PEER} beside {processes} processes"
                    cost, used = await _curl(bench, case, http, origin)
                    bench.record(case, beside, beside, number, cost, used, None)
                    cost, used, inside = await _work(bench, case, http, server, processes)
                    bench.record(case, OURS, beside, number, cost, used, inside)


async def _curl(bench: Bench, case: Case, http: Nginx, origin: str) -> tuple[Cost, float]:
    with bench.fresh() as scratch:
        target = scratch / "target"
        make_folders(target, case.corpus.files)
        also = [(f"{http.url}{ours.API}{file.session}", target / file.session / "answer.json") for file in case.corpus.files]
        download = Download(case.corpus.files, origin, target, scratch, case.concurrency, None, also)
        before = http.cpu_seconds()
        cost = await _run(PEER, PEERS[PEER].command(download), scratch)
        used = http.cpu_seconds() - before
        check_same(PEER, target, case.corpus.files)
        return cost, used


async def _work(bench: Bench, case: Case, http: Nginx, server: Server, processes: int) -> tuple[Cost, float, float]:
    dsn = await server.create("round", "template_archiver")
    with bench.fresh() as scratch:
        target = scratch / "target"
        target.mkdir()
        await ours.enqueue(dsn, [file.session for file in case.corpus.files])
        await server.administer("CHECKPOINT")
        os.sync()
        before = http.cpu_seconds() + server.cpu_seconds()
        command = ours.worker_command(scratch, dsn, http.url, target, case.concurrency, bench.max_buffer)
        cost = await _run(OURS, [*command, "--processes", str(processes)], scratch)
        used = http.cpu_seconds() + server.cpu_seconds() - before
        check_same(OURS, target, case.corpus.files)
        try:
            inside = await ours.worked(dsn, len(case.corpus.files))
        except ValueError as error:
            raise NotTheSameWork(str(error)) from None
        return cost, used, inside


async def _run(name: str, command: Sequence[str], scratch: Path) -> Cost:
    """One client; a cancellation kills it."""
    with Client(name, command, scratch / "log") as client:
        return await asyncio.to_thread(client.wait)
