"""The S3 servers that uploads go to: what a client is told of one, and nginx as a sink. SeaweedFS has a file of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from benchmarks.transfer.corpus import File, check_same
from benchmarks.transfer.nginx import BUCKET, Nginx

ACCESS_KEY_ID = "bench"
SECRET_ACCESS_KEY = "a-secret-of-this-benchmark-alone"
REGION = "us-east-1"


@dataclass(frozen=True)
class Place:
    """Where the objects of one run go."""

    bucket: str
    prefix: str
    check: Callable[[str, Sequence[File]], None]
    """Reads every object of the named client again. Raises NotTheSameWork for the first that is not what was to be uploaded."""


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    name: str
    endpoint: str
    multipart: bool
    """Whether it takes an object in parts."""
    provider: str
    """What rclone calls it."""
    overwrites: bool
    """Whether it ignores If-None-Match."""
    cpu_seconds: Callable[[], float]
    place: Callable[[str], AbstractContextManager[Place]]
    """A place for the run of that name, empty and warm; in the end it is removed with all that lies there."""


def nginx_sink(server: Nginx) -> S3Server:
    """PUT alone, without a look at the signature, and no fsync: what remains is the client."""

    @contextmanager
    def place(run: str) -> Iterator[Place]:
        folder = server.root / BUCKET / run
        try:
            yield Place(BUCKET, run, lambda client, files: check_same(client, folder, files))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return S3Server(
        "nginx", server.url, multipart=False, provider="Other", overwrites=True, cpu_seconds=server.cpu_seconds, place=place
    )
