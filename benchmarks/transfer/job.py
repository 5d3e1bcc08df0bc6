"""The part job: queue, API call, transfer, settle, against curl fetching the same pairs of URLs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
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
TWO = "archiver, 2 workers"
TWO_WORKERS = "64KB"
"""The size at which two workers are held against one."""


async def measure(bench: Bench, label: str, corpus: Corpus, concurrency: Sequence[int], rounds: int, http: Nginx) -> None:
    """Rounds of: the peer, one worker, and at one size two."""
    origin = f"{http.url}/files/{corpus.folder.name}"
    for file in corpus.files:
        answer = {"status": "success", "recording": [{"fileName": file.name, "fileUrl": f"{origin}/{file.key}"}]}
        (http.answers / f"{file.session}.json").write_text(json.dumps(answer))
    async with running(bench.folder / f"postgres-{label}") as server:
        await ours.install(await server.create("template_archiver"))
        for at_once in concurrency:
            case = Case("job", label, at_once, corpus, rounds)
            for number in range(rounds):
                os.sync()
                cost, used = await _curl(bench, case, http, origin)
                bench.record(case, PEER, PEER, number, cost, used, None)
                for name, workers in ((OURS, 1), (TWO, 2)):
                    if workers == 1 or label == TWO_WORKERS:
                        cost, used, inside = await _work(bench, case, http, server, workers)
                        bench.record(case, name, PEER, number, cost, used, inside)


async def _curl(bench: Bench, case: Case, http: Nginx, origin: str) -> tuple[Cost, float]:
    with bench.fresh() as scratch:
        target = scratch / "target"
        make_folders(target, case.corpus.files)
        also = [(f"{http.url}{ours.API}{file.session}", target / file.session / "answer.json") for file in case.corpus.files]
        download = Download(case.corpus.files, origin, target, scratch, case.concurrency, None, also)
        before = http.cpu_seconds()
        [cost] = await _run(PEER, PEERS[PEER].command(download), scratch, 1)
        used = http.cpu_seconds() - before
        check_same(PEER, target, case.corpus.files)
        return cost, used


async def _work(bench: Bench, case: Case, http: Nginx, server: Server, workers: int) -> tuple[Cost, float, float]:
    dsn = await server.create("round", "template_archiver")
    with bench.fresh() as scratch:
        target = scratch / "target"
        target.mkdir()
        await ours.enqueue(dsn, [file.session for file in case.corpus.files])
        await server.administer("CHECKPOINT")
        os.sync()
        before = http.cpu_seconds() + server.cpu_seconds()
        command = ours.worker_command(scratch, dsn, http.url, target, case.concurrency, bench.max_buffer)
        costs = await _run(OURS, command, scratch, workers)
        used = http.cpu_seconds() + server.cpu_seconds() - before
        check_same(OURS, target, case.corpus.files)
        try:
            inside = await ours.worked(dsn, len(case.corpus.files))
        except ValueError as error:
            raise NotTheSameWork(str(error)) from None
        seconds, peak = max(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs)
        return Cost(seconds, sum(cost.cpu_seconds for cost in costs), peak), used, inside


async def _run(name: str, command: Sequence[str], scratch: Path, clients: int) -> list[Cost]:
    """So many clients at once; a cancellation kills them."""
    with ExitStack() as stack:
        started = [stack.enter_context(Client(name, command, scratch / f"log-{number}")) for number in range(clients)]
        return list(await asyncio.gather(*(asyncio.to_thread(client.wait) for client in started)))
