"""Settings: TOML, environment and secret files, validated once, every mistake reported together.

Precedence: environment over file over defaults. A key `worker.concurrency` is `ARCHIVER_WORKER__CONCURRENCY` in the
environment; a list is indexed (`ARCHIVER_BOTS__0__CLIENT_SECRET`), or given whole, comma-separated, for lists of strings.
Only names with `__` are read as keys, so that what Kubernetes injects for a service called "archiver" does no harm.
Relative paths are taken from the folder of the file that names them, else from the working directory.

`config.example.toml` shows every key with its default; a test holds both together.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from archiver.errors import ConfigError
from archiver.naming import PathTemplate
from archiver.redact import remember_secret

ENVIRONMENT_PREFIX = "ARCHIVER_"
FILE_NAME = "archiver.toml"

# --- values

_LONGEST = timedelta(days=36525)
"""A century: what Postgres can still add to a date."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> timedelta:
    """`"500ms"`, `"2s"`, `"15m"`, `"24h"`, `"7d"`; a bare number is seconds. Never negative. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value))
    if match is None:
        raise ValueError("a duration is a number and a unit, such as 500ms, 30s, 15m, 24h or 7d")
    seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"a duration is at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_size(value: object) -> int:
    """`"256MiB"`, `"50MB"`, `"64KiB"`; a bare number is bytes. Never negative. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([KMG]i?B|B|)\s*", str(value))
    if match is None or (isinstance(value, bool)):
        raise ValueError("a size is a number and a unit, such as 64KiB, 50MB or 1GiB")
    return int(float(match[1]) * _SIZES[match[2]])


def _size_or_none(value: object) -> int | None:
    """A size; empty or 0 is none."""
    return None if value in (None, "") else parse_size(value) or None


def _listed(value: object) -> object:
    """One string for a list of strings, as it comes from the environment."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


Duration = Annotated[timedelta, PlainValidator(parse_duration)]


@dataclass(frozen=True, order=True)
class RateLimit:
    """At most `calls` in any `window`."""

    window: timedelta
    calls: int

    @classmethod
    def parse(cls, value: object) -> RateLimit:
        """`"60/minute"`; second, minute, hour or day. Raises ValueError."""
        if isinstance(value, RateLimit):
            return value
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(second|minute|hour|day)\s*", str(value))
        if match is None or int(match[1]) == 0:
            raise ValueError('a rate limit looks like "60/minute"; units: second, minute, hour, day')
        seconds = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[match[2]]
        return cls(window=timedelta(seconds=seconds), calls=int(match[1]))


Size = Annotated[int, PlainValidator(parse_size)]
"""Bytes."""

SizeOrNone = Annotated[int | None, PlainValidator(_size_or_none)]
RateLimits = Annotated[tuple[Annotated[RateLimit, PlainValidator(RateLimit.parse)], ...], BeforeValidator(_listed)]
Durations = Annotated[tuple[Duration, ...], BeforeValidator(_listed)]
Strings = Annotated[tuple[str, ...], BeforeValidator(_listed)]
File = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A path; an empty one is none, so that the environment can take one away."""


def _retention(value: object) -> timedelta | None:
    """How long something is kept; empty is for ever. A day at least: a slip of the unit must not empty a history."""
    if value in (None, ""):
        return None
    duration = parse_duration(value)
    if duration < timedelta(days=1):
        raise ValueError('is at least "1d"; empty to keep it for ever')
    return duration


def _path_template(value: object) -> PathTemplate:
    return value if isinstance(value, PathTemplate) else PathTemplate(str(value))


