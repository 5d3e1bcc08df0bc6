"""What a build or `docker compose config` would find, found without an engine; and what neither would notice."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from archiver.cli.app import COMMANDS
from archiver.config import Settings, load, parse_duration
from archiver.errors import ConfigError
from tests.system.container.files import (
    COMPOSE,
    DOCKERFILE,
    DOT_ENV,
    GUIDE,
    PRE_COMMIT,
    ROOT,
    SECRETS,
    copied_sources,
    environment_of,
    final_stage,
    ignored,
    image_environment,
    instructions,
    last,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKER = SERVICES["worker"]
OURS = ("worker", "migrate")


def _settings(environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of this environment alone, its secrets being files in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    for name in COMPOSE["secrets"]:
        (folder / name).write_text(f"secret {name}\n")
    return load(environment={key: value.replace(SECRETS, f"{folder}/") for key, value in environment.items()})


# --- Dockerfile


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    assert {"archiver", "migrations", "pyproject.toml", "locks/runtime.txt", "locks/build.txt"} <= set(copied_sources())
    for source in copied_sources():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert not ignored("archiver/queue/sql/claim/sessions.sql")


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "archiver-demo/archiver.toml",
        "archiver.toml",
        "archiver/__pycache__/errors.cpython-313.pyc",
        "docker-compose.yml",
        "secrets/kore_client_secret",
        "tests/conftest.py",
    ],
)
def test_the_rest_does_not(path: str) -> None:
    assert ignored(path)


def test_the_base_is_a_python_that_is_promised() -> None:
    (base,) = [i.text.removeprefix("PYTHON_IMAGE=") for i in instructions() if i.name == "ARG" and "PYTHON_IMAGE" in i.text]
    match = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert match
    assert f"Programming Language :: Python :: {match[1]}" in PROJECT["classifiers"]
    assert {i.words[0] for i in instructions() if i.name == "FROM"} == {"${PYTHON_IMAGE}"}


def test_nothing_unlocked_is_installed() -> None:
    runs = [command for i in instructions() if i.name == "RUN" for command in i.text.split("&&")]
    installs = [command for command in runs if re.search(r"\bpip\b.* (install|wheel)\b", command)]
    assert len(installs) == 4
    for command in installs:
        assert {"--require-hashes", "--only-binary=:all:"} <= set(command.split()) or "--no-index" in command.split(), command
    for lock in ("runtime", "build"):
        text = (ROOT / "locks" / f"{lock}.txt").read_text()
        assert "://" not in text
        requirements = re.split(r"\n(?=\S)", text.strip())
        assert all("==" in requirement and "--hash=sha256:" in requirement for requirement in requirements)
    dev = (ROOT / "locks" / "dev.txt").read_text()
    assert all(line in dev for line in (ROOT / "locks" / "build.txt").read_text().splitlines()), "renew them together: make lock"
    assert not re.search(r"apt-get|apk |curl|wget|gcc|ADD ", DOCKERFILE)


def test_the_build_lock_holds_what_builds_the_project() -> None:
    locked = {match[1] for match in re.finditer(r"^([\w.-]+)==", (ROOT / "locks" / "build.txt").read_text(), re.MULTILINE)}
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=!~ ]", requirement)[0] for requirement in system} <= locked


def test_it_runs_as_nobody_in_particular() -> None:
    uid, gid = last("USER").text.split(":")
    assert int(uid) >= 10000
    assert int(gid) >= 10000
    made = next(i.text for i in final_stage() if i.name == "RUN")
    assert f"install -d -o {uid} -g {gid} -m 0750 /var/lib/archiver" in made, "a new volume takes over owner and mode"
    assert final_stage().index(last("USER")) > max(n for n, i in enumerate(final_stage()) if i.name in ("RUN", "COPY"))


def test_it_starts_stops_and_is_looked_after() -> None:
    assert last("ENTRYPOINT").words == ["archiver"]
    assert "archiver" in PROJECT["scripts"]
    assert last("CMD").words == ["worker"]
    assert last("STOPSIGNAL").text == "SIGTERM"
    options, _, command = last("HEALTHCHECK").text.partition(" CMD ")
    assert command == '["archiver", "healthcheck"]'
    assert {"worker", "healthcheck", "migrate"} <= COMMANDS.keys()
    given = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    assert given.keys() == {"interval", "timeout", "start-period", "retries"}
    # Connecting may take 10 s: the command should get to say why it fails.
    assert 10 < parse_duration(given["timeout"]).total_seconds() <= parse_duration(given["interval"]).total_seconds()
    assert image_environment() == {"PYTHONDONTWRITEBYTECODE": "1"}


def test_a_volume_is_asked_for_not_made() -> None:
    assert not any(i.name == "VOLUME" for i in instructions())


# --- docker-compose.yml


@pytest.mark.parametrize("service", OURS)
def test_every_key_is_a_key_of_the_configuration(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(service)
    assert all(key.startswith("ARCHIVER_") and "__" in key for key in environment if key != "PGSERVICEFILE")
    settings = _settings(environment, tmp_path, monkeypatch)
    assert settings.source == "environment"
    assert settings.bots[0].signing_key() == "secret kore_client_secret"
    assert settings.worker == Settings.model_validate({"database": {"url": "embedded:x"}, "storage": {"url": "file:///x"}}).worker


def test_a_misspelt_key_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown key worker\.concurency"):
        _settings(environment_of("worker") | {"ARCHIVER_WORKER__CONCURENCY": "1"}, tmp_path, monkeypatch)


def test_what_is_set_in_dot_env_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = DOT_ENV | {"ARCHIVER_WORKER__CONCURRENCY": "3", "ARCHIVER_BOTS__0__RATE_LIMITS": "5/minute"}
    settings = _settings(environment_of("worker", given), tmp_path, monkeypatch)
    assert (settings.worker.concurrency, (settings.bots[0].rate_limits or ())[0].calls) == (3, 5)
    for name in DOT_ENV:
        with pytest.raises(AssertionError, match=f"{name} is required"):
            environment_of("worker", {key: value for key, value in DOT_ENV.items() if key != name})


def test_the_grace_to_stop_is_longer_than_the_grace_to_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grace = parse_duration(WORKER["stop_grace_period"]).total_seconds()
    example = tomllib.loads((ROOT / "config.example.toml").read_text())["worker"]["drain_grace_seconds"]
    ours = _settings(environment_of("worker"), tmp_path, monkeypatch).worker.drain_grace_seconds
    # Then come the handing back, the farewell and the closing of the connections, 5 s each at the most.
    assert grace >= max(example, ours) + 15


@pytest.mark.parametrize("service", OURS)
def test_the_container_can_do_little(service: str) -> None:
    options = SERVICES[service]
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in options["tmpfs"]] == ["/tmp"]
    assert options["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert not options.keys() & {"user", "privileged", "cap_add", "ports", "network_mode", "pid"}


def test_workers_can_be_many() -> None:
    assert not WORKER.keys() & {"container_name", "hostname", "ports"}, "the health check knows its worker by its host's name"
    assert WORKER["restart"] == "unless-stopped"
    assert "healthcheck" not in WORKER
    assert "entrypoint" not in WORKER


def test_the_order_of_starting() -> None:
    assert SERVICES["migrate"]["command"] == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert WORKER["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]


def test_recordings_and_rows_outlive_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(environment_of("worker"), tmp_path, monkeypatch)
    assert WORKER["volumes"] == [f"recordings:{settings.storage.folder}"]
    image, version = SERVICES["postgres"]["image"].split(":")
    assert image == "postgres"
    assert int(version) >= 18, "the mount point is that of 18 and later"
    assert SERVICES["postgres"]["volumes"] == ["database:/var/lib/postgresql"]
    assert COMPOSE["volumes"].keys() == {"database", "recordings"}


def test_no_secret_lies_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = _settings(environment_of("worker"), tmp_path, monkeypatch).database.url.get_secret_value()
    assert url == "postgresql://archiver@postgres/archiver?service=archiver&sslmode=disable"
    for name, options in SERVICES.items():
        granted = set(options["secrets"])
        used = {value.removeprefix(SECRETS) for value in options["environment"].values() if value.startswith(SECRETS)}
        assert granted == used, name
        assert all(key.endswith("_FILE") for key in options["environment"] if re.search("SECRET|PASSWORD", key))
    assert COMPOSE["secrets"] == {name: {"file": f"./secrets/{name}"} for name in COMPOSE["secrets"]}
    assert "postgres_password" not in WORKER["secrets"]


def test_that_postgres_has_no_tls_is_said_with_its_reason() -> None:
    """Without it the workers would refuse a server of another host, however near."""
    comment = " ".join(re.findall(r"# (.*)", (ROOT / "docker-compose.yml").read_text().partition("ARCHIVER_DATABASE__URL")[0]))
    assert "No TLS: the network `database` does not leave this machine" in comment
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert "sslmode=disable" in GUIDE


def test_postgres_is_reachable_from_within_alone() -> None:
    assert "ports" not in SERVICES["postgres"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert WORKER["networks"] == ["database", "outside"]


@pytest.mark.parametrize("name", ["Dockerfile", "docker-compose.yml", ".dockerignore", ".pre-commit-config.yaml"])
def test_no_address_but_the_platforms(name: str) -> None:
    addresses = set(re.findall(r"\b(?:https?|git|ssh)://[^\s}\"]+", (ROOT / name).read_text()))
    assert addresses <= {"https://platform.kore.ai"}


# --- .pre-commit-config.yaml


def test_hooks_are_local_and_known_to_make() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [repo["repo"] for repo in PRE_COMMIT["repos"]] == ["local"]
    for hook in PRE_COMMIT["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert "additional_dependencies" not in hook
        command, target = hook["entry"].split()
        assert command == "make"
        assert target in targets


# --- docs/container.md


def test_the_guide_names_what_there_is() -> None:
    for name in [*COMPOSE["secrets"], *DOT_ENV, *COMPOSE["volumes"]]:
        assert name in GUIDE, name
    uid = last("USER").text.split(":")[0]
    assert uid in GUIDE
    assert WORKER["stop_grace_period"].removesuffix("s") + " s" in GUIDE
    for service, command in re.findall(r"docker compose (?:run|exec) (?:--?\w+ )*(\w+) (?:archiver )?(\w+)", GUIDE):
        assert service in SERVICES
        assert service == "postgres" or command in COMMANDS, command
