"""What the program keeps from whoever else is on the same machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from archiver.config import load
from archiver.health.checks import check_embedded
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
STRANGER = 12345


async def test_a_crash_leaves_no_core(blank: Program) -> None:
    blank.command = ("bash", "-c", 'ulimit -S -c hard 2>/dev/null; exec "$@"', "bash", *blank.command)
    simulator = await blank.start("simulate", "--port", "0")
    await simulator.printed("ready")
    limits = Path(f"/proc/{simulator.process.pid}/limits").read_text()  # noqa: ASYNC240
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits


async def test_the_soft_limit_of_open_files_is_none(blank: Program) -> None:
    """A large recording on its way takes three: a thousand of them came to the limit that most shells set."""
    blank.command = ("bash", "-c", 'ulimit -S -n 256; exec "$@"', "bash", *blank.command)
    simulator = await blank.start("simulate", "--port", "0")
    await simulator.printed("ready")
    limits = Path(f"/proc/{simulator.process.pid}/limits").read_text()  # noqa: ASYNC240
    found = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert found, limits
    assert int(found[1]) == min(int(found[2]), 65_536) > 256


async def test_doctor_names_secret_files_that_others_can_read(
    archiver: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    async def told() -> dict[str, tuple[str, str, str]]:
        result = await archiver("doctor", "--json", environment={"PGSERVICEFILE": str(service)})
        assert result.code == 0, "a warning, no failure"
        findings = result.document["findings"]
        return {each["check"]: (each["verdict"], each["message"], each["mend"]) for each in findings if "secret" in each["check"]}

    service, secret = archiver.folder / "pg_service", archiver.folder / "a secret"
    service.write_text("[archiver]\npassword=x\n")
    service.chmod(0o600)
    config = archiver.config
    assert config is not None
    assert await told() == {}
    config.chmod(0o644)
    service.chmod(0o640)
    assert await told() == {
        f"secret file {config}": ("warning", "everybody can read it (url, client_secret)", f"chmod 600 {config}"),
        f"secret file {service}": ("warning", "its group can read it (PGSERVICEFILE)", f"chmod 600 {service}"),
    }
    service.chmod(0o400)
    config.chmod(0o600)
    secret.write_text(simulator.client_secret)
    secret.chmod(0o444)
    bot = {key: value for key, value in data["bots"][0].items() if key != "client_secret"}
    archiver.configure({**data, "bots": [{**bot, "client_secret_file": str(secret)}]})
    assert await told() == {
        f"secret file {secret}": ("warning", "everybody can read it (client_secret_file)", f"chmod 600 '{secret}'")
    }


def test_a_folder_in_which_others_could_replace_the_database_is_named(tmp_path: Path) -> None:
    def named() -> dict[str, str]:
        settings = load(None, {"ARCHIVER_DATABASE__URL": f"embedded:{tmp_path}/a folder/further/pg"})
        return {finding.check: finding.hint for finding in check_embedded(settings) if str(tmp_path) in finding.check}

    folder = tmp_path / "a folder"
    (folder / "further/pg").mkdir(parents=True)
    assert named() == {}
    folder.chmod(0o1777)
    assert named() == {}, "in which nobody can rename what is another's"
    folder.chmod(0o777)
    assert named() == {f"folder {folder}": f"chmod o-w '{folder}'"}


@as_root
async def test_a_strangers_configuration_in_a_folder_of_everybody_is_not_taken(blank: Program) -> None:
    found = blank.folder / "archiver.toml"
    found.write_text("[mine]\n")
    blank.folder.chmod(0o1777)
    assert "unknown key mine" in (await blank("status")).stderr
    os.chown(found, STRANGER, STRANGER)
    (await blank("status")).refused(2, f"{found} belongs to uid {STRANGER}", "--config")
    assert "unknown key mine" in (await blank("--config", "archiver.toml", "status")).stderr
    os.chown(found, 0, 0)
    found.rename(blank.folder / "ours.toml")
    found.symlink_to("ours.toml")
    assert "unknown key mine" in (await blank("status")).stderr
    os.chown(found, STRANGER, STRANGER, follow_symlinks=False)
    (await blank("status")).refused(2, f"{found} belongs to uid {STRANGER}", "--config")
    blank.folder.chmod(0o755)
    assert "unknown key mine" in (await blank("status")).stderr


@as_root
async def test_a_demo_in_a_strangers_folder_is_refused(blank: Program) -> None:
    folder = blank.folder / "demo"
    folder.mkdir()
    (folder / ".archiver-demo").touch()
    os.chown(folder, STRANGER, STRANGER)
    (await blank("demo", "--directory", "demo")).refused(2, f"demo belongs to uid {STRANGER}", "--directory")
    assert [path.name for path in folder.iterdir()] == [".archiver-demo"]
