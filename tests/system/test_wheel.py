from __future__ import annotations

import asyncio
import sys
import zipfile

from archiver.simulator.platform import Simulator
from tests.conftest import settings_data
from tests.system.conftest import ROOT, Program


async def _run(*command: str, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_installed_wheel_migrates_and_archives_from_an_empty_folder(blank: Program, simulator: Simulator) -> None:
    wheels, site, empty = blank.folder / "wheels", blank.folder / "site", blank.folder / "empty"
    pip = (sys.executable, "-m", "pip", "--no-cache-dir", "--disable-pip-version-check")
    environment = {**blank.environment, "PIP_NO_INDEX": "1"}
    await _run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels), ".", environment=environment)
    [wheel] = wheels.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    expected = {f"archiver/{path.relative_to(ROOT)}" for path in (ROOT / "migrations").glob("[0-9]*.sql")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "archiver").rglob("*.sql")}
    assert len(expected) > 10
    assert {name for name in names if name.endswith(".sql")} == expected
    assert "archiver/config.example.toml" in names
    assert {"archiver/evidence/FORMAT.md", "archiver/evidence/session-v1.schema.json"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "migrations/"))]
    assert (await asyncio.to_thread(zipfile.ZipFile(wheel).read, "archiver/config.example.toml")) == (
        ROOT / "config.example.toml").read_bytes()  # fmt: skip

    await _run(*pip, "install", "--quiet", "--no-deps", "--target", str(site), str(wheel), environment=environment)
    empty.mkdir()
    blank.folder = empty
    blank.environment["PYTHONPATH"] = str(site)
    where = await _run(sys.executable, "-P", "-c", "import archiver; print(archiver.__file__)", environment=blank.environment)
    assert where.strip() == str(site / "archiver/__init__.py")
    simulator.script({"session_id": "s1"})

    assert (await blank("init")).code == 0
    written, example = (empty / "archiver.toml").read_text(), (ROOT / "config.example.toml").read_text()
    assert written.replace('\nkey_file = "evidence.key"\n', '\nkey_file = ""\n') == example
    (empty / "archiver.toml").unlink()
    data = settings_data(simulator, "embedded:database", empty / "store")
    blank.configure(data)
    assert (await blank("migrate")).stdout.startswith("applied 0001_queue\n")
    assert (await blank("enqueue", "s1")).code == 0
    drained = await blank("worker", "--drain")
    assert drained.code == 0, drained
    verified = await blank("verify", "--json")
    assert (verified.code, verified.document["equal"]) == (0, 1)
    assert not (ROOT / "archiver/migrations").exists()
