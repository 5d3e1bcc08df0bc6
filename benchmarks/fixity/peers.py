"""Those that read beside us: the same files or objects, so many at once."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer.corpus import Corpus, NotTheSameWork
from benchmarks.transfer.s3_server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from benchmarks.transfer.uploads import s5cmd_binary

PROCESSES = 2


@dataclass(frozen=True)
class Reading:
    """What one client is to do. `endpoint`, `bucket` and `prefix` are empty for a folder."""

    corpus: Corpus
    scratch: Path
    concurrency: int
    endpoint: str = ""
    bucket: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Peer:
    """A client's name, its command, and what proves that it read everything."""

    name: str
    command: Callable[[Reading], Sequence[str]]
    check: Callable[[Reading, str], None]


def environment(reading: Reading) -> Mapping[str, str]:
    """Keys, and nothing of the user's own configuration."""
    nowhere = str(reading.scratch / "none")
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY, "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": nowhere, "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true", "TMPDIR": str(reading.scratch),
    }  # fmt: skip


# --- a folder


def _by_xargs(program: str) -> Callable[[Reading], Sequence[str]]:
    """In two processes, each given a tenth of its share at a time."""

    def command(reading: Reading) -> Sequence[str]:
        names = reading.scratch / "names"
        names.write_bytes(b"".join(os.fsencode(reading.corpus.folder / file.key) + b"\0" for file in reading.corpus.files))
        each = max(1, len(reading.corpus.files) // (10 * PROCESSES))
        said = reading.scratch / "said"
        shutil.rmtree(said, ignore_errors=True)
        said.mkdir()
        # Each writes to a file of its own: lines of several that share one may come in pieces.
        one = shlex.quote(f'exec {program} "$@" > {shlex.quote(str(said))}/$$')
        return ["sh", "-c", f"xargs -0 -P {PROCESSES} -n {each} sh -c {one} sh < {shlex.quote(str(names))}"]

    return command


def _check_hashes(reading: Reading, _said: str) -> None:
    lines = [line for file in (reading.scratch / "said").iterdir() for line in file.read_text().splitlines()]
    found = sorted(word for line in lines for word in line.split() if len(word) == 64)
    if found != sorted(file.sha256 for file in reading.corpus.files):
        raise NotTheSameWork(f"{len(found)} hashes, and not those of the {len(reading.corpus.files)} files")


# --- a bucket


def _s5cmd(reading: Reading) -> Sequence[str]:
    """To /dev/null: `cat` has one object after the other; `cp` would write them."""
    run = reading.scratch / "run"
    run.write_text("".join(f"cat s3://{reading.bucket}/{reading.prefix}{file.key}\n" for file in reading.corpus.files))
    binary = shlex.quote(str(s5cmd_binary()))
    options = f"--log error --endpoint-url {reading.endpoint} --numworkers {reading.concurrency}"
    return ["sh", "-c", f"{binary} {options} run {shlex.quote(str(run))} | wc -c"]


def _sdk(name: str) -> Callable[[Reading], Sequence[str]]:
    def command(reading: Reading) -> Sequence[str]:
        order = reading.scratch / "order.json"
        keys = [f"{reading.prefix}{file.key}" for file in reading.corpus.files]
        told = {"endpoint": reading.endpoint, "bucket": reading.bucket, "concurrency": reading.concurrency, "keys": keys}
        order.write_text(json.dumps(told))
        return [sys.executable, "-m", "benchmarks.fixity.readers", name, str(order)]

    return command


def _check_bytes(reading: Reading, said: str) -> None:
    if said.split()[-1:] != [str(reading.corpus.bytes)]:
        raise NotTheSameWork(f"{said[-200:]!r} instead of {reading.corpus.bytes} bytes")


FOLDER = [
    Peer("sha256sum", _by_xargs("sha256sum"), _check_hashes),
    Peer("openssl", _by_xargs("openssl dgst -sha256 -r"), _check_hashes),
]
BUCKET = [
    Peer("s5cmd", _s5cmd, _check_bytes),
    Peer("obstore", _sdk("obstore"), _check_bytes),
    Peer("obstore+sha256", _sdk("obstore+sha256"), _check_bytes),
    Peer("aiobotocore", _sdk("aiobotocore"), _check_bytes),
    Peer("boto3", _sdk("boto3"), _check_bytes),
]
