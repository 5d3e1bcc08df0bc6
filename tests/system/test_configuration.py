from __future__ import annotations

import copy
import json
import stat
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from archiver.config import load
from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.system.conftest import ROOT, Program, toml

SECRET = "a-secret-that-nobody-may-see-0123456789"

VALID: dict[str, Any] = {
    "database": {"url": "postgresql://archiver@127.0.0.1:1/none"},
    "bots": [{"name": "bot", "host": "https://platform.example", "bot_id": "st-1", "client_id": "cs-1", "client_secret": SECRET}],
    "storage": {"url": "file:///nowhere"},
    "worker": {},
    "retry": {},
}


KEY = '\nkey_file = "evidence.key"\n'


async def test_init_writes_a_private_file_that_loads(blank: Program) -> None:
    result = await blank("init")

    path = blank.folder / "archiver.toml"
    assert (result.code, result.stderr) == (0, "")
    assert "archiver migrate" in result.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [bot.name for bot in load(path, environment={}).bots] == ["support-us"]
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text.replace('\nkey_file = ""\n', KEY) != text


async def test_init_makes_a_key_that_seals(blank: Program) -> None:
    key = blank.folder / "evidence.key"
    result = await blank("init")

    made = SealingKey.load(key)
    assert load(blank.folder / "archiver.toml", environment={}).evidence.key_file == key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert f"wrote evidence.key, which seals what is archived: {made.public.fingerprint}\n" in result.stdout
    assert "keep a copy" in result.stdout


async def test_init_keeps_a_key_that_is_there(blank: Program) -> None:
    made = SealingKey.make(blank.folder / "evidence.key", "mine")
    content = (blank.folder / "evidence.key").read_bytes()
    result = await blank("init")

    assert (result.code, result.stderr) == (0, "")
    assert f"kept evidence.key, which seals what is archived: {made.public.fingerprint}\n" in result.stdout
    assert (blank.folder / "evidence.key").read_bytes() == content


async def test_init_writes_no_configuration_beside_what_is_no_key(blank: Program) -> None:
    (blank.folder / "evidence.key").symlink_to("nowhere")
    (await blank("init")).refused(2, "evidence.key cannot be read: No such file or directory", "ssh-keygen")
    assert [path.name for path in blank.folder.iterdir() if path.name.startswith(("archiver", "evidence"))] == ["evidence.key"]


async def test_init_never_overwrites(blank: Program) -> None:
    path = blank.folder / "archiver.toml"
    path.write_text("# mine\n")
    (await blank("init")).refused(2, "archiver.toml exists already", "--config")
    assert path.read_text() == "# mine\n"


async def test_init_writes_where_it_is_told(blank: Program) -> None:
    assert (await blank("--config", "a.toml", "init")).code == 0
    assert (await blank("init", environment={"ARCHIVER_CONFIG": "b.toml"})).code == 0
    assert (blank.folder / "a.toml").read_bytes() == (blank.folder / "b.toml").read_bytes()
    (await blank("--config", "no/such/folder/c.toml", "init")).refused(2, "no/such/folder/c.toml cannot be written")


async def test_without_any_configuration_it_works_in_the_users_own_folders_and_says_so(blank: Program) -> None:
    first = await blank("enqueue", "--bot", "mine", "a", "b", "--json")

    assert first.code == 0
    assert first.document == {"new": 2, "known": 0, "raised": 0, "rejected": []}
    database = blank.folder / "home/data/archiver/postgres"
    assert f"embedded database in {database}" in first.stderr
    assert f"the store {blank.folder / 'archive'}" in first.stderr
    assert database.is_dir()

    second = await blank("status", "--json")
    assert second.document["bots"]["mine"]["sessions"]["pending"] == 2
    (await blank("worker", "--drain")).refused(2, "no bot is configured", "[[bots]]")


async def test_a_configuration_in_the_users_own_folder_or_in_the_working_directory_is_found(blank: Program) -> None:
    home = blank.folder / "home/config/archiver"
    home.mkdir(parents=True)
    (home / "archiver.toml").write_text("[users_own]\n")
    assert "users_own" in (await blank("status")).stderr
    (blank.folder / "archiver.toml").write_text("[working_directorys]\n")
    assert "working_directorys" in (await blank("status")).stderr
    (blank.folder / "named.toml").write_text("[named]\n")
    assert "unknown key named" in (await blank("status", environment={"ARCHIVER_CONFIG": "named.toml"})).stderr


async def test_a_configuration_that_is_not_there_is_named(blank: Program) -> None:
    (await blank("--config", "nowhere.toml", "status")).refused(2, "nowhere.toml: No such file", "archiver init")
    (await blank("status", environment={"ARCHIVER_CONFIG": "gone.toml"})).refused(2, "gone.toml: No such file")


