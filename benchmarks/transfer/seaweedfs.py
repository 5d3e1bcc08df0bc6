"""SeaweedFS on loopback for a run, the server of the tests: it looks at signatures, checksums and conditions."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from benchmarks.transfer.corpus import File, check_all
from benchmarks.transfer.nginx import free_port
from benchmarks.transfer.process import cpu_seconds
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Place, S3Server

START_SECONDS = 60.0
VOLUME_MEGABYTES = 512
VOLUMES = 64
"""More than one run fills and a new bucket is given. A volume takes the space of what is in it, and no more."""
READ_BYTES = 1024 * 1024


@contextmanager
def seaweedfs(folder: Path, program: str) -> Iterator[S3Server]:
    """A server in a folder."""
    folder.mkdir()
    identity = {
        "name": ACCESS_KEY_ID,
        "credentials": [{"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *_options(folder, port)], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_ready(endpoint, process, log)
        client = _client(endpoint)
        numbers = count(1)

        @contextmanager
        def place(_run: str) -> Iterator[Place]:
            # A bucket a run: its volumes go with it. Objects deleted one by one would leave theirs as they are, to be
            # vacuumed some time, maybe in the middle of the next run.
            bucket = f"bench-{next(numbers)}"
            client.create_bucket(Bucket=bucket)
            try:
                # The first object of a bucket waits for its volumes to be made.
                client.put_object(Bucket=bucket, Key="warm", Body=b"warm")
                yield Place(bucket, "run", lambda name, files: _check(client, name, bucket, "run", files))
            finally:
                client.delete_bucket(Bucket=bucket)

        yield S3Server(
            "seaweedfs", endpoint, multipart=True, provider="SeaweedFS", overwrites=False,
            cpu_seconds=lambda: cpu_seconds(process.pid), place=place,
        )  # fmt: skip
    finally:
        process.kill()  # asked to end, it takes its time; nothing that it has is needed any more
        process.wait()


def _options(folder: Path, port: int) -> list[str]:
    """All of it in one process. Sockets have short names, as the path to one has a limit."""
    ports: set[int] = set()
    while len(ports) < 7:
        ports |= {free_port()} - {port}
    master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3_rpc = ports
    return [
        "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
        f"-master.port={master}", f"-master.port.grpc={master_rpc}", "-master.telemetry=false",
        f"-master.volumeSizeLimitMB={VOLUME_MEGABYTES}", f"-volume.max={VOLUMES}",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_rpc}",
        f"-filer.port={filer}", f"-filer.port.grpc={filer_rpc}", "-filer.localSocket=f.sock",
        f"-s3.port={port}", f"-s3.port.grpc={s3_rpc}", "-s3.localSocket=s.sock", "-s3.config=s3.json",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
    ]  # fmt: skip


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it refuses who shows no key, as S3 does. Raises RuntimeError with its log if it ends instead."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.FORBIDDEN:
                return
        except (OSError, http.client.HTTPException):
            pass  # it does not listen yet
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _client(endpoint: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    return session.create_client(
        "s3", region_name=REGION, endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}, read_timeout=120)
    )


def _check(client: Any, name: str, bucket: str, prefix: str, files: Sequence[File]) -> None:
    """Every object, as anybody would get it."""

    def sha256(file: File) -> str | None:
        digest = hashlib.sha256()
        try:
            body = client.get_object(Bucket=bucket, Key=f"{prefix}/{file.key}")["Body"]
        except client.exceptions.NoSuchKey:
            return None
        with ExitStack() as stack:
            stack.callback(body.close)
            for block in body.iter_chunks(READ_BYTES):
                digest.update(block)
        return digest.hexdigest()

    check_all(name, files, sha256)