def is_loopback(host: str) -> bool:
    """Whether a host names this machine by itself, without asking a name server."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# --- sections


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


# Stricter than the driver, which takes a part of a password with '/', '@' or '#' in it for a host, and names it in its error.
_POSTGRES_URL = re.compile(r"[a-z]+://([^\s:@/?#]*(:[^\s@/?#]*)?@)?[^\s@/?#]*(/[^\s@?#]*)?(\?[^\s#]*)?")


def _remember_passwords(url: str) -> None:
    mistake = ValueError("is not a URL; percent-encode what is special in its password")
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


class DatabaseSettings(_Section):
    """Where the queue is. `url`: a Postgres URL, or `embedded:PATH`."""

    url: SecretStr
    listen_url: SecretStr = SecretStr("")
    keep_history: Annotated[timedelta | None, PlainValidator(_retention)] = None

    @field_validator("url", "listen_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not text.startswith(("postgresql://", "postgres://", "embedded:")):
            raise ValueError('begins with "postgresql://", or is "embedded:PATH"')
        if text == "embedded:":
            raise ValueError('"embedded:" needs a folder, such as "embedded:/var/lib/archiver/postgres"')
        if text and not text.startswith("embedded:"):
            _remember_passwords(text)
        return value

    @property
    def embedded_path(self) -> Path | None:
        """The folder of the embedded Postgres, if that is what `url` names."""
        text = self.url.get_secret_value()
        return Path(text.removeprefix("embedded:")) if text.startswith("embedded:") else None


_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?(/[a-z0-9._~-]+)*/?", re.IGNORECASE
)

Algorithm = Literal["HS256", "HS512", "RS256", "RS512"]

_DEFAULT_LIMITS = (RateLimit(window=timedelta(minutes=1), calls=60), RateLimit(window=timedelta(hours=1), calls=1800))
"""The platform's lower class."""

MAX_INLINE = 256 * 2**20
"""What `transfer.max_inline` is unless it is set."""


class BotSettings(_Section):
    """One bot (app) of the platform: where its API is, who we are there, and how much we may ask."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    host: str = "https://platform.kore.ai"
    bot_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: SecretStr = SecretStr("")
    client_secret_file: File = None
    algorithm: Algorithm = "HS256"
    private_key_file: File = None
    account_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,200}$")] = ""
    api: Literal["v1", "v2"] = "v2"
    rate_limits: RateLimits = _DEFAULT_LIMITS
    account_rate_limits: RateLimits = _DEFAULT_LIMITS
    discovery: Literal["auto", "sessions", "call_details"] = "auto"
    time_zone: str = "UTC"
    length_tolerance: Duration = timedelta(seconds=5)
    media_hosts: Strings = ("*.kore.ai", "*.korebots.com", "*.amazonaws.com", "*.blob.core.windows.net")

    @field_validator("host")
    @classmethod
    def _origin(cls, value: str) -> str:
        found = _ORIGIN.fullmatch(value)
        if found is None or int(found["port"] or 443) not in range(1, 65536):
            raise ValueError('is the environment\'s URL, such as "https://platform.kore.ai"')
        if found["scheme"].lower() == "http" and not is_loopback(found["host"]):
            raise ValueError("http:// is accepted for loopback hosts only; use https://")
        return value.rstrip("/")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError):
            raise ValueError('is a name of the IANA time zone database, such as "Asia/Kolkata" or "UTC"') from None
        return value

    @field_validator("rate_limits", "account_rate_limits")
    @classmethod
    def _limits(cls, value: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
        if len({limit.window for limit in value}) != len(value):
            raise ValueError("has one window twice")
        return tuple(sorted(value))

    @field_validator("media_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host):
                raise ValueError(f'{host!r} is not a host name, "*.domain" or an address (no scheme, no port)')
        return tuple(host.lower().strip("[]").rstrip(".") for host in value)

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if self.algorithm.startswith("RS"):
            if self.private_key_file is None:
                raise ValueError(f"algorithm {self.algorithm} needs private_key_file")
        elif self.client_secret.get_secret_value() and self.client_secret_file:
            raise ValueError("client_secret and client_secret_file exclude each other; empty the one not meant")
        elif not self.client_secret.get_secret_value() and not self.client_secret_file:
            raise ValueError("client_secret or client_secret_file is missing")
        return self

    @model_validator(mode="after")
    def _account(self) -> Self:
        if self.discovery == "call_details" and not self.account_id:
            raise ValueError('discovery = "call_details" needs account_id')
        return self

    def signing_key(self) -> str:
        """The key that signs this bot's tokens, read from its file now. Raises ConfigError."""
        if self.algorithm.startswith("RS"):
            assert self.private_key_file is not None
            return _read_secret(f"bots.{self.name}.private_key_file", self.private_key_file)
        if self.client_secret_file is not None:
            return _read_secret(f"bots.{self.name}.client_secret_file", self.client_secret_file)
        secret = self.client_secret.get_secret_value()
        remember_secret(secret)
        return secret

    @property
    def budget_key(self) -> str:
        """What the platform counts calls by, whatever this bot is called here."""
        return f"{self.host.lower()}|{self.bot_id}"

    @property
    def account_budget_key(self) -> str:
        """The same for calls that it counts by the account, which several bots may share."""
        return f"{self.host.lower()}|account {self.account_id}"

    @property
    def zone(self) -> ZoneInfo:
        """Where its days begin."""
        return ZoneInfo(self.time_zone)


