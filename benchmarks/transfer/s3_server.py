"""The S3 servers that uploads go to: rclone's, and nginx as a sink."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer.nginx import BUCKET, Nginx, free_port, wait_for_port
from benchmarks.transfer.process import cpu_seconds

ACCESS_KEY_ID = "bench"
SECRET_ACCESS_KEY = "a-secret-of-this-benchmark-alone"


@dataclass(frozen=True)
class S3Server:
    """Where a bucket is, and the folder in which its objects lie as files."""

    name: str
    endpoint: str
    bucket: Path
    multipart: bool
    """Whether it takes an object in parts."""
    cpu_seconds: Callable[[], float]


@contextmanager
def rclone_server(folder: Path, program: str) -> Iterator[S3Server]:
    """`rclone serve s3` of a folder. Its cache for writes stays off: an object is in its file when the answer comes."""
    bucket = folder / "buckets" / BUCKET
    bucket.mkdir(parents=True)
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program, "serve", "s3", "--config=", f"--addr=127.0.0.1:{port}", "--vfs-cache-mode=off",
                f"--auth-key={ACCESS_KEY_ID},{SECRET_ACCESS_KEY}", str(folder / "buckets"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_port(port, process, log)
        yield S3Server("rclone", f"http://127.0.0.1:{port}", bucket, True, lambda: cpu_seconds(process.pid))
    finally:
        process.terminate()
        process.wait()


def nginx_sink(server: Nginx) -> S3Server:
    """PUT alone, without a look at the signature, and no fsync: what remains is the client."""
    return S3Server("nginx", server.url, server.root / BUCKET, False, server.cpu_seconds)