def _mistakes() -> dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]]:
    def bot(**changes: Any) -> Callable[[dict[str, Any]], object]:
        return lambda data: data["bots"][0].update(changes)

    def section(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
        return lambda data: data[name].update(changes)

    return {
        "a misspelt key": (section("worker", concurency=4), ["unknown key worker.concurency", "did you mean concurrency?"]),
        "a misspelt section": (lambda d: d.update(worke={"concurrency": 3}), ["unknown key worke", "did you mean worker?"]),
        "a wrong type": (section("worker", concurrency="many"), ['worker.concurrency = "many"', "must be a whole number"]),
        "a number out of range": (
            section("worker", lease_seconds=0),
            ["worker.lease_seconds = 0", "must be a number from 1 to 3600"],
        ),
        "a wrong duration": (section("retry", backoff_base="2 weeks"), ['retry.backoff_base = "2 weeks"', "500ms"]),
        "a wrong rate limit": (bot(rate_limits=["60/fortnight"]), ['bots[0].rate_limits[0] = "60/fortnight"', "60/minute"]),
        "a wrong algorithm": (bot(algorithm="none"), ['bots[0].algorithm = "none"', "HS256"]),
        "a missing key": (lambda d: d["bots"][0].pop("bot_id"), ["bots[0].bot_id is missing"]),
        "a missing secret": (
            lambda d: d["bots"][0].pop("client_secret"),
            ["bots[0]", "client_secret or client_secret_file is missing"],
        ),
        "two secrets": (bot(client_secret_file="secret"), ["bots[0]", "client_secret and client_secret_file"]),
        "a secret of a wrong type": (bot(client_secret=[SECRET]), ["bots[0].client_secret", "must be text"]),
        "a missing secret file": (
            bot(client_secret="", client_secret_file="no-such-file"),
            ["bots.bot.client_secret_file: must be the path of a file that holds the secret: No such file below "],
        ),
        "a missing private key": (bot(algorithm="RS256"), ["private_key_file is missing", "RS256"]),
        "two bots of one name": (lambda d: d["bots"].append(d["bots"][0]), ['two bots are called "bot"']),
        "a plain http host": (bot(host="http://platform.example"), ['bots[0].host = "http://platform.example"', "https://"]),
        "a media host with a scheme": (bot(media_hosts=["https://x.example"]), ["bots[0].media_hosts", "without scheme"]),
        "a path without {file_name}": (
            section("storage", path="{session_id}/{kind}"),
            ["storage.path", "must contain {file_name}"],
        ),
        "another path field": (section("storage", path="{agent}/{file_name}"), ["storage.path", "{agent} is none"]),
        "a store of no kind": (section("storage", url="ftp://x/y"), ['storage.url = "ftp://x/y"', "file:///"]),
        "a database of no kind": (section("database", url="mysql://x/y"), ["database.url", "postgresql://", "embedded:PATH"]),
        "a wrong log level": (lambda d: d.update(log={"level": "loud"}), ['log.level = "loud"', "debug"]),
    }


@pytest.mark.parametrize("mistake", _mistakes())
async def test_a_mistake_in_the_file_is_told_in_one_line_by_key_and_value(blank: Program, mistake: str) -> None:
    change, words = _mistakes()[mistake]
    data = copy.deepcopy(VALID)
    change(data)
    blank.configure(data)

    result = await blank("status")

    result.refused(2, *words)
    assert SECRET not in result.stderr
    assert len(result.stderr.splitlines()) == 2, result.stderr  # the complaint and the next step


async def test_all_mistakes_are_told_together(blank: Program) -> None:
    data = copy.deepcopy(VALID)
    data["worker"] = {"concurrency": 0, "leese": 1}
    data["retry"] = {"max_attempts": "x"}
    blank.configure(data)

    result = await blank("status")

    result.refused(2, "worker.concurrency = 0", "unknown key worker.leese", 'retry.max_attempts = "x"')
    assert len(result.stderr.splitlines()) == 5


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ARCHIVER_WORKER__CONCURRENCY", "many", ['worker.concurrency = "many"', "ARCHIVER_WORKER__CONCURRENCY"]),
        ("ARCHIVER_WORKER__CONCURENCY", "4", ["unknown key worker.concurency", "ARCHIVER_WORKER__CONCURENCY"]),
        ("ARCHIVER_BOTS__0__ALGORITHM", "RS1", ['bots[0].algorithm = "RS1"', "ARCHIVER_BOTS__0__ALGORITHM"]),
        ("ARCHIVER_BOTS__7__NAME", "x", ["ARCHIVER_BOTS__7__NAME", "from 0 to 1"]),
        ("ARCHIVER_DATABASE__URL", f"mysql://u:{SECRET}@h/d", ["database.url", "ARCHIVER_DATABASE__URL"]),
    ],
)
async def test_a_mistake_in_the_environment_is_told_by_its_variable(
    blank: Program, variable: str, value: str, words: list[str]
) -> None:
    blank.configure(VALID)
    result = await blank("status", environment={variable: value})
    result.refused(2, *words)
    assert SECRET not in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[database\n", ["not valid TOML", "line 1"]),
        (b'[database]\nurl = "\xff\xfe"\n', ["not UTF-8 at byte"]),
        (b"database = 3\n", ["database"]),
        (b"bots = 3\n", ["bots"]),
        (b'bots = ["x"]\n', ["bots[0]"]),
        (b'source = "x"\n', ["unknown key source"]),
    ],
)
async def test_a_file_that_is_no_configuration_is_refused(blank: Program, content: bytes, words: list[str]) -> None:
    blank.config = blank.folder / "odd.toml"
    blank.config.write_bytes(content)
    (await blank("status")).refused(2, "odd.toml", *words)


async def test_a_secret_from_a_file_or_the_environment_serves(
    archiver: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    simulator.script({"session_id": "s1"})
    (archiver.folder / "secret").write_text(data["bots"][0].pop("client_secret") + "\n")
    data["bots"][0]["client_secret_file"] = "secret"
    archiver.configure(data)
    assert (await archiver("enqueue", "s1")).code == 0
    drained = await archiver("worker", "--drain", environment={"ARCHIVER_WORKER__CONCURRENCY": "3"})
    assert drained.code == 0
    assert '"concurrency": 3' in drained.stderr
    assert simulator.client_secret not in drained.stderr


def test_the_tests_own_toml_is_toml(data: dict[str, Any]) -> None:
    assert json.dumps(tomllib.loads(toml(data))) == json.dumps(data)
