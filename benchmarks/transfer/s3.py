"""The part s3: peers upload what lies on the local disk; ours downloads it from nginx and uploads it, in one stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.transfer import ours, uploads
from benchmarks.transfer.bench import Bench, Case
from benchmarks.transfer.figures import OURS
from benchmarks.transfer.nginx import Nginx
from benchmarks.transfer.process import Cost, run
from benchmarks.transfer.programs import program
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, S3Server, nginx_sink
from benchmarks.transfer.seaweedfs import seaweedfs
from benchmarks.transfer.uploads import Upload

SERVERS = ("seaweedfs", "nginx")


@contextmanager
def prepared(bench: Bench, name: str, http: Nginx) -> Iterator[S3Server]:
    """The chosen server."""
    if name == "nginx":
        yield nginx_sink(http)
        return
    with seaweedfs(bench.folder / "s3", program("weed")) as server:
        yield server


def measure(bench: Bench, case: Case, http: Nginx, server: S3Server) -> None:
    """Every chosen peer, and ours beside each, if there is such a store."""
    anywhere = _storage(server, "any", "any")
    missing = ours.unavailable(anywhere)
    if missing:
        bench.console.print(f"{case.part}: archiver: not available: {missing}", highlight=False)
    elif not server.multipart and max(file.bytes for file in case.corpus.files) > ours.longest_whole(anywhere):
        bench.console.print(f"{case.part} {case.size}: left out: ours goes in parts, which {server.name} does not take")
        return

    def one(client: str) -> tuple[Cost, float, float | None]:
        with bench.fresh() as scratch, server.place(scratch.name) as place:
            upload = Upload(case.corpus.files, case.corpus.folder, server, place, scratch, case.concurrency)
            result = None
            if client == OURS:
                origin = f"{http.url}/files/{case.corpus.folder.name}"
                files = [(f"{origin}/{file.key}", file.session, file.name) for file in case.corpus.files]
                command, result = ours.command(
                    scratch, _storage(server, place.bucket, place.prefix), files, case.concurrency,
                    loop=bench.loop, profile=bench.profile(case), max_buffer=bench.max_buffer, untried=server.overwrites,
                )  # fmt: skip
            else:
                command = list(uploads.PEERS[client].command(upload))
            before = server.cpu_seconds()
            cost = run(client, command, scratch / "log", env=uploads.environment(upload))
            used = server.cpu_seconds() - before
            place.check(client, case.corpus.files)
            return cost, used, json.loads(result.read_text())["seconds"] if result else None

    bench.turns(case, [name for name in uploads.PEERS if bench.wants(name)], one, without_ours=bool(missing))


def _storage(server: S3Server, bucket: str, prefix: str) -> dict[str, object]:
    return ours.s3_storage(server.endpoint, bucket, prefix, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
