"""Where recordings go: the folder, bucket or container, and what its service wants to know."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    Field,
    PlainValidator,
    SecretStr,
    field_validator,
    model_validator,
)

from archiver.config.path_template import PathTemplate
from archiver.config.values import (
    ALL_DEFAULTS,
    File,
    Section,
    Size,
    crosses_openly,
    parse_origin,
    read_secret,
)
from archiver.errors import ConfigError
from archiver.observe.redact import remember_secret

PLAIN = "printable ASCII characters without blanks"

IN_THE_OPEN = (
    "must be https:// to another machine: recordings and credentials would travel unencrypted; set storage.allow_http = true if "
    "you trust the network between"
)


def _path_template(value: object) -> PathTemplate:
    return value if isinstance(value, PathTemplate) else PathTemplate(str(value))


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
                'must be names and values of letters, digits, spaces and + - = . _ : / @, such as "team=audit,kind=call"'
            )
        if key.startswith("aws:") or key == "archiver-sha256":
            raise ValueError(f'must not be called "{key}", which is reserved by S3 or archiver')
    if len({key for key, _ in tags}) != len(tags):
        raise ValueError("must not have one name twice")
    if len(tags) > MAX_TAGS:
        raise ValueError(f"must be at most {MAX_TAGS}: S3 allows ten, and archiver adds one")
    return tags


MAX_TAGS = 9

Tags = Annotated[tuple[tuple[str, str], ...], PlainValidator(_tags)]


class S3Settings(Section):
    """An S3-compatible endpoint; what is left out comes from the usual AWS chain."""

    endpoint: str = ""
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*$", description='the name of a region, such as "eu-central-1"')] = ""
    access_key_id: Annotated[str, Field(pattern=r"^[!-~]*$", description=PLAIN)] = ""
    secret_access_key: SecretStr = SecretStr("")
    secret_access_key_file: File = None
    session_token: SecretStr = SecretStr("")
    profile: str = ""
    path_style: bool = False
    sse: Literal["", "AES256", "aws:kms"] = ""
    kms_key_id: Annotated[str, Field(pattern=r"^[!-~]*$", description=PLAIN)] = ""
    storage_class: Annotated[str, Field(pattern=r"^[A-Z0-9_]*$", description='a class of S3, such as "STANDARD_IA"')] = ""
    tags: Tags = ()
    part_size: Size = 8 * 2**20
    parts_in_flight: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("endpoint")
    @classmethod
    def _origin(cls, value: str) -> str:
        return value and parse_origin(
            value, 'must be the server\'s URL, such as "http://127.0.0.1:9000"; the bucket belongs in storage.url'
        )

    @field_validator("storage_class")
    @classmethod
    def _readable(cls, value: str) -> str:
        if value in ("GLACIER", "DEEP_ARCHIVE"):
            raise ValueError(
                "must be a class whose objects can be read without restoring them first, which archiver and `verify` do not do: "
                "use GLACIER_IR, or a lifecycle rule that moves what is old"
            )
        return value

    @field_validator("part_size")
    @classmethod
    def _allowed_size(cls, value: int) -> int:
        if not 5 * 2**20 <= value <= 5 * 2**30:
            raise ValueError('must be from "5MiB" to "5GiB": S3 takes no other parts')
        return value

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        secret = self.secret_access_key.get_secret_value()
        for value in (secret, self.session_token.get_secret_value()):
            remember_secret(value)
        if secret and self.secret_access_key_file:
            raise ValueError("secret_access_key and secret_access_key_file exclude each other; leave one of them empty")
        if bool(self.access_key_id) != bool(secret or self.secret_access_key_file):
            raise ValueError("access_key_id and secret_access_key (or secret_access_key_file) must be set both or neither")
        if self.session_token.get_secret_value() and not self.access_key_id:
            raise ValueError("access_key_id is missing: must be the one that session_token belongs to")
        if self.profile and self.access_key_id:
            raise ValueError("profile and access_key_id exclude each other; leave one of them empty")
        if self.kms_key_id and self.sse != "aws:kms":
            raise ValueError('sse must be "aws:kms" where kms_key_id is set')
        return self

    def secret_key(self) -> str:
        """The secret access key, read from its file now; empty where the AWS chain is to find one. Raises ConfigError."""
        if self.secret_access_key_file is not None:
            return read_secret("storage.s3.secret_access_key_file", self.secret_access_key_file)
        return self.secret_access_key.get_secret_value()


class AzureSettings(Section):
    """A storage account of Azure, or a server like it; without key and SAS, credentials come from Azure's usual chain."""

    endpoint: str = ""
    account: Annotated[str, Field(pattern=r"^([a-z0-9]{3,24})?$", description="the storage account: 3 to 24 of a-z 0-9")] = ""
    account_key: SecretStr = SecretStr("")
    account_key_file: File = None
    sas_token: SecretStr = SecretStr("")
    sas_token_file: File = None
    part_size: Size = 8 * 2**20
    parts_in_flight: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("endpoint")
    @classmethod
    def _origin(cls, value: str) -> str:
        return value and parse_origin(
            value,
            'must be the URL of the account\'s blobs, such as "https://calls.blob.core.windows.net"; the container belongs in '
            "storage.url",
        )

    @field_validator("part_size")
    @classmethod
    def _allowed_size(cls, value: int) -> int:
        if not 2**20 <= value <= 4000 * 2**20:
            raise ValueError('must be from "1MiB" to "4000MiB": Azure takes no larger blocks')
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
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; leave one of them empty")
        if not given and crosses_openly(self.endpoint):
            raise ValueError("endpoint must be https://: over plain http a token of Azure's chain must not travel")
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
            return read_secret("storage.azure.account_key_file", self.account_key_file)
        return self.account_key.get_secret_value()

    def sas(self) -> str:
        """The SAS token without a '?', read from its file now; empty if none is to be used. Raises ConfigError."""
        token = self.sas_token.get_secret_value()
        if self.sas_token_file is not None:
            token = read_secret("storage.azure.sas_token_file", self.sas_token_file)
        token = token.removeprefix("?")
        if token and not re.fullmatch(r"(?=.*(^|&)sig=)[!-~]+", token):
            raise ConfigError(
                "storage.azure: the SAS token must have a signature (sig=)",
                hint="use everything after the '?' of a SAS URL",
            )
        _remember_signature(token)
        return token


