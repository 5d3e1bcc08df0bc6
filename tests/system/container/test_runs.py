"""The image's life without an engine: what the Dockerfile copies, built, installed with the runtime lock's packages and nothing
else, closed against writing, and run by another user in the environment that docker-compose.yml gives it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from archiver.simulator.platform import Simulator
from tests.conftest import is_recording
from tests.system.container.files import ROOT, SECRETS, copy_context, environment_of, image_environment, last

pytestmark = pytest.mark.once  # the image has one Python

SESSIONS = [f"65e7133a3242653c58d7{number:04}" for number in range(12)]


def _other_user() -> dict[str, Any]:
    """How a subprocess becomes the image's user: root can, and anybody else is no root already."""
    if os.geteuid() != 0:
        return {}
    uid, gid = (int(number) for number in last("USER").text.split(":"))
    return {"user": uid, "group": gid, "extra_groups": []}


def _can(command: list[str], **how: Any) -> bool:
    try:
        return subprocess.run(command, **how, **_other_user(), capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@dataclass(frozen=True)
class Image:
    """A folder like the image's: `lib` and `etc` closed against writing, `volume` and `secrets` as Compose mounts them."""

    folder: Path
    python: Path
    libraries: dict[str, str]

    async def start(self, environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
        """Run `archiver ARGUMENTS...` in this environment and the image's."""
        return await asyncio.create_subprocess_exec(
            self.python,
            *("-S", "-s", "-P", "-m", "archiver", *arguments),
            cwd=self.folder / "etc",
            env={"HOME": "/nonexistent", "PYTHONPATH": str(self.folder / "lib")}
            | self.libraries
            | image_environment()
            | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            **_other_user(),
        )

    async def run(self, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
        """The same to its end: exit code and output."""
        process = await self.start(environment, *arguments)
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return process.returncode, output.decode()

    def closed(self) -> dict[str, tuple[int, int]]:
        """Every file that must stay as it is."""
        paths = [path for part in ("lib", "etc", "python") for path in (self.folder / part).rglob("*")]
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that the other user can get at: this test's own if the clone is open to others, else one that is removed again."""
    for parent in tmp_path.parents:
        if parent.is_relative_to(ROOT) and parent != ROOT and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    if _can(["test", "-x", str(tmp_path)]):
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
            Path(outside).chmod(0o755)
            yield Path(outside)


@pytest.fixture
def image(folder: Path) -> Iterator[Image]:
    """The image, and its secrets and volume for `environment`."""
    _install(folder)
    python, libraries = _interpreter(folder)
    for name, mode in (("etc", 0o755), ("volume", 0o750), ("secrets", 0o755)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    if owner := _other_user():
        os.chown(folder / "volume", owner["user"], owner["group"])
    _chmod(folder, writable=False)
    try:
        yield Image(folder, python, libraries)
    finally:
        _chmod(folder, writable=True)
        for part in ("lib", "python"):
            shutil.rmtree(folder / part, ignore_errors=True)


def _install(folder: Path) -> None:
    """Build the wheel from the build context, and unpack it beside the packages of the runtime lock."""
    copy_context(folder / "context")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=folder / "context", check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "lib")
    for name in re.findall(r"^([\w.-]+)==", (ROOT / "locks" / "runtime.txt").read_text(), re.MULTILINE):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = folder / "lib" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), target)


def _interpreter(folder: Path) -> tuple[Path, dict[str, str]]:
    """This Python without its packages; a copy of it, if it lies where the other user can't get at it."""
    python = Path(os.path.realpath(sys.executable))
    if _can([str(python), "-I", "-S", "-c", "import ssl"], cwd="/"):
        return python, {}
    copied = folder / "python"
    (copied / "bin").mkdir(parents=True)
    shutil.copy2(python, copied / "bin")
    library = Path(sysconfig.get_path("stdlib"))
    unneeded = shutil.ignore_patterns(
        "site-packages", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-*", "turtledemo"
    )
    shutil.copytree(library, copied / "lib" / library.name, ignore=unneeded)
    shared = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("INSTSONAME"))
    if shared.suffix != ".a" and shared.exists():
        shutil.copy2(shared, copied / "lib")
    return copied / "bin" / python.name, {"LD_LIBRARY_PATH": str(copied / "lib")}