_TAG = re.compile(r"[\w \t.:/=+@-]*")


def _tags(value: object) -> tuple[tuple[str, str], ...]:
    """A table of tags, or `"k=v,k=v"`. Raises ValueError."""
    if isinstance(value, str):
        pairs = [part.partition("=")[::2] for part in value.split(",") if part.strip()]
    elif isinstance(value, Mapping):
        pairs = [(key, str(item)) for key, item in value.items()]
    else:
        pairs = list(value) if isinstance(value, tuple) else [("", "")]
    tags = tuple((key.strip(), item.strip()) for key, item in pairs)
    for key, item in tags:
        if not 1 <= len(key) <= 128 or len(item) > 256 or not _TAG.fullmatch(key + item):
            raise ValueError(
                'are names and values of letters, digits, spaces and + - = . _ : / @, such as "team=audit,kind=call"'
            )
        if key.startswith("aws:") or key == "archiver-sha256":
            raise ValueError(f"{key!r} is a name that S3 or the archiver keeps for itself")
    if len({key for key, _ in tags}) != len(tags):
        raise ValueError("have one name twice")
    if len(tags) > MOST_TAGS:
        raise ValueError(f"are at most {MOST_TAGS}: S3 allows ten, and one is the archiver's")
    return tags


MOST_TAGS = 9

Tags = Annotated[tuple[tuple[str, str], ...], PlainValidator(_tags)]


class S3Settings(_Section):
    """An S3-compatible endpoint; what is left out comes from the usual AWS chain."""

    endpoint: str = ""
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$")] = ""
    access_key_id: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    secret_access_key: SecretStr = SecretStr("")
    secret_access_key_file: File = None
    session_token: SecretStr = SecretStr("")
    profile: str = ""
    path_style: bool = False
    sse: Literal["", "AES256", "aws:kms"] = ""
    kms_key_id: Annotated[str, Field(pattern=r"^[!-~]*$")] = ""
    storage_class: Annotated[str, Field(pattern=r"^[A-Z0-9_]*$")] = ""
    tags: Tags = ()
    part_size: Size = 8 * 2**20
    parts_in_flight: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("endpoint")
    @classmethod
    def _origin(cls, value: str) -> str:
        found = _ORIGIN.fullmatch(value) if value else None
        if value and (found is None or int(found["port"] or 443) not in range(1, 65536)):
            raise ValueError('is the server\'s URL, such as "http://127.0.0.1:9000"; the bucket stands in storage.url')
        return value.rstrip("/")

    @field_validator("storage_class")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value in ("GLACIER", "DEEP_ARCHIVE"):
            raise ValueError(
                "keeps objects that nobody can read again without restoring them first, so that neither the archiver nor "
                "`verify` could; use GLACIER_IR, or a lifecycle rule that moves what is old"
            )
        return value

    @field_validator("part_size")
    @classmethod
    def _allowed_size(cls, value: int) -> int:
        if not 5 * 2**20 <= value <= 5 * 2**30:
            raise ValueError('is "5MiB" to "5GiB": S3 takes no other parts')
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        secret = self.secret_access_key.get_secret_value()
        for value in (secret, self.session_token.get_secret_value()):
            remember_secret(value)
        if secret and self.secret_access_key_file:
            raise ValueError("secret_access_key and secret_access_key_file exclude each other; empty the one not meant")
        if bool(self.access_key_id) != bool(secret or self.secret_access_key_file):
            raise ValueError("access_key_id and secret_access_key (or secret_access_key_file) go together")
        if self.session_token.get_secret_value() and not self.access_key_id:
            raise ValueError("session_token belongs to an access_key_id, which is missing")
        if self.profile and self.access_key_id:
            raise ValueError("profile and access_key_id exclude each other; empty the one not meant")
        if self.kms_key_id and self.sse != "aws:kms":
            raise ValueError('kms_key_id needs sse = "aws:kms"')
        return self

    def secret_key(self) -> str:
        """The secret access key, read from its file now; empty where the AWS chain is to find one. Raises ConfigError."""
        if self.secret_access_key_file is not None:
            return _read_secret("storage.s3.secret_access_key_file", self.secret_access_key_file)
        return self.secret_access_key.get_secret_value()


