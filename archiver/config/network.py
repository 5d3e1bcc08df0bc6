"""The way out of the network: a proxy that everything goes by, and authorities beside the system's."""

from __future__ import annotations

import base64
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from pydantic import SecretStr, field_validator

from archiver.config.values import HOST, File, Section
from archiver.errors import ConfigError
from archiver.observe.redact import remember_secret

_PROXY = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^\s:@/?#]*)(?::(?P<password>[^\s@/?#]*))?@)?"
    rf"(?P<host>{HOST}|\[[0-9a-f:.]+\])"
    r":(?P<port>[0-9]{1,5})/?",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?:[^/]*//|(?![^/]*//))[^:@/]*:(.*)@", re.DOTALL)
_SHAPE = (
    'must be http:// or https://, a host and a port, such as "http://proxy.example:3128"; a user and a password stand before the '
    "host, as USER:PASSWORD@, with what is special in them percent-encoded"
)


@dataclass(frozen=True)
class Proxy:
    """A forward proxy. `url` has neither user nor password, and may be shown; the rest is secret."""

    url: str
    named_by: str
    """What to look at when it does not work: a key, or a variable of the environment."""
    from_environment: bool = False
    authorization: str = field(default="", repr=False)
    """For `Proxy-Authorization`; empty where the proxy wants none."""
    whole_url: str = field(default="", repr=False)
    """With user and password."""

    @classmethod
    def parse(cls, text: str, named_by: str, *, from_environment: bool = False) -> Proxy:
        """What is secret in it is masked from then on. Raises ValueError, which quotes nothing of it."""
        found = _PROXY.fullmatch(text)
        if password := _PASSWORD.match(text):  # of what is no URL, too
            remember_secret(password[1])
            remember_secret(unquote(password[1]))
        if found is None or int(found["port"]) not in range(1, 65536):
            raise ValueError(_SHAPE)
        authorization = ""
        if found["user"] is not None:
            login = f"{unquote(found['user'])}:{unquote(found['password'] or '')}"
            encoded = base64.b64encode(login.encode()).decode()
            remember_secret(encoded)
            authorization = f"Basic {encoded}"
        url = f"{found['scheme'].lower()}://{found['host'].lower()}:{found['port']}"
        return cls(url, named_by, from_environment, authorization, text)


def environment_names(*names: str) -> tuple[str, ...]:
    """Each in small letters, too: both are in use, and then the small ones win."""
    return tuple(spelling for name in names for spelling in (name.lower(), name))


def proxy_of_environment(environment: Mapping[str, str]) -> Proxy | None:
    """The proxy that `https_proxy` or `HTTPS_PROXY` names. Without a scheme it is http. Raises ConfigError."""
    for name in environment_names("HTTPS_PROXY"):
        if text := environment.get(name, "").strip():
            try:
                return Proxy.parse(text if "://" in text else f"http://{text}", name, from_environment=True)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}", hint=f"correct or unset {name}, or set network.proxy") from None
    return None


class NetworkSettings(Section):
    """How the platform, media hosts and stores are reached. Empty: as the environment says, and the system's authorities."""

    proxy: SecretStr = SecretStr("")
    ca_bundle: File = None

    @field_validator("proxy")
    @classmethod
    def _one_proxy(cls, value: SecretStr) -> SecretStr:
        if text := value.get_secret_value():
            Proxy.parse(text, "network.proxy")
        return value

    def find_proxy(self, environment: Mapping[str, str]) -> Proxy | None:
        """The proxy, if there is one. Raises ConfigError."""
        text = self.proxy.get_secret_value()
        return Proxy.parse(text, "network.proxy") if text else proxy_of_environment(environment)

    def add_authorities(self, context: ssl.SSLContext) -> None:
        """Have `context` trust those of `ca_bundle`, beside those that it trusts already. Raises ConfigError."""
        if self.ca_bundle is None:
            return
        mistake = f'network.ca_bundle = "{self.ca_bundle}"'
        hint = "name a file of PEM certificates that archiver's user can read; leave it empty for the system's authorities"
        try:
            if not stat.S_ISREG(self.ca_bundle.stat().st_mode):  # a FIFO would be waited for
                raise ConfigError(f"{mistake}: must be a file", hint=hint)
            context.load_verify_locations(cafile=self.ca_bundle)
        except ssl.SSLError:  # of OpenSSL's words none says more
            raise ConfigError(f"{mistake}: must hold a certificate in PEM", hint=hint) from None
        except (OSError, ValueError) as error:
            told = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            raise ConfigError(f"{mistake}: must be a file that can be read{told}", hint=hint) from None
