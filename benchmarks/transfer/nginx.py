"""One nginx on loopback for a run: the media host, the platform's API and, at wish, an S3 sink that costs next to nothing."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer.process import cpu_seconds

START_SECONDS = 10.0
BUCKET = "bench"

_CONFIG = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    types {{ audio/wav wav; application/json json; }}
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    keepalive_timeout 300;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:tls:10m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {tls}
        root {folder}/root;
        location /files/ {{ }}
        location /api/ {{ try_files /answers/$arg_sessionId.json =404; }}
        location /{bucket}/ {{
            # What the SDKs look for in the answer to a PUT.
            dav_methods PUT DELETE;
            create_full_put_path on;
            add_header ETag '"sink"' always;
            add_header x-amz-checksum-sha256 $http_x_amz_checksum_sha256 always;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Certificate:
    """What nginx shows, and the authority that clients are told to believe."""

    chain: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Nginx:
    """A running server. `root` has the folders files, answers and BUCKET."""

    url: str
    root: Path
    process: int

    @property
    def files(self) -> Path:
        """What it serves under /files/."""
        return self.root / "files"

    @property
    def answers(self) -> Path:
        """What its API answers: SESSION.json."""
        return self.root / "answers"

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return cpu_seconds(self.process)


@contextmanager
def nginx(folder: Path, program: str, *, certificate: Certificate | None = None, root: Path | None = None) -> Iterator[Nginx]:
    """A server in a folder, with TLS 1.3 where there is a certificate; `root` shares the files of another one."""
    folder.mkdir()
    if root is None:
        for name in ("files", "answers", BUCKET):
            (folder / "root" / name).mkdir(parents=True)
    else:
        (folder / "root").symlink_to(root)
    port = free_port()
    # Started by root it would drop to an account that may not enter our temporary folder.
    account, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    config = _CONFIG.format(
        user=f"user {account} {group};" if os.geteuid() == 0 else "",
        folder=folder,
        port=f"{port} ssl" if certificate else port,
        bucket=BUCKET,
        tls=f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};" if certificate else "",
    )
    (folder / "nginx.conf").write_text(config)
    log = folder / "error.log"
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_port(port, process, log)
        yield Nginx(f"{'https' if certificate else 'http'}://127.0.0.1:{port}", (folder / "root").resolve(), process.pid)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server takes connections. Raises RuntimeError with its log if it ends instead."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace") if log.exists() else ""
                raise RuntimeError(f"{process.args!r} did not start:\n{said[-2000:]}") from None
            time.sleep(0.02)
        else:
            return


def make_certificate(folder: Path) -> Certificate:
    """An authority of this run alone, and a certificate for 127.0.0.1 that it has signed."""
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(
        "req",
        "-x509",
        *curve,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=benchmark",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    openssl("req", "-new", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "server.ext").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n"
        "extendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    openssl(
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-extfile",
        "server.ext",
        "-out",
        "server.pem",
    )
    return Certificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
