"""The parameters of a Postgres URL, looked up as libpq does. What the driver does not know is done here, or refused with the
reason: it would send such a parameter to the server as a setting, which no server has.

The source is https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from archiver.errors import ConfigError

CONNECT_SECONDS = 10.0
MAX_CONNECT_SECONDS = 30.0

_KEEPALIVES = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""Seconds, seconds, probes, milliseconds. libpq leaves these to the system, whose hours are too long for a worker with a lease:
a server that went away without a word is to be missed within half a minute.
"""

_VERIFY = "leave it out; sslmode=verify-full proves who the server is"

_OF_THE_DRIVER = "leave it out: the archiver's driver cannot do that"

_MOST = {"keepalives_idle": 32_767, "keepalives_interval": 32_767, "keepalives_count": 127, "tcp_user_timeout": 10**9}
"""What Linux takes."""

_WITHOUT_EFFECT: Mapping[str, tuple[tuple[str, ...], str]] = {
    "channel_binding": (("prefer", "disable"), _VERIFY),
    "gssencmode": (("prefer", "disable"), "leave it out, and encrypt by TLS: sslmode=verify-full"),
    "gssdelegation": (("0",), _OF_THE_DRIVER),
    "require_auth": ((), _VERIFY),
    "sslcertmode": (("allow",), _OF_THE_DRIVER),
    "sslcompression": (("0", "1"), _OF_THE_DRIVER),
    "sslsni": (("1",), _OF_THE_DRIVER),
    "sslcrldir": ((), "name one file of revoked certificates with sslcrl=FILE"),
    "sslkeylogfile": ((), "leave it out: it would write the keys of the connection into a file"),
    "requiressl": (("0",), "write sslmode=require, or better sslmode=verify-full"),
    "requirepeer": ((), _OF_THE_DRIVER),
    "hostaddr": ((), "write the address in the place of the host, and with sslmode=verify-ca check the authority alone"),
    "load_balance_hosts": (("disable", "random"), _OF_THE_DRIVER),
    "replication": (("false", "off", "no", "0"), "leave it out: the archiver uses ordinary connections"),
    "client_encoding": (("utf8", "utf-8", "auto"), "leave it out: the archiver speaks UTF-8"),
    "servicefile": ((), "name the file in PGSERVICEFILE"),
    "min_protocol_version": (("3.0",), _OF_THE_DRIVER),
    "max_protocol_version": (("3.0", "3.2", "latest"), _OF_THE_DRIVER),
    "scram_client_key": ((), "give a password instead"),
    "scram_server_key": ((), "give a password instead"),
    "oauth_issuer": ((), "give a password or a client certificate instead"),
    "oauth_client_id": ((), "give a password or a client certificate instead"),
    "oauth_client_secret": ((), "give a password or a client certificate instead"),
    "oauth_scope": ((), "give a password or a client certificate instead"),
}
"""What is dropped: by name, the values that change nothing here, and what to do with any other."""

_DONE_HERE = ("keepalives", "connect_timeout", "target_session_attrs", "fallback_application_name")

_VARIABLES = {"channel_binding": "PGCHANNELBINDING", "gssencmode": "PGGSSENCMODE", "require_auth": "PGREQUIREAUTH"}
"""Those that protect a connection are looked up in the environment, too: what somebody demands there is not passed over."""

_WRITERS = ("any", "read-write", "primary")


