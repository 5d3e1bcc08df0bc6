"""Those that download beside us. All get the same URLs, the same folders, and the same number of files at once."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer.corpus import File
from benchmarks.transfer.programs import program

PROCESSORS = 2
"""Processes that hash at once."""

SYNCS = 16
"""Processes that call fsync at once: together they share the journal's commits, which made it three times as fast as one."""


@dataclass(frozen=True)
class Download:
    """What one client is to do."""

    files: Sequence[File]
    origin: str
    target: Path
    scratch: Path
    """A folder for lists and logs."""
    concurrency: int
    authority: Path | None
    """The certificate to believe, where the origin speaks TLS."""
    also: Sequence[tuple[str, Path]] = ()
    """More to fetch, each before the file of the same place."""

    def url(self, file: File) -> str:
        """Where a file is."""
        return f"{self.origin}/{file.key}"


@dataclass(frozen=True)
class Peer:
    """A client's name, and its command for a download; what the command reads is written before it is timed."""

    name: str
    command: Callable[[Download], Sequence[str]]
    env: Callable[[Download], Mapping[str, str]] = lambda download: {}


def curl(download: Download) -> list[str]:
    """One process; URLs and outputs in a file."""
    pairs = []
    for number, file in enumerate(download.files):
        if download.also:
            pairs.append(download.also[number])
        pairs.append((download.url(file), download.target / file.key))
    config = download.scratch / "curl.config"
    config.write_text("".join(f'url = "{url}"\noutput = "{output}"\n' for url, output in pairs))
    trust = ["--cacert", str(download.authority)] if download.authority else []
    many = ["--parallel", "--parallel-immediate", "--parallel-max", str(download.concurrency)]
    return [program("curl"), "--silent", "--show-error", "--fail", *trust, *many, "--config", str(config)]


def aria2(download: Download) -> list[str]:
    """One process, one connection a file, nothing allocated beforehand."""
    listed = download.scratch / "aria2.list"
    listed.write_text(
        "".join(
            f"{download.url(file)}\n  dir={(download.target / file.key).parent}\n  out={file.name}\n" for file in download.files
        )
    )
    trust = [f"--ca-certificate={download.authority}"] if download.authority else []
    return [
        program("aria2c"), "--no-conf=true", "--quiet=true", "--file-allocation=none", "--max-connection-per-server=1",
        "--split=1", f"--max-concurrent-downloads={download.concurrency}", f"--input-file={listed}", *trust,
    ]  # fmt: skip


def rclone(download: Download) -> list[str]:
    """`copyurl --urls`: as `copy` from an HTTP remote, without its listing of a folder a session."""
    listed = download.scratch / "rclone.csv"
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows((download.url(one), one.key) for one in download.files)
    trust = [f"--ca-cert={download.authority}"] if download.authority else []
    options = ["--config=", f"--transfers={download.concurrency}", f"--checkers={download.concurrency}"]
    return [program("rclone"), "copyurl", *options, *trust, "--urls", str(listed), str(download.target)]


def write_order(download: Download) -> Path:
    """The same for a client in Python: what to fetch, as JSON."""
    order = download.scratch / "order.json"
    order.write_text(
        json.dumps(
            {
                "concurrency": download.concurrency,
                "target": str(download.target),
                "files": [[download.url(file), file.session, file.name] for file in download.files],
            }
        )
    )
    return order


def trust(download: Download) -> dict[str, str]:
    """Python's default context takes the authority from here."""
    return {"SSL_CERT_FILE": str(download.authority)} if download.authority else {}


def naive(download: Download) -> list[str]:
    """The loop that many examples show."""
    return [sys.executable, "-m", "benchmarks.transfer.naive", str(write_order(download))]


def careful(download: Download) -> list[str]:
    """The same, hashed, and each file durable before it has its name."""
    return [sys.executable, "-m", "benchmarks.transfer.careful", str(write_order(download))]


def curl_and_sync(download: Download) -> list[str]:
    """What the archiver does for each file, done by the fastest programs for all: fetch, hash, fsync files and folders."""
    paths = [download.target / file.key for file in download.files]
    return _curl_then(download, paths, f"xargs -0 -n {_share(2 * len(paths), SYNCS)} -P {SYNCS} sync <$synced")


def curl_and_syncfs(download: Download) -> list[str]:
    """The same, but that the whole file system is synced once, at the very end: nothing is durable before all is."""
    paths = [download.target / file.key for file in download.files]
    return _curl_then(download, paths, f"sync --file-system {download.target}")


def _curl_then(download: Download, paths: Sequence[Path], last: str) -> list[str]:
    hashed, synced = download.scratch / "hashed", download.scratch / "synced"
    hashed.write_bytes(b"\0".join(bytes(path) for path in paths))
    synced.write_bytes(b"\0".join(bytes(one) for path in paths for one in (path, path.parent)))
    # openssl uses the processor's instructions for it; Debian's sha256sum does not, and takes three times as long.
    hashes = f"xargs -0 -n {_share(len(paths), PROCESSORS)} -P {PROCESSORS} {program('openssl')} dgst -sha256 -r <{hashed}"
    script = f'set -e; synced={synced}; "$@"; {hashes} >{download.scratch}/sums; {last}'
    return ["/bin/sh", "-c", script, "sh", *curl(download)]


def _share(count: int, processes: int) -> int:
    """How many of them each process gets: all at once, as far as a command line takes them."""
    return max(1, min(500, -(-count // processes)))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("curl", curl),
        Peer("aria2", aria2),
        Peer("rclone", rclone),
        Peer("aiohttp+aiofiles", naive, trust),
        Peer("careful", careful, trust),
        Peer("curl+sha256+fsync", curl_and_sync),
        Peer("curl+sha256+syncfs", curl_and_syncfs),
    )
}