class AzureSettings(_Section):
    """A storage account of Azure, or a server like it; without key and SAS, credentials come from Azure's usual chain."""

    endpoint: str = ""
    account: Annotated[str, Field(pattern=r"^([a-z0-9]{3,24})?$")] = ""
    account_key: SecretStr = SecretStr("")
    account_key_file: File = None
    sas_token: SecretStr = SecretStr("")
    sas_token_file: File = None
    part_size: Size = 8 * 2**20
    parts_in_flight: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("endpoint")
    @classmethod
    def _origin(cls, value: str) -> str:
        found = _ORIGIN.fullmatch(value) if value else None
        if value and (found is None or int(found["port"] or 443) not in range(1, 65536)):
            raise ValueError(
                'is the URL of the account\'s blobs, such as "https://calls.blob.core.windows.net"; the container stands in '
                "storage.url"
            )
        return value.rstrip("/")

    @field_validator("part_size")
    @classmethod
    def _allowed_size(cls, value: int) -> int:
        if not 2**20 <= value <= 4000 * 2**20:
            raise ValueError('is "1MiB" to "4000MiB": Azure takes no longer blocks')
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        for secret in (self.account_key, self.sas_token):
            remember_secret(secret.get_secret_value())
        _remember_signature(self.sas_token.get_secret_value())
        ways = {
            "account_key": self.account_key.get_secret_value(),
            "account_key_file": self.account_key_file,
            "sas_token": self.sas_token.get_secret_value(),
            "sas_token_file": self.sas_token_file,
        }
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; empty the one not meant")
        if not given and self.endpoint.startswith("http:") and not is_loopback(urlsplit(self.endpoint).hostname or ""):
            raise ValueError("endpoint is plain http, over which a token of Azure's chain must not travel; use https://")
        return self

    @property
    def blobs(self) -> str:
        """The URL below which containers lie; empty if nothing names it."""
        return self.endpoint or (f"https://{self.account}.blob.core.windows.net" if self.account else "")

    @property
    def account_name(self) -> str:
        """The account that signatures name: as it is set, or as the endpoint names it in its path or its host."""
        at = urlsplit(self.endpoint)
        return self.account or at.path.strip("/") or (at.hostname or "").partition(".")[0]

    def key(self) -> str:
        """The account key, read from its file now; empty if it is not to be used. Raises ConfigError."""
        if self.account_key_file is not None:
            return _read_secret("storage.azure.account_key_file", self.account_key_file)
        return self.account_key.get_secret_value()

    def sas(self) -> str:
        """The SAS token without a '?', read from its file now; empty if none is to be used. Raises ConfigError."""
        token = self.sas_token.get_secret_value()
        if self.sas_token_file is not None:
            token = _read_secret("storage.azure.sas_token_file", self.sas_token_file)
        token = token.removeprefix("?")
        if token and not re.fullmatch(r"(?=.*(^|&)sig=)[!-~]+", token):
            raise ConfigError(
                "storage.azure: the SAS token is none: it has no signature in it",
                hint="take all that follows the '?' of a SAS URL",
            )
        _remember_signature(token)
        return token


def _remember_signature(sas_token: str) -> None:
    for key, value in parse_qsl(sas_token.removeprefix("?")):
        if key == "sig":
            remember_secret(value)


