"""What is wrong with a configuration, in a line a mistake: the key, its value unless that is secret, where it came from, and what
must be there.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from archiver.config.bots import UNSIGNED
from archiver.config.settings import Settings
from archiver.config.values import without_user

SECRETS = ("client_secret", "secret_access_key", "session_token", "account_key", "sas_token", "secret")
"""Keys whose values are never shown."""

SHOWN = 200
"""Characters of a wrong value that are shown."""

Location = tuple[str, ...]
Origins = Mapping[Location, str]
"""Of keys that came from the environment, the variable."""


def explain(error: ValidationError, data: Mapping[str, Any], came_from: Origins) -> list[str]:
    """Every mistake in `data`, each once."""
    lines = [_explained(item, came_from) for item in error.errors(include_url=False)]
    missing = {item["loc"][1] for item in error.errors() if item["type"] == "missing" and item["loc"][0] == "bots"}
    bots = data.get("bots")
    for number, bot in enumerate(bots if isinstance(bots, list) else ()):
        # Whether there is a secret is looked at only once the rest is right: who fills in a block wants to hear of it now.
        if number in missing and not any(bot.get(key) for key in ("client_secret", "client_secret_file", "private_key_file")):
            lines.append(f"bots[{number}]: {UNSIGNED}")
    return list(dict.fromkeys(lines))


def shown(value: object) -> str:
    """A wrong value as a configuration has it, cut to `SHOWN` characters."""
    match value:
        case bool() | int() | str():
            text = json.dumps(value, ensure_ascii=False)
        case float():
            text = json.dumps(value) if math.isfinite(value) else str(value)
        case _:
            text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _explained(item: Any, came_from: Origins) -> str:
    location = tuple(str(part) for part in item["loc"])
    key = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in location).lstrip(".")
    # A misspelt section stands in the variables of all its keys.
    variables = [name for keys, name in came_from.items() if keys[: len(location)] == location] if location else []
    origin = f" (from {', '.join(variables)})" if variables else ""
    field = _field(location)
    match item["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{origin}{_meant(location)}"
        case "missing":
            return f"{key} is missing" + (f": must be {field.description}" if field is not None and field.description else "")
        case "value_error":
            must = str(item["msg"]).removeprefix("Value error, ")
        case kind:
            must = _must_be(kind, location, field) or str(item["msg"])
    if not key:
        return must
    value = item["input"]
    secret = (
        location[-1] in (*SECRETS, "proxy")
        or location == ("notify", "url")
        or (location[0] == "database" and location[-1] != "keep_history")
    )
    # Of a section that is none it is not known what its value is; a secret may be in it.
    hidden = secret or item["type"] == "model_type" or isinstance(value, dict | list | tuple | BaseModel)
    if isinstance(value, str):
        # Whoever writes a secret itself into the key of its file is not to read it in a log.
        hidden = hidden or location[-1].endswith("_file")
        value = without_user(value)
    return f"{key}{'' if hidden else f' = {shown(value)}'}{origin}: {must}"


def _must_be(kind: str, location: Location, field: FieldInfo | None) -> str:
    """In place of pydantic's own words, which speak of types and inputs; empty where nobody foresaw this kind of mistake."""
    key = location[-1] if location else ""
    described = field.description if field is not None else None
    match kind:
        case "model_type" | "model_attributes_type":
            return "must be a section of keys, not a plain value"
        case "tuple_type" if key == "bots":
            return "must be a list, with a block [[bots]] for each bot"
        case "tuple_type":
            return 'must be a list, such as ["..."]'
        case "literal_error" if field is not None:
            *others, last = [f'"{each}"' for each in get_args(field.annotation)]
            return f"must be {', '.join(others)} or {last}"
        case "string_type" | "string_pattern_mismatch" | "string_too_short" if described:
            return f"must be {described}"
        case "string_type":
            return "must be text, in quotes"
        case "path_type":
            return "must be the path of a file, in quotes"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
    if field is not None and field.annotation in (int, float):
        return f"must be {'a whole number' if field.annotation is int else 'a number'}{_range(field)}"
    return ""


def _range(field: FieldInfo) -> str:
    least = [each.ge for each in field.metadata if hasattr(each, "ge")]
    most = [each.le for each in field.metadata if hasattr(each, "le")]
    return f" from {least[0]} to {most[0]}" if least and most else ""


def _meant(location: Location) -> str:
    """What somebody may have meant who wrote this unknown key."""
    siblings = list(_siblings(location[:-1]))
    elsewhere = [name for name, key in _everything(Settings) if key == location[-1]]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    if near := difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.6):
        return f"; did you mean {near[0]}?"
    section = ".".join(takewhile(lambda part: not part.isdigit(), location[:-1]))
    return f"; {f'the keys of {section}' if section else 'the sections'} are {', '.join(siblings)}" if siblings else ""


def _everything(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Every key, with all that leads to it, and alone."""
    for name, field in model.model_fields.items():
        if name == "source":
            continue
        yield f"{path}{name}", name
        for below in _models(field):
            yield from _everything(below, f"{path}{name}[N]." if name == "bots" else f"{path}{name}.")


def _models(field: FieldInfo) -> Sequence[type[BaseModel]]:
    candidates = (field.annotation, *get_args(field.annotation))
    return [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]


def _section(location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] = Settings
    for part in location:
        if part.isdigit():
            continue
        below = _models(model.model_fields[part]) if part in model.model_fields else ()
        if not below:
            return None
        model = below[0]
    return model


def _field(location: Location) -> FieldInfo | None:
    """The key that a mistake is in; of an item of a list, the list's."""
    names = [part for part in location if not part.isdigit()]
    section = _section(tuple(names[:-1])) if names else None
    return section.model_fields.get(names[-1]) if section is not None else None


def _siblings(location: Location) -> Iterator[str]:
    """The keys that stand where a misspelt one was found."""
    section = _section(location)
    if section is not None:
        yield from (name for name in section.model_fields if name != "source")
