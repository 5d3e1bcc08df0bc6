"""The part s3: peers upload what lies on the local disk; ours downloads it from nginx and uploads it, in one stream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.transfer import ours, uploads
from benchmarks.transfer.bench import Bench, Case
from benchmarks.transfer.corpus import check_same
from benchmarks.transfer.figures import OURS
from benchmarks.transfer.nginx import BUCKET, Nginx
from benchmarks.transfer.process import Cost, run
from benchmarks.transfer.programs import program
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, S3Server, nginx_sink, rclone_server
from benchmarks.transfer.uploads import Upload


@contextmanager
def prepared(bench: Bench, name: str, http: Nginx) -> Iterator[S3Server]:
    """The chosen server."""
    if name == "nginx":
        yield nginx_sink(http)
        return
    with rclone_server(bench.folder / "s3", program("rclone")) as server:
        yield server


def measure(bench: Bench, case: Case, http: Nginx, server: S3Server) -> None:
    """Every chosen peer, and ours beside each, if there is such a store."""
    if missing := ours.unavailable(_storage(server, "any")):
        bench.console.print(f"{case.part}: archiver: not available: {missing}", highlight=False)

    def one(client: str) -> tuple[Cost, float, float | None]:
        with bench.fresh() as scratch:
            # A prefix of its own: the server may remember what it has seen of a folder that we have emptied behind its back.
            prefix = scratch.name
            target = server.bucket / prefix
            upload = Upload(case.corpus.files, case.corpus.folder, server, prefix, scratch, case.concurrency)
            result = None
            if client == OURS:
                origin = f"{http.url}/files/{case.corpus.folder.name}"
                files = [(f"{origin}/{file.key}", file.session, file.name) for file in case.corpus.files]
                command, result = ours.command(
                    scratch, _storage(server, prefix), files, case.concurrency, loop=bench.loop, profile=bench.profile(case)
                )
            else:
                command = list(uploads.PEERS[client].command(upload))
            before = server.cpu_seconds()
            try:
                cost = run(client, command, scratch / "log", env=uploads.environment(upload))
                used = server.cpu_seconds() - before
                check_same(client, target, case.corpus.files)
            finally:
                shutil.rmtree(target, ignore_errors=True)
            return cost, used, json.loads(result.read_text())["seconds"] if result else None

    bench.turns(case, [name for name in uploads.PEERS if bench.wants(name)], one, without_ours=bool(missing))


def _storage(server: S3Server, prefix: str) -> dict[str, object]:
    return ours.s3_storage(server.endpoint, BUCKET, prefix, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