_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(_Section):
    """Where recordings go, and under which keys."""

    url: str
    path: Annotated[PathTemplate, PlainValidator(_path_template)] = PathTemplate(
        "bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}"
    )
    s3: S3Settings = S3Settings()
    azure: AzureSettings = AzureSettings()

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        scheme = value.partition(":")[0]
        if scheme == "gs":
            raise ValueError(
                "gs:// is not supported by this version; use file:///a/folder, s3://bucket/prefix or az://container/prefix"
            )
        if scheme == "s3":
            return _bucket_url(value, _BUCKET, "s3://BUCKET/PREFIX, the bucket of 3 to 63 characters a-z 0-9 . -", "bucket")
        if scheme == "az":
            return _bucket_url(
                value, _CONTAINER, "az://CONTAINER/PREFIX, the container of 3 to 63 characters a-z 0-9 -", "container"
            )
        return _file_url(value)

    @model_validator(mode="after")
    def _meant(self) -> Self:
        sections: tuple[tuple[str, str, _Section], ...] = (("s3", "s3", self.s3), ("az", "azure", self.azure))
        for scheme, name, section in sections:
            fields = type(section).model_fields
            set_keys = sorted(key for key in fields if getattr(section, key) != fields[key].default)
            if set_keys and not self.url.startswith(f"{scheme}:"):
                raise ValueError(f"{name}.{set_keys[0]} is set, but url is not {scheme}://; empty the one not meant")
        if self.url.startswith("az:") and not self.azure.blobs:
            raise ValueError("azure.account or azure.endpoint is missing: it says where the container is")
        return self

    @property
    def part_size(self) -> int:
        """Bytes of memory that the parts of one upload take at least; 0 for a folder."""
        return self.s3.part_size if self.url.startswith("s3:") else self.azure.part_size if self.url.startswith("az:") else 0

    @property
    def folder(self) -> Path:
        """The root of a `file://` store."""
        return Path(unquote(urlsplit(self.url).path))

    @property
    def bucket(self) -> str:
        """The bucket of an `s3://` store, or the container of an `az://` store."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """What the keys of a store begin with in its bucket: empty, or with a '/' at its end."""
        prefix = self.url.partition("://")[2].partition("/")[2]
        return f"{prefix.rstrip('/')}/" if prefix else ""


def _file_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError(
            'is a URL such as "file:///var/lib/archiver" (three slashes, an absolute path), "s3://bucket/prefix" or "az://container/prefix"'
        )
    if parts.query or parts.fragment:
        raise ValueError("has a '?' or '#'; write %3F or %23 for these in a folder's name")
    if "\0" in unquote(parts.path):
        raise ValueError("has a NUL in it")
    return value


def _bucket_url(value: str, name: re.Pattern[str], shape: str, noun: str) -> str:
    rest = value.partition(":")[2]
    bucket, _, prefix = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not name.fullmatch(bucket):
        raise ValueError(f"names no {noun}: {shape}")
    if "?" in prefix or "#" in prefix or any(unicodedata.category(character)[0] == "C" for character in prefix):
        raise ValueError("has a '?', a '#' or a control character in its prefix")
    if any(part in ("", ".", "..") or "\\" in part for part in prefix.removesuffix("/").split("/")) and prefix:
        raise ValueError("has a prefix with an empty part, '.', '..' or '\\'")
    return value


class WorkerSettings(_Section):
    """How much one worker does at once, and how long it may be silent."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    drain_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 25
    max_files_per_session: Annotated[int, Field(ge=1, le=10000)] = 200


