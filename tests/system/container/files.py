"""The container's files, read: the Dockerfile's instructions, what .dockerignore leaves, the services of docker-compose.yml."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PRE_COMMIT: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
GUIDE = (ROOT / "docs" / "container.md").read_text()

SECRETS = "/run/secrets/"
REQUIRED = {"NAME": "support-us", "BOT_ID": "st-1", "CLIENT_ID": "cs-1"}
DOT_ENV = {f"ARCHIVER_BOTS__0__{key}": value for key, value in REQUIRED.items()}
"""What the guide has one write into .env."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments, of the JSON form or not."""
        return list(json.loads(self.text)) if self.text.startswith("[") else self.text.split()


def instructions() -> list[Instruction]:
    """All of the Dockerfile."""
    code = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    lines = (line.strip() for line in re.sub(r"\\\n", " ", code).splitlines())
    return [Instruction(*line.split(None, 1)) for line in lines if line]


def final_stage() -> list[Instruction]:
    """Those that make the image that runs."""
    found = instructions()
    last = max(index for index, instruction in enumerate(found) if instruction.name == "FROM")
    return found[last:]


def last(name: str) -> Instruction:
    """The one that counts of this name in the final stage."""
    return [instruction for instruction in final_stage() if instruction.name == name][-1]


def image_environment() -> dict[str, str]:
    """ENV of the final stage, without PATH."""
    pairs = (word.split("=", 1) for i in final_stage() if i.name == "ENV" for word in i.words)
    return {name: value for name, value in pairs if name != "PATH"}


def copied_sources() -> list[str]:
    """What the Dockerfile copies from the build context."""
    copies = [i.words for i in instructions() if i.name == "COPY" and "--from" not in i.text]
    return [source.rstrip("/") for words in copies for source in words[:-1]]


def _pattern(text: str) -> re.Pattern[str]:
    """A line of .dockerignore: it matches a path or any folder above it."""
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", text.strip("/")):
        expression += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or (
            part if part.startswith("[") else re.escape(part)
        )
    return re.compile(expression + r"(?:/.*)?\Z")


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps this path out of the build: the last line that matches decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and _pattern(line.removeprefix("!")).match(path):
            verdict = not line.startswith("!")
    return verdict


def copy_context(target: Path) -> None:
    """Lay out what the builder stage has copied from the build context."""
    for source in copied_sources():
        found = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for path in found:
            relative = path.relative_to(ROOT)
            if path.is_file() and not ignored(relative.as_posix()):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / relative)


def environment_of(service: str, variables: Mapping[str, str] = DOT_ENV) -> dict[str, str]:
    """A service's environment as Compose resolves it, with these variables set."""

    def resolve(match: re.Match[str]) -> str:
        name, kind, rest = match["name"], match["kind"], match["rest"]
        if variables.get(name):
            return variables[name]
        assert kind == ":-", f"{name} is required: {rest}"
        return rest

    variable = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:[-?])(?P<rest>[^}]*)\}")
    environment = COMPOSE["services"][service]["environment"]
    assert all(isinstance(value, str) for value in environment.values()), "anything else reaches the container as YAML prints it"
    resolved = {key: variable.sub(resolve, value) for key, value in environment.items()}
    assert not any("$" in value for value in resolved.values())
    return resolved
