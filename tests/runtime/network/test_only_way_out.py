"""A whole night by a forward proxy that is the only way out, to hosts whose certificates are of a private authority."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.conftest import settings_data
from tests.programs import installed
from tests.runtime.network.conftest import API, BUCKET_HOST, MEDIA, Authority, ForwardProxy, forward_proxy, front, listening
from tests.s3_servers import BUCKET, Prefix, S3Server
from tests.system.conftest import Program

pytestmark = pytest.mark.once

DAY, NEXT = "2025-03-09", "2025-03-10"
PASSWORD = "Open-Sesame-77"


@pytest.fixture(scope="module")
def tinyproxy() -> str:
    """Debian's proxy."""
    return installed("tinyproxy", "tinyproxy-bin")


@dataclass(frozen=True)
class Inside:
    """Where the archiver runs: `command` starts it there, and from there nothing but `proxy_host` can be reached."""

    command: tuple[str, ...]
    proxy_host: str


@contextmanager
def inside() -> Iterator[Inside]:
    """A network of its own, if this system lets us make one: its one neighbour is the proxy's address, and it has no other route.
    Where it does not, names alone keep the archiver from going anywhere else: no name server knows them.
    """
    pid = os.getpid()
    name, out, within = f"archiver-{pid}", f"ao{pid}", f"ai{pid}"
    net = f"10.{64 + pid % 64}.{pid // 64 % 256}"
    made = shutil.which("ip") is not None and shutil.which("nsenter") is not None and _ran("ip", "netns", "add", name)
    try:
        enter = ("nsenter", f"--net=/run/netns/{name}")
        if (
            made
            and _ran("ip", "link", "add", out, "type", "veth", "peer", "name", within, "netns", name)
            and _ran("ip", "addr", "add", f"{net}.1/30", "dev", out)
            and _ran("ip", "link", "set", out, "up")
            and _ran(*enter, "ip", "addr", "add", f"{net}.2/30", "dev", within)
            and _ran(*enter, "ip", "link", "set", within, "up")
            and _ran(*enter, "ip", "link", "set", "lo", "up")
        ):
            yield Inside(enter, f"{net}.1")
        else:
            yield Inside((), "127.0.0.1")
    finally:
        if made:
            _ran("ip", "link", "del", out)
            _ran("ip", "netns", "del", name)


def _ran(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 0


@asynccontextmanager
async def running(tinyproxy: str, folder: Path, host: str, upstream: ForwardProxy) -> AsyncIterator[str]:
    """The URL of Debian's proxy, which asks `upstream` for what ends with .test, as no name server knows that."""
    async with listening(lambda reader, writer: asyncio.sleep(0), host=host) as port:
        pass  # it is free now
    configuration = folder / "tinyproxy.conf"
    configuration.write_text(
        f"Port {port}\nListen {host}\nTimeout 60\nMaxClients 100\nLogLevel Info\nBasicAuth night {PASSWORD}\n"
        f'Upstream http 127.0.0.1:{upstream.port} ".test"\n'
    )
    process = await asyncio.create_subprocess_exec(
        tinyproxy, "-d", "-c", str(configuration), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        log = b""
        async with asyncio.timeout(20):
            while b"Accepting connections" not in log:
                line = await process.stdout.readline()
                assert line, log
                log += line
        reading = asyncio.create_task(process.stdout.read())
        yield f"http://night:{PASSWORD}@{host}:{port}"
    finally:
        process.terminate()
        await process.wait()
    await reading


async def test_a_night_goes_out_by_the_proxy_and_nothing_goes_around_it(
    blank: Program, tinyproxy: str, authority: Authority, seaweedfs: S3Server, tmp_path: Path
) -> None:
    bucket = Prefix(seaweedfs, f"network {os.getpid()}/")
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings(rate_limits=(), account_rate_limits=())))
        upstream = await stack.enter_async_context(forward_proxy())
        for name, url in ((API, simulator.api_url), (MEDIA, simulator.media_url), (BUCKET_HOST, seaweedfs.url)):
            port = await stack.enter_async_context(listening(front(url), authority.server))
            upstream.reaches[name] = ("127.0.0.1", port)
        simulator._media.origin = f"https://{MEDIA}"  # what its signed URLs begin with
        here = stack.enter_context(inside())
        proxy = await stack.enter_async_context(running(tinyproxy, tmp_path, here.proxy_host, upstream))
        blank.configure(_configuration(simulator, tmp_path, proxy, authority, seaweedfs, bucket))
        blank.command = (*here.command, *blank.command)
        simulator.set_history({"made": {"from": f"{DAY}T00:00:00Z", "to": f"{NEXT}T00:00:00Z", "calls": 20, "seed": 7,
                                        "seconds": [0.5, 1.5], "voicemails": 0}})  # fmt: skip

        night = await blank("nightly", "--from", DAY, "--to", NEXT, "--format", "json", timeout=100)

        assert night.code == 0, night
        assert (night.document["calls"], night.document["archived"]) == (20, 20)
        assert len(bucket.objects()) >= 20
        assert set(upstream.asked) == {f"{name}:443" for name in (API, MEDIA, BUCKET_HOST)}
        assert '"proxy_configured"' in night.stderr
        assert "addresses of media hosts cannot be checked" in night.stderr
        assert PASSWORD not in night.stdout + night.stderr

        asked = len(upstream.asked)
        doctor = await blank("doctor", "--json", environment={"ARCHIVER_NETWORK__PROXY": ""})
        assert doctor.code == 3, "without the proxy nothing is reached"
        failed = {finding["check"] for finding in doctor.document["findings"] if finding["verdict"] == "failure"}
        assert failed >= {"store", "bot bot: API"}
        assert len(upstream.asked) == asked


def _configuration(
    simulator: Simulator, folder: Path, proxy: str, authority: Authority, server: S3Server, bucket: Prefix
) -> dict[str, Any]:
    data: dict[str, Any] = settings_data(simulator, f"embedded:{folder / 'postgres'}", folder)
    data["bots"][0] |= {
        "host": f"https://{API}",
        "media_hosts": [MEDIA],
        "account_id": simulator.settings.account_id,
        "account_rate_limits": ["60000/minute"],
    }
    data["storage"]["url"] = f"s3://{BUCKET}/{bucket.prefix}"
    data["storage.s3"] = {**server.keys, "endpoint": f"https://{BUCKET_HOST}"}
    data["network"] = {"proxy": proxy, "ca_bundle": str(authority.file)}
    return data
