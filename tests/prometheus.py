"""A real Prometheus that scrapes and judges every second."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.programs import installed
from tests.servers import free_ports

ALERTS = Path(__file__).parents[1] / "deploy" / "prometheus" / "alerts.yml"
READY_SECONDS = 20


class Prometheus:
    """What is asked of it."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire, each with the bot or the reason that it names."""
        async with self._http.get(f"{self._url}/api/v1/alerts") as response:
            document: dict[str, Any] = await response.json()
        found = [alert["labels"] for alert in document["data"]["alerts"] if alert["state"] == "firing"]
        return {(labels["alertname"], labels.get("bot") or labels.get("reason", "")) for labels in found}


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """One that scrapes `target`, host:port, as the job of the examples. The alerts are those that ship, but none waits for longer
    than a second, and nothing else of them is changed. It ends with the context.
    """
    (port,) = free_ports(1)
    rules = re.sub(r"^(\s+for: ).*$", r"\g<1>1s", ALERTS.read_text(), flags=re.MULTILINE)
    (folder / "alerts.yml").write_text(rules)
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "kore-archiver", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    process = await asyncio.create_subprocess_exec(
        installed("prometheus", "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            url = f"http://127.0.0.1:{port}"
            async with asyncio.timeout(READY_SECONDS):
                while not await _ready(http, url):
                    assert process.returncode is None, "Prometheus ended at its start"
                    await asyncio.sleep(0.1)
            yield Prometheus(http, url)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ready(http: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientConnectionError):
        async with http.get(f"{url}/-/ready") as response:
            return response.status == 200
    return False
