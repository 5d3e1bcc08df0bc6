"""How mistakes are told: every key, whatever is wrong with it, in words of ours that say what must be there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from archiver.config import Settings, load
from archiver.config.mistakes import SECRETS
from archiver.errors import ConfigError

PYDANTICS = re.compile(
    r"(?i)input should|valid (string|integer|number|boolean|dict|tuple|list)|field required|not permitted|pattern|got \w"
)
PYTHONS = re.compile(r"= '|\bTrue\b|\bFalse\b|\bNone\b|\(\)|datetime|Path\(")

BOT = {"name": "a", "bot_id": "st-1", "client_id": "cs-1", "client_secret": "quite-particular-0"}
DATABASE = {"url": "postgresql://h/d"}
DAY = tomllib.loads("day = 2026-11-28")["day"]
WRONG: tuple[Any, ...] = (7, -1.5, True, "", "no such thing \u00e9", [], ["\u00e9 /"], [7], {}, {"x": 1}, DAY)


def keys(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key."""
    found = []
    for name, field in model.model_fields.items():
        candidates = (field.annotation, *get_args(field.annotation))
        below = [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]
        if name != "source":
            found += keys(below[0], (*path, name)) if below else [(*path, name)]
    return found


def told(tmp_path: Path, data: dict[str, Any]) -> str | None:
    """What is said of this configuration; None: it is right."""
    path = tmp_path / "archiver.toml"
    path.write_text(toml(data), encoding="utf-8")
    try:
        load(path, {})
    except ConfigError as caught:
        error = caught
    else:
        return None
    assert error.hint
    assert "config.example" not in error.hint
    return error.message.removeprefix(f"{path}: ")


def toml(value: Any) -> str:
    """As TOML, inline but for the first level."""
    if isinstance(value, dict):
        return "\n".join(f"{key} = {_inline(item)}" for key, item in value.items())
    raise AssertionError


def _inline(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)


@pytest.mark.parametrize("key", keys(), ids=".".join)
def test_whatever_is_wrong_is_told_with_what_must_be(tmp_path: Path, key: tuple[str, ...]) -> None:
    refused = 0
    for value in WRONG:
        data: dict[str, Any] = {"bots": [dict(BOT)], "database": dict(DATABASE)}
        here: Any = data
        for part in key[:-1]:
            here = here[part][0] if part == "bots" else here.setdefault(part, {})
        here[key[-1]] = value
        message = told(tmp_path, data)
        if message is None:
            continue
        refused += 1
        for line in message.splitlines():
            assert re.search(r"\bmust\b|\bis missing: |exclude each other; leave one", line), line
            assert not PYDANTICS.search(line), line
            assert not PYTHONS.search(line), line
            assert re.search(rf"\b{key[-1]}\b|\b{key[0]}\b", line), line
            if key[-1] in SECRETS:
                assert "no such thing" not in line
    assert refused >= len(WRONG) / 2


@pytest.mark.parametrize(
    ("missing", "where"),
    [
        ("name", 'must be 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit, such as "support-us"; you choose it'),
        ("bot_id", 'must be the ID of the bot, such as "st-...", in quotes: it stands on the platform\'s App Settings page'),
        ("client_id", 'must be the client ID, such as "cs-...", in quotes, of the app that was created for archiver'),
        ("client_secret", "must be the secret that the platform shows with the client ID, or the path of a file that holds it"),
    ],
)
def test_a_missing_field_of_a_bot_is_named_with_where_its_value_is_found(tmp_path: Path, missing: str, where: str) -> None:
    bot = {key: value for key, value in BOT.items() if key != missing}
    message = told(tmp_path, {"bots": [bot], "database": DATABASE})
    assert message is not None
    assert missing in message
    assert "is missing" in message
    assert where in message


def test_an_empty_block_is_told_all_that_it_lacks(tmp_path: Path) -> None:
    """Nobody should have to fill in three fields to hear of the fourth."""
    message = told(tmp_path, {"bots": [{}], "database": DATABASE})
    assert message is not None
    lines = [line.strip() for line in message.splitlines() if line]
    assert [line.split()[0] for line in lines] == ["bots[0].name", "bots[0].bot_id", "bots[0].client_id", "bots[0]:"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"worker": {"concurency": 4}}, "unknown key worker.concurency; did you mean concurrency?"),
        ({"worker": {"max_buffer": "1GiB"}}, "unknown key worker.max_buffer; did you mean transfer.max_buffer?"),
        ({"client_id": "x"}, "unknown key client_id; did you mean bots[N].client_id?"),
        ({"storage": {"part_size": "8MiB"}}, "did you mean storage.s3.part_size or storage.azure.part_size?"),
        ({"s3": {"region": "x"}}, "unknown key s3; did you mean storage.s3?"),
        ({"log": {"nope": 1}}, "unknown key log.nope; the keys of log are level, format"),
        ({"nope": 1}, "unknown key nope; the sections are database, bots, storage,"),
        ({"log": {"level": {"x": 1}}}, 'log.level: must be "debug", "info", "warning" or "error"'),
        ({"worker": {"lease_seconds": "long"}}, 'worker.lease_seconds = "long": must be a number from 1 to 3600'),
        ({"bots": [BOT | {"shorter_is_fine": "perhaps"}]}, 'bots[0].shorter_is_fine = "perhaps": must be true or false'),
        ({"bots": [BOT | {"client_secret_file": 7}]}, "bots[0].client_secret_file = 7: must be the path of a file, in quotes"),
        ({"bots": [BOT | {"media_hosts": 7}]}, 'bots[0].media_hosts = 7: must be a list, such as ["..."]'),
        ({"bots": [BOT | {"time_zone": "CEST"}]}, 'must be the name of an IANA time zone, such as "Europe/Berlin"'),
    ],
)  # fmt: skip
def test_what_was_meant_is_said(tmp_path: Path, data: dict[str, Any], line: str) -> None:
    message = told(tmp_path, {"database": DATABASE} | data)
    assert message is not None
    assert line in message
    assert "\n" not in message


def test_who_needs_the_example_is_told_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "archiver.toml"
    path.write_text("nope = 1")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert "`archiver --config NEW.toml init`" in caught.value.hint


@pytest.mark.parametrize("value", ["http://PARTICULAR@h/", "u:PARTICULAR@x", "https://u:PARTICULAR@h:x"])
@pytest.mark.parametrize("key", keys(), ids=".".join)
def test_what_stands_before_an_at_is_never_shown(tmp_path: Path, key: tuple[str, ...], value: str) -> None:
    for given in (value, [value]):
        data: dict[str, Any] = {"bots": [dict(BOT)], "database": dict(DATABASE)}
        here: Any = data
        for part in key[:-1]:
            here = here[part][0] if part == "bots" else here.setdefault(part, {})
        here[key[-1]] = given
        assert "PARTICULAR" not in (told(tmp_path, data) or "")


@pytest.mark.parametrize("secret", ["PARTICULAR", "a/PARTICULAR/b+=", "PARTICULAR" * 100])
def test_a_secret_in_place_of_its_file_s_path_is_not_shown(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "archiver.toml"
    bot = {**BOT, "client_secret": "", "client_secret_file": secret}
    path.write_text(toml({"bots": [bot], "database": DATABASE}))
    with pytest.raises(ConfigError) as refused:
        load(path, {}).bots[0].signing_key()
    assert "PARTICULAR" not in str(refused.value) + refused.value.hint
    assert "bots.a.client_secret_file" in str(refused.value)
    assert str(tmp_path) in str(refused.value)
