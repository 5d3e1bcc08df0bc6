"""Reading the configuration: file, environment, defaults; `mistakes` says what is wrong with it."""

from __future__ import annotations

import os
import re
import ssl
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from archiver.config.mistakes import SECRETS, explain
from archiver.config.settings import Settings
from archiver.errors import ConfigError

ENVIRONMENT_PREFIX = "ARCHIVER_"
FILE_NAME = "archiver.toml"

EVERY_KEY = "correct it; `archiver --config NEW.toml init` writes a file that shows every key, with its default"


def find_file(environment: Mapping[str, str]) -> Path | None:
    """The configuration file that applies when none is named: $ARCHIVER_CONFIG, ./archiver.toml, the user's own.

    Raises ConfigError for one that may be anybody's.
    """
    named = environment.get("ARCHIVER_CONFIG")
    if named:
        return Path(named)
    candidates = [Path(FILE_NAME)]
    with suppress(RuntimeError):  # a number that has no name here, as in some containers, and so no home
        candidates.append(platformdirs.user_config_path("archiver") / FILE_NAME)
    for candidate in candidates:
        if candidate.is_file():
            refuse_foreign_file(candidate)
            return candidate
    return None


def _data_folder() -> Path:
    try:
        return platformdirs.user_data_path("archiver")
    except RuntimeError:
        hint = "set database.url, or name a configuration that does with --config"
        raise ConfigError(
            "database.url is not set, and this account has no home folder for an embedded database", hint=hint
        ) from None


def refuse_foreign_file(file: Path) -> None:
    """A file that happens to lie where a command runs, such as in /tmp, decides where secrets and recordings go. So does a link:
    whose it is may have it lead to one of ours, until a moment later.
    """
    folder = file.absolute().parent
    for owner in (file.lstat().st_uid, file.stat().st_uid):
        if owner not in (0, os.geteuid()) and folder.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"{folder / file.name} belongs to uid {owner}, and everybody may write to {folder}",
                hint="if you trust the file, name it with --config; else run archiver in another folder",
            )


Keys = tuple[str, ...]
"""What leads to a key, numbers of bots included: `("bots", "0", "name")`."""


