"""The whole configuration, section by section."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from archiver.config.bots import BotSettings
from archiver.config.budgets import account_budgets
from archiver.config.evidence import EvidenceSettings
from archiver.config.network import NetworkSettings
from archiver.config.notify import NotifySettings
from archiver.config.storage import StorageSettings
from archiver.config.values import (
    ALL_DEFAULTS,
    Duration,
    Durations,
    Retention,
    Section,
    Size,
    SizeOrNone,
    Strings,
    without_user,
)
from archiver.errors import ConfigError
from archiver.observe.redact import remember_secret

# Stricter than the driver, which takes a part of a password with '/', '@' or '#' in it for a host, and names it in its error.
_POSTGRES_URL = re.compile(r"[a-z]+://([^\s:@/?#]*(:[^\s@/?#]*)?@)?[^\s@/?#]*(/[^\s@?#]*)?(\?[^\s#]*)?")


def _remember_passwords(url: str) -> None:
    mistake = ValueError("must be a URL, with special characters in its password percent-encoded")
    if not _POSTGRES_URL.fullmatch(url):
        raise mistake
    try:
        parts = urlsplit(url)
    except ValueError:
        # Python's own words may quote the URL.
        raise mistake from None
    remember_secret(parts.password or "")
    remember_secret(unquote(parts.password or ""))
    for key, value in parse_qsl(parts.query):
        if key.endswith("password"):
            remember_secret(value)


class DatabaseSettings(Section):
    """Where the queue is. `url`: a Postgres URL, or `embedded:PATH`."""

    url: SecretStr
    listen_url: SecretStr = SecretStr("")
    keep_history: Retention = None

    @field_validator("url", "listen_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not text.startswith(("postgresql://", "postgres://", "embedded:")):
            raise ValueError('must begin with "postgresql://", or be "embedded:PATH"')
        if text == "embedded:":
            raise ValueError('must name a folder behind "embedded:", such as "embedded:/var/lib/archiver/postgres"')
        if text and not text.startswith("embedded:"):
            _remember_passwords(text)
        return value

    @property
    def embedded_path(self) -> Path | None:
        """The folder of the embedded Postgres, if that is what `url` names."""
        text = self.url.get_secret_value()
        return Path(text.removeprefix("embedded:")) if text.startswith("embedded:") else None


class WorkerSettings(Section):
    """How much one worker does at once, and how long it may be silent."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    drain_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 25
    max_files_per_session: Annotated[int, Field(ge=1, le=10000)] = 200


class TransferSettings(Section):
    """How recordings are fetched: how much memory, bandwidth and room that may take, and when a body is given up. There is no
    limit on its time: a long recording takes what it takes.
    """

    max_buffer: Size = 80 * 2**20
    max_bandwidth: SizeOrNone = None
    connections_per_host: Annotated[int, Field(ge=0, le=1000)] = 0
    stall_timeout: Duration = timedelta(seconds=60)
    min_rate: SizeOrNone = 2**10
    max_inline: Size = 256 * 2**20
    max_recording: Size = 5 * 2**30
    max_session: Size = 20 * 2**30

    @field_validator("max_inline", "max_recording", "max_session")
    @classmethod
    def _some_length(cls, value: int, field: ValidationInfo) -> int:
        if value < 2**10:
            what = {"max_inline": "a recording inside an answer", "max_recording": "a recording"}.get(field.field_name or "")
            raise ValueError(f'must be at least "1KiB": it is the most bytes that {what or "all files of a session"} may have')
        return value

    @field_validator("max_buffer")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value < 16 * 2**20:
            raise ValueError('must be at least "16MiB", so that one part of a large upload fits')
        return value

    @field_validator("max_bandwidth")
    @classmethod
    def _some_bandwidth(cls, value: int | None) -> int | None:
        if value is not None and value < 2**10:
            raise ValueError('must be bytes a second, at least "1KiB"; leave it empty for no limit')
        return value

    @field_validator("stall_timeout")
    @classmethod
    def _some_patience(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            raise ValueError('must be longer than 0, such as "60s"')
        return value


class RetrySettings(Section):
    """When to ask again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    backoff_base: Duration = timedelta(seconds=2)
    backoff_max: Duration = timedelta(minutes=15)
    not_ready_delays: Durations = tuple(timedelta(seconds=s) for s in (30, 60, 120, 300, 600, 1800))
    not_ready_give_up: Duration = timedelta(hours=24)
    recheck_unavailable: Durations = tuple(timedelta(days=d) for d in (1, 3, 7))

    @field_validator("not_ready_delays")
    @classmethod
    def _some(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if not value:
            raise ValueError('must have at least one delay, such as ["30s"]')
        return value

    @field_validator("recheck_unavailable")
    @classmethod
    def _growing(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if any(later <= earlier for earlier, later in pairwise((timedelta(0), *value))):
            raise ValueError(
                "must have delays that are each longer than the one before: all count from when the session became unavailable"
            )
        return value

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.backoff_base > self.backoff_max:
            raise ValueError("backoff_base must not be longer than backoff_max")
        return self


KEPT_FACTS = (
    "direction", "caller", "callee", "agent", "consulted", "joined", "transferred_to", "queue", "disposition", "campaign",
    "conversation_id", "language", "tags", "developer",
)  # fmt: skip
CALL_FACTS = (*KEPT_FACTS, "disposition_remarks")
"""What a listing may tell of a call besides when it was. The remarks are what people wrote: only who asks for them keeps them."""


class DiscoverySettings(Section):
    """How the platform's listings of calls are read, and what is kept of them."""

    overlap: Duration = timedelta(days=1)
    keep: Strings = KEPT_FACTS

    @field_validator("overlap")
    @classmethod
    def _some_overlap(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1):
            raise ValueError('must be at least "1m": the platform lists calls late')
        return value

    @field_validator("keep")
    @classmethod
    def _known_facts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(CALL_FACTS)):
            given = ", ".join(map(without_user, unknown))
            raise ValueError(f"must be facts of a call, which {given} is none of; they are {', '.join(CALL_FACTS)}")
        return value