def _chmod(folder: Path, *, writable: bool) -> None:
    for part in ("lib", "etc", "python"):
        for path in [folder / part, *(folder / part).rglob("*")]:
            if path.exists() and not path.is_symlink():
                executable = path.is_dir() or path.parent.name == "bin"
                path.chmod((0o555 if executable else 0o444) | (0o200 if writable else 0))


@pytest.fixture
def environment(image: Image, simulator: Simulator, empty_database_url: str) -> dict[str, str]:
    """docker-compose.yml's for the worker; only what lies elsewhere in a test is changed."""
    parts = urlsplit(empty_database_url)
    secrets = {"pg_service": f"[archiver]\npassword={parts.password}\n", "kore_client_secret": f"{simulator.client_secret}\n"}
    for name, text in secrets.items():
        (image.folder / "secrets" / name).write_text(text)
        (image.folder / "secrets" / name).chmod(0o644)
    environment = environment_of("worker")
    url = environment["ARCHIVER_DATABASE__URL"]
    where = f"@{parts.hostname}:{parts.port}{parts.path}?"
    environment = {name: value.replace(SECRETS, f"{image.folder}/secrets/") for name, value in environment.items()}
    return environment | {
        "ARCHIVER_DATABASE__URL": url.replace("@postgres/archiver?", where),
        "ARCHIVER_STORAGE__URL": (image.folder / "volume").as_uri(),
        "ARCHIVER_BOTS__0__HOST": simulator.api_url,
        "ARCHIVER_BOTS__0__BOT_ID": simulator.bot_id,
        "ARCHIVER_BOTS__0__CLIENT_ID": simulator.client_id,
        "ARCHIVER_BOTS__0__RATE_LIMITS": "60000/minute",
        "ARCHIVER_BOTS__0__MEDIA_HOSTS": "127.0.0.1",
    }


async def test_another_user_archives_from_a_read_only_tree(
    image: Image, environment: dict[str, str], simulator: Simulator
) -> None:
    assert not _can(["touch", str(image.folder / "etc" / "x")]), "the tree can be written: nothing would be proven"
    assert _can(["sh", "-c", 'test "$(id -u)" -ne 0']), "still root: nothing would be proven"
    before = image.closed()
    for session in SESSIONS:
        simulator.script({"session_id": session})

    code, output = await image.run(environment, "worker")
    assert (code, "archiver migrate" in output) == (1, True), output
    assert (await image.run(environment, "migrate"))[0] == 0
    code, output = await image.run(environment, "doctor")
    assert code == 0, output
    assert (await image.run(environment, "enqueue", *SESSIONS))[0] == 0
    code, output = await image.run(environment, "healthcheck")
    assert (code, "no worker" in output) == (1, True), output

    worker = await image.start(environment, "worker")
    try:
        assert worker.stdout is not None
        archived = 0
        async with asyncio.timeout(60):
            while archived < len(SESSIONS):
                line = (await worker.stdout.readline()).decode()
                assert line, "the worker ended"
                archived += '"session_archived"' in line
        code, output = await image.run(environment, "healthcheck")
        assert code == 0, output
        worker.send_signal(signal.SIGTERM)
        await asyncio.wait_for(worker.communicate(), 20)
        assert worker.returncode == 143
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.communicate()

    code, output = await image.run(environment, "verify")
    assert (code, f"{len(SESSIONS)} of {len(SESSIONS)} files equal" in output) == (0, True), output
    files = [path for path in (image.folder / "volume").rglob("*") if is_recording(path)]
    assert len(files) == len(SESSIONS)
    assert {path.stat().st_uid for path in files} == {_other_user().get("user", os.geteuid())}
    assert image.closed() == before


async def test_a_worker_that_hangs_is_told_from_one_that_works(image: Image, environment: dict[str, str]) -> None:
    environment = environment | {"ARCHIVER_WORKER__LEASE_SECONDS": "2"}
    assert (await image.run(environment, "migrate"))[0] == 0
    worker = await image.start(environment, "worker")
    try:
        assert worker.stdout is not None
        async with asyncio.timeout(20):
            while b'"worker_started"' not in await worker.stdout.readline():
                assert not worker.stdout.at_eof()
        assert (await image.run(environment, "healthcheck"))[0] == 0
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2.5)
        code, output = await image.run(environment, "healthcheck")
        assert (code, "silent" in output) == (1, True), output
        worker.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while (await image.run(environment, "healthcheck"))[0] != 0:
                pass
    finally:
        worker.kill()
        await worker.communicate()
