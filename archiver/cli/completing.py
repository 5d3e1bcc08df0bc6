"""What a shell offers behind `--bot`. Read without the whole configuration, which would take a moment at every key."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Nothing else is offered: what is, a shell may carry out."""


def bot_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The configured bots whose names begin so. None, if there is no configuration, or one that cannot be read."""
    names = {name for name in _names(ctx.find_root().params.get("config")) if _NAME.fullmatch(name)}
    return sorted(name for name in names if name.startswith(incomplete))


def _names(config: Path | None) -> Iterator[str]:
    for variable, value in os.environ.items():
        if re.fullmatch(r"ARCHIVER_BOTS__[0-9]+__NAME", variable, re.IGNORECASE):
            yield value
    try:
        path = config or _found()
        if path is None or not path.is_file():  # nor is a FIFO waited for
            return
        bots: Any = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("bots")
    except (OSError, ValueError, RuntimeError):
        return
    for bot in bots if isinstance(bots, list) else ():
        if isinstance(bot, dict) and isinstance(bot.get("name"), str):
            yield bot["name"]


def _found() -> Path | None:
    """As `archiver.config.find_file`."""
    import platformdirs

    if named := os.environ.get("ARCHIVER_CONFIG"):
        return Path(named)
    candidates = (Path("archiver.toml"), platformdirs.user_config_path("archiver") / "archiver.toml")
    return next((path for path in candidates if path.is_file()), None)