class LogSettings(Section):
    """What is logged to standard error. `auto`: for people on a terminal, JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class MetricsSettings(Section):
    """Where a worker serves its metrics, and the file into which what ends by itself writes them. Empty: nowhere."""

    listen: str = ""
    textfile: str = ""

    @field_validator("textfile")
    @classmethod
    def _file(cls, value: str) -> str:
        if value and not (value.startswith("/") and value.endswith(".prom") and "\0" not in value):
            raise ValueError('must be an absolute path that ends in .prom, such as "/var/lib/node_exporter/archiver.prom"')
        return value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and ((found := _ADDRESS.fullmatch(value)) is None or int(found["port"]) > 65535):
            raise ValueError('must be host:port, such as "127.0.0.1:9464"; leave it empty for no metrics')
        return value

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen at, if any; port 0 is a free one."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None


class Settings(Section):
    """The whole configuration."""

    database: DatabaseSettings
    bots: tuple[BotSettings, ...] = ()
    storage: StorageSettings
    worker: WorkerSettings = ALL_DEFAULTS
    transfer: TransferSettings = ALL_DEFAULTS
    retry: RetrySettings = ALL_DEFAULTS
    discovery: DiscoverySettings = ALL_DEFAULTS
    evidence: EvidenceSettings = ALL_DEFAULTS
    network: NetworkSettings = ALL_DEFAULTS
    log: LogSettings = ALL_DEFAULTS
    metrics: MetricsSettings = ALL_DEFAULTS
    notify: NotifySettings = ALL_DEFAULTS
    source: Annotated[str, Field(exclude=True)] = "defaults"
    """Where the settings came from, for people; not a key."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [bot.name.lower() for bot in self.bots]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f'bots: names must differ, also on disks that ignore case; two bots are called "{name}"')
        if len(self.bots) > 1 and "{bot}" not in self.storage.path.text:
            raise ValueError("storage.path: must contain {bot} with several bots, or two files could meet in one key")
        account_budgets(self.bots)  # whether bots of one account contradict each other
        if self.storage.part_size > self.transfer.max_buffer:
            section = "s3" if self.storage.url.startswith("s3:") else "azure"
            raise ValueError(
                f"storage.{section}.part_size: must not be more than transfer.max_buffer, into which a part has to fit"
            )
        return self

    def bot(self, name: str) -> BotSettings:
        """The bot called `name`. Raises ConfigError that names those there are."""
        for bot in self.bots:
            if bot.name == name:
                return bot
        known = ", ".join(bot.name for bot in self.bots) or "none"
        raise ConfigError(f'unknown bot "{name}"', hint=f"configured bots: {known}")
