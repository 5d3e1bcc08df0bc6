"""What a configuration that is read again changes: what can be changed while a worker runs, and what waits for its next start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from archiver.config.bots import BotSettings
from archiver.config.path_template import PathTemplate
from archiver.config.settings import Settings
from archiver.errors import ConfigError

_AT_ONCE = ("worker.concurrency", "log.level")
_NOT_AT_ONCE = ("transfer.max_buffer",)
"""Of a section that is otherwise changed at once: memory that is shared out as long as a worker runs."""


@dataclass(frozen=True)
class Changes:
    """`settings`: those to work with from now on. `changed` and `kept`: the names of keys that are new in it, and of those that
    only a start could change. The names of bots stand for themselves: `bots.support`, or `bots.support.rate_limits`.
    """

    settings: Settings
    changed: list[str]
    kept: list[str]


def changes(running: Settings, read: Settings) -> Changes:
    """What `read` makes of the settings that a worker runs with. Raises ConfigError where what can be changed does not go
    together with what cannot.
    """
    changed: list[str] = []
    kept: list[str] = []
    for key in differing(running, read):
        (changed if _at_once(key) else kept).append(key)
    transfer = read.transfer.model_copy(update={"max_buffer": running.transfer.max_buffer})
    update: dict[str, Any] = {
        "bots": read.bots,
        "transfer": transfer,
        "worker": running.worker.model_copy(update={"concurrency": read.worker.concurrency}),
        "log": running.log.model_copy(update={"level": read.log.level}),
    }
    sections = {name: getattr(running, name) for name in Settings.model_fields}
    try:
        settings = Settings.model_validate(sections | update)
    except ValidationError as error:
        mistakes = "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors(include_url=False))
        raise ConfigError(
            f"{read.source}: {mistakes}, and a running worker keeps its own {', '.join(kept)}", hint="restart the worker"
        ) from None
    return Changes(settings, changed, kept)


def differing(one: Settings, other: Settings) -> Iterator[str]:
    """The names of all keys that differ, bots by their names."""
    for name in Settings.model_fields:
        if name not in ("source", "bots"):
            yield from _differing(getattr(one, name), getattr(other, name), name)
    before, after = ({bot.name: bot for bot in settings.bots} for settings in (one, other))
    for name in dict.fromkeys((*before, *after)):
        yield from _of_bot(name, before, after)


def _of_bot(name: str, before: Mapping[str, BotSettings], after: Mapping[str, BotSettings]) -> Iterator[str]:
    if name in before and name in after:
        yield from _differing(before[name], after[name], f"bots.{name}")
    else:
        yield f"bots.{name}"


def _differing(one: BaseModel, other: BaseModel, path: str) -> Iterator[str]:
    for name in type(one).model_fields:
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, BaseModel):
            yield from _differing(mine, theirs, f"{path}.{name}")
        elif _comparable(mine) != _comparable(theirs):
            yield f"{path}.{name}"


def _comparable(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case PathTemplate():
            return value.text
        case _:
            return value


def _at_once(key: str) -> bool:
    return key.startswith("bots.") or key in _AT_ONCE or (key.startswith("transfer.") and key not in _NOT_AT_ONCE)
