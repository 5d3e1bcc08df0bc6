"""A secret of each kind is planted in the configuration, and found in nothing that any command writes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from archiver.cli.app import COMMANDS
from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.conftest import settings_data
from tests.system.conftest import ROOT, Program, toml

DRIVER = """
import json, sys
from archiver.cli import app
from archiver.observe import redact
for line in json.load(sys.stdin):
    redact._known.clear()  # what one command knows as a secret, the next has yet to learn
    print(f"\\n=== {line}", flush=True)
    print(f"\\n=== {line}", file=sys.stderr, flush=True)
    sys.argv = ["archiver", "--log-level", "debug", *line]
    try:
        app.run()
    except SystemExit as ended:
        print(f"\\n--- {line[0]} {ended.code}", file=sys.stderr, flush=True)
"""
"""All commands in one process: each as if it were alone in it, but for the time that imports take."""

ARGUMENTS: Mapping[str, Sequence[Sequence[str]]] = {
    "accept": [["one", "--reason", "test"]],
    "backfill": [["--from", "2026-01-01", "--to", "2026-01-02"]],
    "cancel": [["two", "--reason", "test"]],
    "config": [["check"], ["check", "--json"], ["show"], ["show", "--json"]],
    "demo": [["--directory", "/dev/null"]],
    "discover": [["--from", "2026-01-01", "--to", "2026-01-02"]],
    "doctor": [[], ["--json"]],
    "enqueue": [["--bot", "bot", "one", "two"], ["--bot", "nobody", "one"]],
    "export": [["out", "--all"]],
    "find": [["--caller", "5551234567"]],
    "get": [["one", "--output", "got"]],
    "key": [["rotate", "--new", "next.key"]],
    "list": [[], ["--format", "csv"]],
    "pause": [["--bot", "bot"]],
    "proof": [["one"]],
    "reconcile": [["--from", "2026-01-01", "--to", "2026-01-02"]],
    "repair": [["one"]],
    "resume": [["--all"]],
    "retry": [["one"]],
    "roles": [["--print"]],
    "show": [["one"], ["one", "--json"]],
    "simulate": [["--sessions", "missing"]],
    "status": [[], ["--json"]],
    "store": [["adopt"]],
    "worker": [["--drain", "--max-wait", "0s"]],
}


def lines(names: Sequence[str]) -> list[list[str]]:
    return [[name, *arguments] for name in names for arguments in ARGUMENTS.get(name, [[]])]


class Planted:
    """A configuration in a folder, and what must not be seen of it. The server asks for the database's password."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder = folder
        self.data = data
        self.secrets: dict[str, str] = {}

    def secret(self, name: str) -> str:
        """Another one, of characters that JSON, URLs and shells spell in ways of their own."""
        self.secrets[name] = f"planted+{name.replace('_', '-')}/{base64.b64encode(os.urandom(18)).decode()}"
        return self.secrets[name]

    def file(self, name: str, content: str | None = None) -> str:
        """A file with a secret; what of it must not be seen are its lines."""
        content = self.secret(name) if content is None else content
        self.secrets |= {f"{name}:{number}": line for number, line in enumerate(content.splitlines()) if len(line) > 30}
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    def run(self, commands: list[list[str]]) -> tuple[str, dict[str, set[int]]]:
        """All that was written, to the streams and into files, and the codes that each command ended with."""
        config = self.folder / "archiver.toml"
        config.touch(mode=0o600)
        config.write_text(toml(self.data))
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            input=json.dumps(commands), capture_output=True, text=True, cwd=self.folder, timeout=110, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8",
                 "ARCHIVER_CONFIG": str(config)},
        )  # fmt: skip
        codes: dict[str, set[int]] = {}
        for line in done.stderr.splitlines():
            if line.startswith("--- "):
                _, name, code = line.split()
                codes.setdefault(name, set()).add(int(code))
        assert set(codes) == {line[0] for line in commands}, done.stderr[-3000:]
        planted = {"archiver.toml", "next.key", *(name.partition(":")[0] for name in self.secrets)}
        written = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in planted]
        return "\n".join([done.stdout, done.stderr, *(path.read_text(errors="replace") for path in written)]), codes

    def found_in(self, text: str) -> dict[str, str]:
        """Which secrets are in it, in any spelling, each with the line that it is in."""
        found = {}
        for name, secret in self.secrets.items():
            spellings = {
                secret,
                quote(secret, safe=""),
                quote(secret),
                json.dumps(secret)[1:-1],
                base64.b64encode(secret.encode()).decode(),
            }
            for spelling in spellings:
                if (at := text.find(spelling)) >= 0:
                    found[name] = text[max(0, at - 200) : at + 40]
        return found


@pytest.fixture
def planted(simulator: Simulator, database_url: str, tmp_path: Path) -> Planted:
    data: dict[str, Any] = settings_data(simulator, database_url, tmp_path / "store")
    made = Planted(tmp_path, data)
    made.secrets["password"] = urlsplit(database_url).password or made.secret("password")
    bot = data["bots"][0]
    made.secrets["client_secret"] = bot["client_secret"]
    return made


