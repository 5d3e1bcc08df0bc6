"""What is in force and where it came from: each key with its value as a configuration writes it, secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from archiver.config.loading import Keys, Loaded
from archiver.config.path_template import PathTemplate
from archiver.config.values import RateLimit, existing_part, parse_size, size_or_none
from archiver.observe.redact import MASK, redact

_HARMLESS = frozenset({
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "database", "dbname", "gsslib", "host",
    "keepalives", "krbsrvname", "options", "passfile", "port", "service", "sslcert", "sslcrl", "sslkey", "sslmode", "sslrootcert",
    "target_session_attrs", "user",
})  # fmt: skip
"""Parameters of a Postgres URL that hold no secret. Of all others the value is masked, whatever they are called."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_SIZE_PARSERS = (parse_size, size_or_none)
_SIZES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


@dataclass(frozen=True)
class Shown:
    """One key. `section` and `name` as the file has them; `value` as it is written there: text, a number, a list, a table.
    `source`: `default`, the variable, or `FILE:LINE`; without the line where it is not sure which it is.
    """

    section: str
    name: str
    value: Any
    source: str

    @property
    def key(self) -> str:
        """All that leads to it: `bots[0].name`."""
        return f"{self.section}.{self.name}"


def show(loaded: Loaded) -> Iterator[Shown]:
    """Every key, section by section, in the order of the settings."""
    lines = _lines(loaded.path) if loaded.path is not None else {}
    for keys, field, value in _leaves(loaded.settings, ()):
        yield Shown(_section(keys[:-1]), keys[-1], _written(value, keys, field), _source(keys, loaded, lines))


def masked_url(url: str) -> str:
    """A URL without its password and without each parameter that may be a secret."""
    head, mark, query = url.partition("?")
    scheme, slashes, rest = head.partition("://")
    place, slash, path = rest.partition("/")
    login, at, host = place.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        head = f"{scheme}{slashes}{redact(user)}{colon}{MASK if colon else ''}@{host}{slash}{path}"
    if mark:
        pairs = parse_qsl(query, keep_blank_values=True)
        harmless = ((quote(name), quote(redact(value), safe="/:[]") if name in _HARMLESS else MASK) for name, value in pairs)
        query = "&".join(f"{name}={value}" for name, value in harmless)
    return redact(head) + mark + query


def masked_path(url: str) -> str:
    """A URL whose path is a secret, as chats have it."""
    scheme, slashes, rest = url.partition("://")
    host, slash, _ = rest.partition("/")
    return f"{scheme}{slashes}{redact(host)}{f'/{MASK}' if slash else ''}"


def as_toml(shown: Iterator[Shown]) -> Iterator[str]:
    """Line by line what a configuration would have to say, but for the masks; each key with its source in a comment."""
    section = None
    for each in shown:
        if each.section != section:
            if section is not None:
                yield ""
            section = each.section
            yield f"[[{section.partition('[')[0]}]]" if section.endswith("]") else f"[{section}]"
        yield f"{each.name} = {_toml(each.value)}  # {_one_line(each.source)}"


def _leaves(section: BaseModel, keys: Keys) -> Iterator[tuple[Keys, FieldInfo, Any]]:
    """The keys of a section, then those of the sections in it: so TOML wants it."""
    below: list[tuple[Keys, BaseModel]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not keys and name == "source":
            continue
        if isinstance(value, BaseModel):
            below.append(((*keys, name), value))
        elif name == "bots" and not keys:
            below += [((name, str(number)), bot) for number, bot in enumerate(value)]
        else:
            yield (*keys, name), field, value
    for under, item in below:
        yield from _leaves(item, under)


def _section(keys: Keys) -> str:
    return "".join(f"[{key}]" if key.isdigit() else f".{key}" for key in keys).lstrip(".")


def _written(value: Any, keys: Keys, field: FieldInfo) -> Any:
    name = keys[-1]
    match value:
        case None:
            return ""
        case SecretStr():
            return _masked(value.get_secret_value(), keys)
        case timedelta():
            return _duration(value)
        case bool() | float():
            return value
        case int():
            return _size(value) if any(getattr(each, "func", None) in _SIZE_PARSERS for each in field.metadata) else value
        case RateLimit():
            return str(value)
        case PathTemplate():
            return redact(value.text)
        case tuple() if field.annotation == tuple[tuple[str, str], ...]:
            return {redact(key): redact(item) for key, item in value}
        case tuple():
            return [_written(item, keys, field) for item in value]
        case Path():
            return redact(_as_far_as_it_exists(value) if name.endswith("_file") else str(value))
        case str():
            return masked_url(value) if name.endswith("url") else redact(value)
        case _:
            return value


def _masked(secret: str, keys: Keys) -> str:
    if not secret:
        return ""
    if keys == ("notify", "url"):
        return masked_path(secret)
    return masked_url(secret) if keys[-1].endswith(("url", "proxy")) else MASK


def _as_far_as_it_exists(path: Path) -> str:
    """What does not may be no path, but the secret itself."""
    found = existing_part(path)
    return str(path) if found == path else f"{str(found).rstrip('/')}/{MASK}"


def _duration(value: timedelta) -> str:
    milliseconds = value // timedelta(milliseconds=1)
    for unit, seconds in _UNITS:
        if milliseconds and milliseconds % (1000 * seconds) == 0:
            return f"{milliseconds // (1000 * seconds)}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _size(value: int) -> str | int:
    for unit, size in _SIZES:
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return value


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{_text(key)} = {_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _text(value: str) -> str:
    """A basic string of TOML, which escapes all that no terminal should be sent."""
    return '"' + _one_line(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in text)


def _source(keys: Keys, loaded: Loaded, lines: dict[Keys, int]) -> str:
    for length in range(len(keys), 0, -1):
        if keys[:length] in loaded.from_environment:
            return loaded.from_environment[keys[:length]]
    below = next((name for given, name in loaded.from_environment.items() if given[: len(keys)] == keys), None)
    if below is not None:  # an item of a list, or of a table
        return below
    if keys in loaded.from_file and loaded.path is not None:
        return f"{loaded.path}:{lines[keys]}" if keys in lines else str(loaded.path)
    return "default"


_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")


def _lines(path: Path) -> dict[Keys, int]:
    """The line of each key that stands in one of its own. A text over several lines may look like a key: a file that has any
    gives no line at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return {}
    if '"""' in text or "'''" in text:
        return {}
    found: dict[Keys, int] = {}
    section: Keys = ()
    blocks: dict[Keys, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            names = tuple(header[2].split("."))
            if header[1] == "[[":
                blocks[names] = blocks.get(names, -1) + 1
                names = (*names, str(blocks[names]))
            section = names
        elif key := _KEY.match(line):
            found.setdefault((*section, *(part.strip() for part in key[1].split("."))), number)
    return found
