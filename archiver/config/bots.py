"""One bot of the platform: who we are there, how much we may ask, where its recordings come from."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from archiver.config.values import (
    Duration,
    File,
    RateLimit,
    RateLimits,
    Retention,
    Section,
    Strings,
    crosses_openly,
    parse_origin,
    read_secret,
    without_user,
)
from archiver.observe.redact import remember_secret

Algorithm = Literal["HS256", "HS512", "RS256", "RS512"]

BOT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
NAME = '1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit, such as "support-us"; you choose it'
BOT_ID = 'the ID of the bot, such as "st-...", in quotes: it stands on the platform\'s App Settings page'
CLIENT_ID = 'the client ID, such as "cs-...", in quotes, of the app that was created for archiver on the platform'
ACCOUNT_ID = "the ID of the account on the platform, in quotes: letters, digits and . _ -"
UNSIGNED = (
    "client_secret or client_secret_file is missing: must be the secret that the platform shows with the client ID, or the path "
    "of a file that holds it"
)


class BotSettings(Section):
    """One bot (app) of the platform: where its API is, who we are there, and how much we may ask."""

    name: Annotated[str, Field(pattern=BOT_NAME.pattern, description=NAME)]
    host: str = "https://platform.kore.ai"
    bot_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$", description=BOT_ID)]
    client_id: Annotated[str, Field(min_length=1, description=CLIENT_ID)]
    client_secret: SecretStr = SecretStr("")
    client_secret_file: File = None
    algorithm: Algorithm = "HS256"
    private_key_file: File = None
    account_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,200}$", description=ACCOUNT_ID)] = ""
    api: Literal["v1", "v2"] = "v2"
    rate_limits: RateLimits = None
    """Not written: `archiver.config.budgets` says what holds then. So of the next one."""
    account_rate_limits: RateLimits = None
    discovery: Literal["auto", "sessions", "call_details", "interaction_details"] = "auto"
    time_zone: str = "UTC"
    length_tolerance: Duration = timedelta(seconds=5)
    shorter_is_fine: bool = False
    source_retention: Retention = None
    media_hosts: Strings = ("*.kore.ai", "*.korebots.com", "*.amazonaws.com", "*.blob.core.windows.net")

    @field_validator("host")
    @classmethod
    def _origin(cls, value: str) -> str:
        origin = parse_origin(value, 'must be the URL of the platform, such as "https://platform.kore.ai"')
        if crosses_openly(origin):
            raise ValueError("must be https://: http:// is accepted for loopback hosts only")
        return origin

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError):
            raise ValueError('must be the name of an IANA time zone, such as "Europe/Berlin" or "UTC"') from None
        return value

    @field_validator("rate_limits", "account_rate_limits")
    @classmethod
    def _limits(cls, value: tuple[RateLimit, ...] | None) -> tuple[RateLimit, ...] | None:
        if value is None:
            return None
        if len({limit.window for limit in value}) != len(value):
            raise ValueError("must not have one window twice")
        return tuple(sorted(value))

    @field_validator("media_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host):
                raise ValueError(f'"{without_user(host)}" must be a host name, "*.domain" or an address, without scheme and port')
        return tuple(host.lower().strip("[]").rstrip(".") for host in value)

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if self.algorithm.startswith("RS"):
            if self.private_key_file is None:
                raise ValueError(
                    f"private_key_file is missing: must be the path of the key in PEM that algorithm {self.algorithm} signs with"
                )
        elif self.client_secret.get_secret_value() and self.client_secret_file:
            raise ValueError("client_secret and client_secret_file exclude each other; leave one of them empty")
        elif not self.client_secret.get_secret_value() and not self.client_secret_file:
            raise ValueError(UNSIGNED)
        return self

    @model_validator(mode="after")
    def _account(self) -> Self:
        if self.discovery in ("call_details", "interaction_details") and not self.account_id:
            raise ValueError(f'account_id is missing: must be {ACCOUNT_ID}; discovery = "{self.discovery}" lists by it')
        return self

    def signing_key(self) -> str:
        """The key that signs this bot's tokens, read from its file now. Raises ConfigError."""
        if self.algorithm.startswith("RS"):
            assert self.private_key_file is not None
            return read_secret(f"bots.{self.name}.private_key_file", self.private_key_file)
        if self.client_secret_file is not None:
            return read_secret(f"bots.{self.name}.client_secret_file", self.client_secret_file)
        secret = self.client_secret.get_secret_value()
        remember_secret(secret)
        return secret

    @property
    def budget_key(self) -> str:
        """What the platform counts the sessions history by, whatever this bot is called here."""
        return f"{self.host.lower()}|{self.bot_id}"

    @property
    def account_budget_key(self) -> str:
        """The same for calls that it counts by the account, which several bots may share. Without `account_id` the bot stands for
        its account.
        """
        return f"{self.host.lower()}|account {self.account_id}" if self.account_id else self.budget_key

    @property
    def zone(self) -> ZoneInfo:
        """Where its days begin."""
        return ZoneInfo(self.time_zone)