@dataclass(frozen=True)
class Loaded:
    """A valid configuration, and where its keys came from: of those of the environment the variable, and those of the file."""

    settings: Settings
    path: Path | None
    from_environment: Mapping[Keys, str]
    from_file: frozenset[Keys]


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read, merge and check. Raises ConfigError with one line a mistake; secrets are in no message."""
    settings = read(path, environment).settings
    for error in unusable_files(settings):
        raise error
    return settings


def read(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Loaded:
    """The same without a look into the files that the configuration names. Raises ConfigError."""
    environment = os.environ if environment is None else environment
    path = path or find_file(environment)
    data: dict[str, Any] = {}
    base = Path.cwd()
    if path is not None:
        data = _read_toml(path)
        base = path.absolute().parent
    in_file = frozenset(_keys_of(data))
    _anchor(data, base)
    came_from = _overlay(data, environment)
    source = str(path) if path is not None else ("environment" if came_from else "defaults")
    data.setdefault("database", {})
    data.setdefault("storage", {})
    if isinstance(data["database"], dict) and "url" not in data["database"]:
        data["database"]["url"] = f"embedded:{_data_folder() / 'postgres'}"
    if isinstance(data["storage"], dict):
        data["storage"].setdefault("url", (Path.cwd() / "archive").as_uri())
    _anchor(data, Path.cwd())
    if "source" in data:
        raise ConfigError(f"{source}: unknown key source", hint=EVERY_KEY)
    try:
        settings = Settings.model_validate({**data, "source": source})
    except ValidationError as error:
        lines = explain(error, data, came_from)
        raise ConfigError(f"{source}: " + ("\n  " if len(lines) > 1 else "") + "\n  ".join(lines), hint=EVERY_KEY) from None
    return Loaded(settings, path, came_from, in_file)


def unusable_files(settings: Settings) -> Iterator[ConfigError]:
    """What is wrong with the files that hold secrets and certificates, one error a file; each is read now."""
    reads: list[Callable[[], object]] = [bot.signing_key for bot in settings.bots]
    reads += [settings.storage.s3.secret_key, settings.storage.azure.key, settings.storage.azure.sas, settings.notify.key]
    # A context finds out whether the file is one.
    reads.append(lambda: settings.network.add_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
    for look in reads:
        try:
            look()
        except ConfigError as error:
            yield error


def _keys_of(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    """Every key that stands in a file's data."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*keys, name)
            yield from _keys_of(item, (*keys, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _keys_of(item, (*keys, str(number)))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        hint = "correct that line: key = value, texts in quotes; a section begins with [NAME], each bot with [[bots]]"
        raise ConfigError(f"{path}: not valid TOML: {error}", hint=hint) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name another file with --config, or run `archiver init`") from None


_INDEX = re.compile("[0-9]{1,4}")


def _overlay(data: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Lay the environment over the file's data; return which variable each key came from."""
    came_from: dict[tuple[str, ...], str] = {}
    # In the order of their numbers, so that a list grows one by one: 9 before 10.
    for name in sorted(environment, key=lambda name: [(len(part), part) for part in name.split("__")]):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        keys = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        here: Any = data
        for key, following in zip(keys, [*keys[1:], None], strict=True):
            if isinstance(here, list):
                if not _INDEX.fullmatch(key) or int(key) > len(here):
                    raise ConfigError(
                        f'{name}: must have a number from 0 to {len(here)} in place of "{key.upper()}"',
                        hint="a list is numbered from 0, without gaps",
                    )
                index = int(key)
                if index == len(here):
                    here.append({})
                if following is None:
                    here[index] = environment[name]
                else:
                    here = here[index]
            elif isinstance(here, dict):
                if following is None:
                    here[key] = environment[name]
                else:
                    here = here.setdefault(key, [] if _INDEX.fullmatch(following) else {})
            else:
                raise ConfigError(
                    f"{name}: must name a key; {'.'.join(keys)} is below one that has a plain value",
                    hint="correct the name: __ stands between a section and its key",
                )
        came_from[keys] = name
    return came_from


_FILES = (
    "client_secret_file", "private_key_file", "secret_access_key_file", "account_key_file", "sas_token_file", "key_file",
    "secret_file",
)  # fmt: skip
"""Keys, in bots, the sections of buckets, that of the evidence and that of the messages, whose values are paths."""

_URLS = ("url", "proxy")
"""What keys end with whose values may have a password in them."""


def secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Every file that secrets are read from, and what names it or is in it."""
    if settings.source not in ("environment", "defaults"):
        path = Path(settings.source)
        if keys := list(dict.fromkeys(_secrets_in(_read_toml(path)))):
            yield ", ".join(keys), path
    for section in (*settings.bots, settings.storage.s3, settings.storage.azure, settings.evidence, settings.notify):
        for key in _FILES:
            if (file := getattr(section, key, None)) is not None:
                yield key, file
    if (folder := settings.database.embedded_path) is not None:
        yield "of the embedded database", folder / "password"
        yield "of the embedded database", folder / "pg_service.conf"
    for variable in ("PGPASSFILE", "PGSERVICEFILE"):
        if file := os.environ.get(variable):
            yield variable, Path(file)


def _secrets_in(value: Any, key: str = "") -> Iterator[str]:
    """The keys below `value` that hold a secret."""
    match value:
        case dict():
            for name, item in value.items():
                yield from _secrets_in(item, name)
        case list():
            for item in value:
                yield from _secrets_in(item, key)
        case str() if value and (
            key in SECRETS or (key.endswith(("url", "proxy")) and re.search("//[^/@:]*:[^/@]+@|password=", value))
        ):
            yield key


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make paths that are still relative absolute, from `folder`."""

    def anchored(path: str) -> str:
        return str(folder / os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises where there is no such user

    database, storage, bots, network, evidence, notify = (
        data.get(name) for name in ("database", "storage", "bots", "network", "evidence", "notify")
    )
    if isinstance(database, dict) and isinstance(url := database.get("url"), str):
        scheme, _, path = url.partition(":")
        if scheme == "embedded" and path:
            database["url"] = f"embedded:{anchored(path)}"
    buckets = [storage.get("s3"), storage.get("azure")] if isinstance(storage, dict) else []
    for section in [*(bots if isinstance(bots, list) else ()), *buckets, evidence, notify]:
        for key in _FILES:
            if isinstance(section, dict) and isinstance(section.get(key), str) and section[key]:
                section[key] = anchored(section[key])
    if isinstance(network, dict) and isinstance(network.get("ca_bundle"), str) and network["ca_bundle"]:
        network["ca_bundle"] = anchored(network["ca_bundle"])
