"""The parts disk and https: from one nginx into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.transfer import downloads, ours
from benchmarks.transfer.bench import Bench, Case
from benchmarks.transfer.corpus import check_same, make_folders
from benchmarks.transfer.downloads import Download
from benchmarks.transfer.figures import OURS
from benchmarks.transfer.nginx import Nginx
from benchmarks.transfer.process import Cost, run


def measure(bench: Bench, case: Case, server: Nginx, authority: Path | None) -> None:
    """Every chosen peer, and ours beside each."""

    def one(client: str) -> tuple[Cost, float, float | None]:
        with bench.fresh() as scratch:
            target = scratch / "target"
            origin = f"{server.url}/files/{case.corpus.folder.name}"
            download = Download(case.corpus.files, origin, target, scratch, case.concurrency, authority)
            result = scratch / "result.json"  # of those in Python
            if client == OURS:
                files = [(download.url(file), file.session, file.name) for file in case.corpus.files]
                storage = ours.folder_storage(target)
                target.mkdir()
                command, result = ours.command(
                    scratch, storage, files, case.concurrency,
                    loop=bench.loop, profile=bench.profile(case), max_buffer=bench.max_buffer,
                )  # fmt: skip
                env = downloads.trust(download)
            else:
                make_folders(target, case.corpus.files)
                command, env = list(downloads.PEERS[client].command(download)), dict(downloads.PEERS[client].env(download))
            before = server.cpu_seconds()
            cost = run(client, command, scratch / "log", env=env)
            used = server.cpu_seconds() - before
            check_same(client, target, case.corpus.files)
            return cost, used, json.loads(result.read_text())["seconds"] if result.exists() else None

    bench.turns(case, [name for name in downloads.PEERS if bench.wants(name)], one)