@dataclass(frozen=True)
class Parameters:
    """What a URL asks for, beside where it leads. `key` names it in messages."""

    key: str
    url: str
    """Without its query."""
    asked: Mapping[str, str]
    """Its query."""
    service: Mapping[str, str]

    def find(self, name: str, variable: str = "") -> str:
        """A parameter: of the query, of the service that it names, or of the environment; empty if nobody sets it."""
        return self.asked.get(name) or self.service.get(name) or (os.environ.get(variable, "") if variable else "")

    @property
    def driver_url(self) -> str:
        """The URL as the driver takes it. Raises ConfigError for what cannot be done."""
        for name, (idle, hint) in _WITHOUT_EFFECT.items():
            value = self.find(name, _VARIABLES.get(name, ""))
            if value and value.lower() not in idle:
                shown = name if name.startswith("scram") or "secret" in name else f"{name}={_shown(value)}"
                raise ConfigError(f"{self.key}: {shown} is not supported", hint=hint)
        dropped = {*_WITHOUT_EFFECT, *_KEEPALIVES, *_DONE_HERE}
        query = urlencode({name: value for name, value in self.asked.items() if name not in dropped})
        return f"{self.url}?{query}" if query else self.url

    def check_writable(self) -> None:
        """Raises ConfigError where a server is asked for that takes no writes."""
        attributes = self.find("target_session_attrs", "PGTARGETSESSIONATTRS")
        source = self.key if self.find("target_session_attrs") else "PGTARGETSESSIONATTRS in the environment"
        if attributes and attributes not in _WRITERS:
            raise ConfigError(
                f"{source}: target_session_attrs={_shown(attributes)}: the archiver needs a server that it can write to",
                hint="leave it out; of several hosts the one that takes writes is used",
            )

    @property
    def connect_seconds(self) -> float:
        """How long opening a connection may take. Without end, as libpq's 0 means it, is nothing here."""
        seconds = self._number("connect_timeout", int(CONNECT_SECONDS), "PGCONNECT_TIMEOUT")
        return min(float(seconds), MAX_CONNECT_SECONDS) if seconds > 0 else MAX_CONNECT_SECONDS

    def keep_alive(self, transport: Any) -> None:
        """Have the system notice when the other end of a connection is gone."""
        line: socket.socket = transport.get_extra_info("socket")
        if line.family == socket.AF_UNIX or self.find("keepalives") == "0":
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, option in (
            ("keepalives_idle", "TCP_KEEPIDLE"),
            ("keepalives_interval", "TCP_KEEPINTVL"),
            ("keepalives_count", "TCP_KEEPCNT"),
            ("tcp_user_timeout", "TCP_USER_TIMEOUT"),
        ):
            number = min(self._number(name, _KEEPALIVES[name]), _MOST[name])
            if number > 0 and hasattr(socket, option):  # 0: the system's own
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), number)

    def check_numbers(self) -> None:
        """Raises ConfigError for what is no number, before a connection is made."""
        for name in ("connect_timeout", "keepalives", *_KEEPALIVES):
            self._number(name, 0)

    def _number(self, name: str, default: int, variable: str = "") -> int:
        text = self.find(name, variable)
        # Longer ones overflow what the system takes.
        if text and not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 9):
            raise ConfigError(f"{self.key}: {name}={_shown(text)}: must be a whole number", hint="correct it, or leave it out")
        return int(text) if text else default


def _shown(value: str) -> str:
    """A value in a message. What may be a part of a password that has a `?` in it is not quoted."""
    return value if re.fullmatch(r"[\w.,:/+-]{1,80}", value) else "..."


def read_parameters(key: str, url: str) -> Parameters:
    """Those of a Postgres URL and its service. Raises ConfigError, and ValueError for what is no such URL; neither quotes it."""
    query = urlsplit(url).query
    asked = {name: values[-1] for name, values in parse_qs(query, strict_parsing=bool(query)).items()}
    service = _service(key, asked["service"]) if "service" in asked else {}
    return Parameters(key, url.partition("?")[0], asked, service)


def _service(key: str, name: str) -> Mapping[str, str]:
    file = os.environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")  # noqa: PTH111  # Path.expanduser may raise
    parser = configparser.ConfigParser()  # as the driver reads it, '%' included
    try:
        with Path(file).open(encoding="utf-8") as lines:
            parser.read_file(lines)
        return dict(parser[name])
    except KeyError:
        problem = f"{file} has no such section"
    except OSError as error:
        problem = f"{file}: {error.strerror}"
    except (configparser.Error, UnicodeDecodeError) as error:
        # Its text may quote the line, which may be the password's.
        problem = f"{file} cannot be read ({type(error).__name__}); a '%' in a value is written '%%'"
    raise ConfigError(
        f"{key}: service={_shown(name)}: {problem}", hint="correct the file, or name another one in PGSERVICEFILE"
    ) from None
