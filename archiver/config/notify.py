"""The receiver of messages: where they are sent to, what they are signed with, and what they are about."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, field_validator, model_validator

from archiver.config.values import HOST, File, Section, Strings, is_loopback, read_secret, without_user
from archiver.errors import ConfigError
from archiver.observe.redact import remember_secret

EVENTS = ("night", "gap", "damage", "hold")
"""What can be told; docs/notifications.md has each."""

_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{HOST}|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?(?P<path>/[!-\"$-~]*)?", re.IGNORECASE
)
_URL_SHAPE = (
    'must be https://, a host and a path, such as "https://hooks.example/archiver", without user and password; http:// to this '
    "machine itself is allowed"
)
_KEY_SHAPE = 'must be "whsec_" and 24 to 64 random bytes in base64, such as `echo whsec_$(openssl rand -base64 32)` prints'
_PREFIX = "whsec_"
_LONG = 16
"""Characters of a part of the path that is taken for a secret."""
_PASSWORD = re.compile(r"(?:[^/]*//|(?![^/]*//))[^:@/]*:(.*)@", re.DOTALL)


def parse_key(text: str) -> bytes:
    """The key that a secret of the Standard Webhooks holds. Raises ValueError, which quotes nothing of it."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_KEY_SHAPE) from None
    if not text.startswith(_PREFIX) or len(key) not in range(24, 65):
        raise ValueError(_KEY_SHAPE)
    return key


class NotifySettings(Section):
    """Messages to a receiver. Without `url` none are sent, and none are collected. What is in its path may be a secret, as chats
    have it: it is shown nowhere.
    """

    url: SecretStr = SecretStr("")
    secret: SecretStr = SecretStr("")
    secret_file: File = None
    events: Strings = EVENTS

    @field_validator("url")
    @classmethod
    def _reachable(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text:
            return value
        found = _URL.fullmatch(text)
        if found is None and (password := _PASSWORD.match(text)):
            remember_secret(password[1])
            remember_secret(unquote(password[1]))
        if found is None or int(found["port"] or 443) not in range(1, 65536):
            raise ValueError(_URL_SHAPE)
        if found["scheme"].lower() == "http" and not is_loopback(found["host"]):
            raise ValueError(f"{_URL_SHAPE}: what is told is nobody else's business")
        for part in re.split("[/?&=]", found["path"] or ""):
            if len(part) >= _LONG:  # a shorter one may be a word that stands anywhere
                remember_secret(part)
        return value

    @field_validator("secret")
    @classmethod
    def _a_key(cls, value: SecretStr) -> SecretStr:
        if text := value.get_secret_value():
            remember_secret(text)
            parse_key(text)
        return value

    @field_validator("events")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(EVENTS)):
            given = ", ".join(map(without_user, unknown))
            raise ValueError(f"must be of {', '.join(EVENTS)}; there is no {given}")
        return tuple(event for event in EVENTS if event in value)

    @model_validator(mode="after")
    def _signed(self) -> Self:
        written, named = bool(self.secret.get_secret_value()), self.secret_file is not None
        if written and named:
            raise ValueError("secret and secret_file exclude each other; leave one of them empty")
        if self.url.get_secret_value() and not written and not named:
            raise ValueError(f"secret or secret_file is missing: messages are signed with it; {_KEY_SHAPE}")
        return self

    @property
    def on(self) -> bool:
        """Whether anything is told."""
        return bool(self.url.get_secret_value() and self.events)

    @property
    def receiver(self) -> str:
        """Where to, for people: without the path."""
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc}"

    def key(self) -> bytes:
        """What messages are signed with, read from its file now; empty where nothing is told. Raises ConfigError."""
        text = self.secret.get_secret_value()
        if self.secret_file is not None:
            text = read_secret("notify.secret_file", self.secret_file)
        if not text:
            return b""
        try:
            return parse_key(text)
        except ValueError as error:
            raise ConfigError(
                f"notify.secret_file: {self.secret_file} {error}", hint="write such a secret into the file"
            ) from None