def _with_everything(planted: Planted) -> None:
    """Every kind of secret that goes with a folder."""
    bot = planted.data["bots"][0]
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    others = {"bot_id": "st-2", "client_id": "cs-2", "client_secret": ""}
    filed = {"name": "filed", "client_secret_file": planted.file("client_secret_file")}
    signed = {"name": "signed", "bot_id": "st-3", "algorithm": "RS256"}
    signed["private_key_file"] = planted.file("private_key", key.decode())
    planted.data["bots"] += [bot | others | filed, bot | others | signed]
    SealingKey.make(planted.folder / "evidence_key", "test")
    planted.data["evidence"] = {"key_file": planted.file("evidence_key", (planted.folder / "evidence_key").read_text())}
    SealingKey.make(planted.folder / "next.key", "next")
    planted.secrets["notify"] = f"whsec_{base64.b64encode(os.urandom(24)).decode()}"
    hook = f"https://127.0.0.1:1/{quote(planted.secret('hook'), safe='')}"
    planted.data["notify"] = {"url": hook, "secret": planted.secrets["notify"]}


ORDER = [
    "migrate", "config", "doctor", "enqueue", "worker", "nightly", "discover", "status", "workers", "show", "list", "find", "get",
    "seal", "proof", "export", "sums", "verify", "audit", "checkpoint", "pause", "resume", "retry", "cancel", "accept", "recount",
]  # fmt: skip


async def test_no_command_that_works_shows_a_secret(planted: Planted, simulator: Simulator) -> None:
    _with_everything(planted)
    simulator.script({"session_id": "one"})
    simulator.script({"session_id": "two", "answers": [{"status": "failed"}]})
    commands = lines([*ORDER, *(name for name in COMMANDS if name not in ORDER)])
    text, codes = await asyncio.to_thread(planted.run, commands)
    assert planted.found_in(text) == {}
    assert set(codes) == set(COMMANDS)
    assert "Traceback" not in text
    worked = {name for name, seen in codes.items() if 0 in seen}
    assert {"migrate", "config", "enqueue", "show", "status", "proof", "export", "verify", "seal", "get", "sums"} <= worked


async def test_no_page_of_a_worker_shows_a_secret_nor_does_its_log_when_its_file_goes_bad(
    planted: Planted, simulator: Simulator, blank: Program
) -> None:
    _with_everything(planted)
    planted.data["metrics"] = {"listen": "127.0.0.1:0"}
    config = blank.configure(planted.data)
    assert (await blank("migrate")).code == 0
    simulator.script({"session_id": "one"})
    assert (await blank("enqueue", "--bot", "bot", "one")).code == 0
    worker = await blank.start("--log-level", "debug", "worker")
    at = await worker.logged("metrics_server_started")
    await worker.logged("session_archived")
    pages = []
    async with aiohttp.ClientSession() as http:
        for path in ("/livez", "/readyz", "/metrics"):
            async with http.get(f"http://{at['host']}:{at['port']}{path}") as response:
                pages.append(await response.text())
    assert all(pages)
    whole = config.read_text()
    for times, bad in enumerate((whole.replace('"', "", 1), whole.replace("client_secret", "client_secert")), 1):
        config.write_text(bad)
        worker.send(signal.SIGHUP)
        await worker.logged("config_reload_failed", times=times)
    worker.send(signal.SIGTERM)
    ended = await worker.ended()
    assert ended.code == 143
    assert planted.found_in("\n".join([*pages, ended.stdout, ended.stderr])) == {}


WAYS = {
    "no database": {"database": {"url": "postgresql://archiver:{}@127.0.0.1:1/none?password={}"}},
    "a proxy that is away": {"network": {"proxy": "http://user:{}@127.0.0.1:1"}},
    "S3": {"storage": {"url": "s3://bucket/prefix"}},
    "an account key": {"storage": {"url": "az://container/prefix"}},
    "a SAS": {"storage": {"url": "az://container/prefix"}},
}
QUICK = ("no database", "S3")


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way in QUICK else pytest.mark.thorough) for way in WAYS])
async def test_no_command_that_fails_shows_a_secret(way: str, planted: Planted) -> None:
    for section, keys in WAYS[way].items():
        filled = {key: value.replace("{}", quote(planted.secret(f"{section}-{key}"), safe="")) for key, value in keys.items()}
        planted.data[section] = planted.data.get(section, {}) | filled
    match way:
        case "S3":
            secrets = {"secret_access_key": planted.secret("s3"), "session_token": planted.secret("session_token")}
            planted.data["storage.s3"] = {"endpoint": "http://127.0.0.1:1", "access_key_id": "AKIAPLANTED", **secrets}
        case "an account key":
            key = base64.b64encode(os.urandom(64)).decode()
            planted.secrets["account_key"] = key
            planted.data["storage.azure"] = {"endpoint": "http://127.0.0.1:1/account", "account_key": key}
        case "a SAS":
            signature = base64.b64encode(os.urandom(32)).decode()
            planted.secrets["sas"] = signature
            token = f"sv=2024-11-04&ss=b&sig={quote(signature, safe='')}"
            planted.data["storage.azure"] = {"endpoint": "http://127.0.0.1:1/account", "sas_token": token}
        case _:
            pass
    names = [*COMMANDS] if way == "no database" else ["config", "doctor", *([] if way in QUICK else ["worker"])]
    text, codes = await asyncio.to_thread(planted.run, lines(names))
    assert planted.found_in(text) == {}
    assert codes["config"] == {0}
    assert any(codes["doctor"]) or "proxy" in way  # what is on this machine is not asked for by a proxy
    assert "Traceback" not in text