class TransferSettings(_Section):
    """How recordings are fetched: how much memory and bandwidth that may take, and when a body is given up. There is no limit on
    the whole: a long recording may take its time.
    """

    max_buffer: Size = 256 * 2**20
    max_bandwidth: SizeOrNone = None
    connections_per_host: Annotated[int, Field(ge=0, le=1000)] = 0
    stall_timeout: Duration = timedelta(seconds=60)
    min_rate: SizeOrNone = 2**10
    max_inline: Size = MAX_INLINE

    @field_validator("max_inline")
    @classmethod
    def _some_length(cls, value: int) -> int:
        if value < 2**10:
            raise ValueError('is the most bytes that a recording inside an answer may have, at least "1KiB"')
        return value

    @field_validator("max_buffer")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value < 16 * 2**20:
            raise ValueError('is at least "16MiB": what one part of a large upload takes, and a little')
        return value

    @field_validator("max_bandwidth")
    @classmethod
    def _some_bandwidth(cls, value: int | None) -> int | None:
        if value is not None and value < 2**10:
            raise ValueError('is bytes a second, at least "1KiB"; empty for no limit')
        return value

    @field_validator("stall_timeout")
    @classmethod
    def _some_patience(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            raise ValueError('is longer than 0, such as "60s"')
        return value


class RetrySettings(_Section):
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
            raise ValueError("needs at least one delay")
        return value

    @field_validator("recheck_unavailable")
    @classmethod
    def _growing(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if any(later <= earlier for earlier, later in pairwise((timedelta(0), *value))):
            raise ValueError("is counted from when a session became unavailable: each must be longer than the one before")
        return value

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.backoff_base > self.backoff_max:
            raise ValueError("backoff_base is longer than backoff_max")
        return self


CALL_FACTS = (
    "direction", "caller", "callee", "agent", "queue", "disposition", "conversation_id", "language", "tags",
)  # fmt: skip
"""What a listing may tell of a call besides when it was."""


class DiscoverySettings(_Section):
    """How the platform's listings of calls are read, and what is kept of them."""

    overlap: Duration = timedelta(days=1)
    keep: Strings = CALL_FACTS

    @field_validator("keep")
    @classmethod
    def _known_facts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(CALL_FACTS)):
            raise ValueError(f"{', '.join(unknown)}: no fact of a call; there are {', '.join(CALL_FACTS)}")
        return value


class LogSettings(_Section):
    """What is logged to standard error. `auto`: for people on a terminal, JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class MetricsSettings(_Section):
    """Where a worker serves its metrics. Empty: nowhere."""

    listen: str = ""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and ((found := _ADDRESS.fullmatch(value)) is None or int(found["port"]) > 65535):
            raise ValueError('is host:port, such as "127.0.0.1:9464"; empty for no metrics')
        return value

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen at, if any; port 0 is a free one."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None


class Settings(_Section):
    """The whole configuration."""

    database: DatabaseSettings
    bots: tuple[BotSettings, ...] = ()
    storage: StorageSettings
    worker: WorkerSettings = WorkerSettings()
    transfer: TransferSettings = TransferSettings()
    retry: RetrySettings = RetrySettings()
    discovery: DiscoverySettings = DiscoverySettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    source: Annotated[str, Field(exclude=True)] = "defaults"
    """Where the settings came from, for people; not a key."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [bot.name.lower() for bot in self.bots]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"bots: two bots are called {name!r}; names must differ, also on disks that ignore case")
        if len(self.bots) > 1 and "{bot}" not in self.storage.path.text:
            raise ValueError("storage.path: with several bots {bot} is needed, or two files could meet in one key")
        if self.storage.part_size > self.transfer.max_buffer:
            section = "s3" if self.storage.url.startswith("s3:") else "azure"
            raise ValueError(f"storage.{section}.part_size is more than transfer.max_buffer, in which a part must fit")
        return self

    def bot(self, name: str) -> BotSettings:
        """The bot called `name`. Raises ConfigError that names those there are."""
        for bot in self.bots:
            if bot.name == name:
                return bot
        known = ", ".join(bot.name for bot in self.bots) or "none"
        raise ConfigError(f"unknown bot {name!r}", hint=f"configured bots: {known}")


# --- loading


def find_file(environment: Mapping[str, str]) -> Path | None:
    """The configuration file that applies when none is named: $ARCHIVER_CONFIG, ./archiver.toml, the user's own."""
    named = environment.get("ARCHIVER_CONFIG")
    if named:
        return Path(named)
    for candidate in (Path(FILE_NAME), platformdirs.user_config_path("archiver") / FILE_NAME):
        if candidate.is_file():
            return candidate
    return None


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read, merge and check. Raises ConfigError with one line a mistake; secrets are in no message."""
    environment = os.environ if environment is None else environment
    path = path or find_file(environment)
    data: dict[str, Any] = {}
    base = Path.cwd()
    if path is not None:
        data = _read_toml(path)
        base = path.absolute().parent
    _anchor(data, base)
    came_from = _overlay(data, environment)
    source = str(path) if path is not None else ("environment" if came_from else "defaults")
    data.setdefault("database", {})
    data.setdefault("storage", {})
    if isinstance(data["database"], dict):
        data["database"].setdefault("url", f"embedded:{platformdirs.user_data_path('archiver') / 'postgres'}")
    if isinstance(data["storage"], dict):
        data["storage"].setdefault("url", (Path.cwd() / "archive").as_uri())
    _anchor(data, Path.cwd())
    if "source" in data:
        raise ConfigError(f"{source}: unknown key source", hint="config.example.toml shows every key")
    try:
        settings = Settings.model_validate({**data, "source": source})
    except ValidationError as error:
        lines = [_explain(item, came_from) for item in error.errors(include_url=False)]
        raise ConfigError(
            f"{source}: " + ("\n  " if len(lines) > 1 else "") + "\n  ".join(dict.fromkeys(lines)),
            hint="config.example.toml shows every key",
        ) from None
    for bot in settings.bots:
        bot.signing_key()
    settings.storage.s3.secret_key()
    settings.storage.azure.key()
    settings.storage.azure.sas()
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", hint="mend the line named") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name another file with --config, or run `archiver init`") from None


def _read_secret(key: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8-sig").strip()
    except ValueError:
        # Not UTF-8, or a path with NUL.
        raise ConfigError(f"{key}: {str(path)!r} is not a text file", hint="the file holds the secret as text") from None
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}", hint="create the file, readable for the archiver's user") from None
    if not secret:
        raise ConfigError(f"{key}: {path} is empty", hint="write the secret into it")
    remember_secret(secret)
    return secret


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
                        f"{name}: expected a number from 0 to {len(here)} in place of {key.upper()!r}",
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
                raise ConfigError(f"{name}: {'.'.join(keys)} lies below a plain value", hint="check the name's parts")
        came_from[keys] = name
    return came_from


_FILES = ("client_secret_file", "private_key_file", "secret_access_key_file", "account_key_file", "sas_token_file")
"""Keys, in bots and in the sections of buckets, whose values are paths."""

_SECRETS = ("client_secret", "secret_access_key", "session_token", "account_key", "sas_token")
"""Keys whose values are never shown."""


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make paths that are still relative absolute, from `folder`."""

    def anchored(path: str) -> str:
        return str(folder / os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises where there is no such user

    database, storage, bots = data.get("database"), data.get("storage"), data.get("bots")
    if isinstance(database, dict) and isinstance(url := database.get("url"), str):
        scheme, _, path = url.partition(":")
        if scheme == "embedded" and path:
            database["url"] = f"embedded:{anchored(path)}"
    buckets = [storage.get("s3"), storage.get("azure")] if isinstance(storage, dict) else []
    for section in [*(bots if isinstance(bots, list) else ()), *buckets]:
        for key in _FILES:
            if isinstance(section, dict) and isinstance(section.get(key), str) and section[key]:
                section[key] = anchored(section[key])


_SHOWN = 200
"""Characters of a wrong value that are shown."""


def _explain(item: Any, came_from: Mapping[tuple[str, ...], str]) -> str:
    """One mistake in one line: key, value, where it came from, what is expected."""
    location = tuple(str(part) for part in item["loc"])
    key = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in location).lstrip(".")
    # A misspelt section stands in the variables of all its keys.
    variables = [name for keys, name in came_from.items() if keys[: len(location)] == location] if location else []
    origin = f" (from {', '.join(variables)})" if variables else ""
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _siblings(location[:-1]), n=1, cutoff=0.6)
        return f"unknown key {key}{origin}" + (f"; did you mean {near[0]}?" if near else "")
    if item["type"] == "missing":
        return f"{key} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "model_type":
        return f"{key}{origin}: is a section of keys, not a plain value"
    if item["type"] == "tuple_type":
        return f"{key}{origin}: is a list" + (", each of its blocks headed [[bots]]" if key == "bots" else "")
    value = item["input"]
    secret = location[-1] in _SECRETS or (location[0] == "database" and location[-1] != "keep_history")
    shown = "" if secret or isinstance(value, dict | list) else f" = {value!r:.{_SHOWN}}"
    return f"{key}{shown}{origin}: {message[0].lower()}{message[1:]}"


def _siblings(location: tuple[str, ...]) -> Iterator[str]:
    """The keys that stand where a misspelt one was found."""
    model: type[BaseModel] = Settings
    for part in location:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        found = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not found:
            return
        model = found[0]
    yield from (name for name in model.model_fields if name != "source")