def _remember_signature(sas_token: str) -> None:
    for key, value in parse_qsl(sas_token.removeprefix("?")):
        if key == "sig":
            remember_secret(value)


_CONTAINER = re.compile(r"(?!.{0,62}--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

_BUCKET = re.compile(r"(?!\d{1,60}\.\d{1,60}\.\d{1,60}\.\d{1,60}$)(?!.{0,62}\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(Section):
    """Where recordings go, and under which keys."""

    url: str
    path: Annotated[PathTemplate, PlainValidator(_path_template)] = PathTemplate(
        "bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}"
    )
    allow_http: bool = False
    s3: S3Settings = ALL_DEFAULTS
    azure: AzureSettings = ALL_DEFAULTS

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        scheme = value.partition(":")[0]
        if scheme == "gs":
            raise ValueError(
                "must be file:///a/folder, s3://bucket/prefix or az://container/prefix: this version does not support gs://"
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
        sections: tuple[tuple[str, str, Section], ...] = (("s3", "s3", self.s3), ("az", "azure", self.azure))
        for scheme, name, section in sections:
            fields = type(section).model_fields
            set_keys = sorted(key for key in fields if getattr(section, key) != fields[key].default)
            if set_keys and not self.url.startswith(f"{scheme}:"):
                raise ValueError(f"url must be {scheme}:// where {name}.{set_keys[0]} is set: correct url, or remove the key")
        for name, endpoint in (("s3", self.s3.endpoint), ("azure", self.azure.endpoint)):
            if crosses_openly(endpoint) and not self.allow_http:
                raise ValueError(f'{name}.endpoint = "{endpoint}" {IN_THE_OPEN}')
        if self.url.startswith("az:") and not self.azure.blobs:
            raise ValueError("azure.account or azure.endpoint is missing: one of them must say where the container is")
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
            'must be a URL such as "file:///var/lib/archiver" (three slashes, an absolute path), "s3://bucket/prefix" or "az://container/prefix"'
        )
    if parts.query or parts.fragment:
        raise ValueError("must not have a '?' or '#': write %3F or %23 for these in a folder's name")
    if "\0" in unquote(parts.path):
        raise ValueError("must not contain a NUL character")
    return value


def _bucket_url(value: str, name: re.Pattern[str], shape: str, noun: str) -> str:
    rest = value.partition(":")[2]
    bucket, _, prefix = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not name.fullmatch(bucket):
        raise ValueError(f"must name a {noun}: {shape}")
    if "?" in prefix or "#" in prefix or any(unicodedata.category(character)[0] == "C" for character in prefix):
        raise ValueError("must not have a '?', a '#' or a control character in its prefix")
    if any(part in ("", ".", "..") or "\\" in part for part in prefix.removesuffix("/").split("/")) and prefix:
        raise ValueError("must not have a prefix with an empty part, '.', '..' or '\\'")
    return value
