"""TLS to the database: as libpq's parameters say, and verified where they say nothing.

libpq's own default, `prefer`, hands the password to whoever answers in the server's place and has no TLS. So without an `sslmode`
a server beyond this machine has to prove who it is (`verify-full`), by the authorities of `sslrootcert`, of
~/.postgresql/root.crt, or else of the system. An `sslmode` that somebody gave is what they meant, in the URL, its service or
PGSSLMODE. Unix sockets and loopback stay on the machine: there the default is libpq's.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg

from archiver.config import is_loopback
from archiver.errors import ConfigError, DatabaseUnreachable
from archiver.observe.redact import remember_secret
from archiver.postgres.parameters import MAX_CONNECT_SECONDS, Parameters, read_parameters

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_WAIVER = (
    "name the file of the authority that signed it with sslrootcert=FILE in the URL, or set an explicit sslmode: "
    "sslmode=require encrypts without verifying, sslmode=disable does neither"
)

_VERSIONS = {version.name.replace("_", "."): version for version in ssl.TLSVersion if version.name.startswith("TLSv")}

_SERVER = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.%a-z]+)\]|(?P<name>[^:\[\]]*))(:(?P<port>[0-9]{0,5}))?")

NEXT_SERVER = (
    OSError,
    TimeoutError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it is starting, or being shut down
)
"""After these another server of the URL is tried."""

_NAME_DIFFERS = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


@dataclass(frozen=True)
class Endpoint:
    """Where a URL leads, and with which TLS. `arguments` go to asyncpg beside the `url`, so that it connects to what was checked,
    and to a server that takes writes. `mode` is the `sslmode` that applies; `given`: it was set explicitly.
    """

    url: str
    arguments: dict[str, Any]
    mode: str
    given: bool
    parameters: Parameters

    async def connect(self, *, writes: bool = True, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to the first server that takes writes, or else, unless it `writes`, to the first that answers; `options`
        are asyncpg's. Each server has as long as the URL allows: the driver would give up with the first one that does not
        answer, or is still starting.
        """
        if writes:
            self.parameters.check_writable()
        arguments = {**self.arguments, **options}
        servers = list(zip(arguments["host"], arguments["port"], strict=True)) if arguments["host"] else [(None, None)]
        arguments["timeout"] = min(self.parameters.connect_seconds, MAX_CONNECT_SECONDS / len(servers))
        refusals: dict[str, Exception] = {}
        readers: list[tuple[str | None, int | None]] = []
        for attributes in ("read-write",) if writes else ("read-write", "any"):
            for host, port in servers if attributes == "read-write" else readers:
                server = {"host": host, "port": port, "target_session_attrs": attributes}
                try:
                    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self.url, **{**arguments, **server})
                except NEXT_SERVER as error:
                    refusals[f"{host}:{port}"] = error
                    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
                        readers.append((host, port))
                    continue
                try:
                    self.parameters.keep_alive(_transport_of(connection))
                except BaseException:
                    connection.terminate()
                    raise
                return connection
        if len(refusals) == 1:
            raise next(iter(refusals.values()))
        told = (f"{server} ({_refusal(error)})" for server, error in refusals.items())
        raise DatabaseUnreachable(f"none of the servers can be used: {', '.join(told)}")

    def describe(self, connection: Any) -> str:
        """What protects a connection made to it, for people."""
        transport = _transport_of(connection)
        tls, peer = transport.get_extra_info("ssl_object"), transport.get_extra_info("peername")
        given = f" (sslmode={self.mode} given)" if self.given else ""
        if tls is None:
            if not isinstance(peer, tuple):
                return "Unix socket"
            return "loopback, no TLS" if is_loopback(peer[0]) else f"not encrypted{given}"
        if tls.context.check_hostname:
            return f"{tls.version()}, certificate verified"
        if tls.context.verify_mode == ssl.CERT_REQUIRED:
            return f"{tls.version()}, certificate verified without its host name{given}"
        return f"{tls.version()}, certificate not verified{given}"


async def endpoint_of(key: str, url: str) -> Endpoint:
    """The endpoint of a Postgres URL. Raises ConfigError that names `key`, and ValueError for what is not such a URL; neither
    quotes the URL.
    """
    parts = urlsplit(url)
    parameters = read_parameters(key, url)
    parameters.check_numbers()
    find = parameters.find
    for secret in (unquote(parts.password or ""), find("password", "PGPASSWORD")):
        remember_secret(secret)
    servers = parts.netloc.rpartition("@")[2]
    listed = (servers or find("host", "PGHOST")).split(",")
    hosts, ports = _addresses(listed, find("port", "PGPORT")) if any(listed) else (None, None)
    mode = find("sslmode", "PGSSLMODE")
    if mode and mode not in MODES:
        raise ConfigError(
            f'{key}: sslmode = "{mode}": must be one of {", ".join(MODES)}', hint="correct it in the URL or in PGSSLMODE"
        )
    given = bool(mode)
    # Who names authorities wants them asked, wherever the server is.
    if not given and (find("sslrootcert", "") or not all([await _is_local(host) for host in hosts or ()])):
        mode = "verify-full"
    protection: ssl.SSLContext | str | None = mode or None
    if mode not in ("", "disable"):
        # Off the loop: the system's authorities are a long file. The lesser modes are asyncpg's to try in their order; which file
        # is missing it would not say.
        context = await asyncio.to_thread(_context, key, find, mode)
        protection = context if mode in ("require", "verify-ca", "verify-full") else mode
    arguments = {"host": hosts, "port": ports, "ssl": protection}
    return Endpoint(parameters.driver_url, arguments, mode, given, parameters)


def _refusal(error: Exception) -> str:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "a standby, or read-only"
    return str(error) or type(error).__name__


def _transport_of(connection: Any) -> asyncio.BaseTransport:
    transport: asyncio.BaseTransport = connection._transport  # asyncpg has no public way to it
    return transport


@contextmanager
def tls_refused(key: str) -> Iterator[None]:
    """Turn TLS failures of the server into DatabaseUnreachable, whose hint names the authority and the waiver."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        hint = _WAIVER
        if error.verify_code in _NAME_DIFFERS:
            hint = (
                "name the server in the URL as its certificate does, or check its authority alone: sslmode=verify-ca and "
                "sslrootcert=FILE"
            )
        raise DatabaseUnreachable(
            f"{key}: the server's certificate is not trusted: {error.verify_message.rstrip('.')}", hint=hint
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or type(error).__name__
        raise DatabaseUnreachable(f"{key}: no TLS connection: {reason}", hint=_WAIVER) from None
    except ConnectionError as error:
        if "rejected SSL upgrade" not in str(error):  # asyncpg's words for it
            raise
        raise DatabaseUnreachable(
            f"{key}: the server has no TLS, so nothing was sent to it",
            hint="switch TLS on there (`ssl = on`), and name its authority with sslrootcert=FILE if it is private; or "
            "go without TLS, with an explicit sslmode=disable in the URL",
        ) from None


def _addresses(listed: list[str], ports: str) -> tuple[list[str], list[int]]:
    """Hosts and ports, as many of each. Raises ValueError."""
    found: list[tuple[str, str]] = []
    others = (ports or "5432").split(",")
    others = others * len(listed) if len(others) == 1 else others
    for server, other in zip(listed, others, strict=True):
        if server.startswith("/"):
            found.append((server, other))
            continue
        match = _SERVER.fullmatch(server)
        if match is None:
            raise ValueError("no host")
        # A socket's folder stands percent-encoded where a URL has its host, and so does the % before an address's zone.
        found.append((unquote(match["address"] or match["name"]) or "localhost", match["port"] or other))
    return [host for host, _ in found], [int(port) for _, port in found]


async def _is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine. Only addresses and `localhost` count: any other name may change."""
    if host.startswith("/"):
        return True
    if host.lower() != "localhost":
        return is_loopback(host)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return False
    return all(is_loopback(str(address[0])) for *_, address in found)


def _context(key: str, find: Callable[[str, str], str], mode: str) -> ssl.SSLContext:
    """The TLS context for a mode and its files, those in libpq's usual places included. Raises ConfigError."""
    # Not Python's default context: that refuses certificates for blemishes (VERIFY_X509_STRICT) which libpq bears.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    authorities = find("sslrootcert", "PGSSLROOTCERT") or _default_file("root.crt")
    if authorities == "system" and mode != "verify-full":
        raise ConfigError(
            f"{key}: sslrootcert=system needs sslmode=verify-full",
            hint="set sslmode=verify-full: the system's authorities sign for anybody, so only the host name proves anything",
        )
    if mode in ("allow", "prefer") or (mode == "require" and not authorities):
        context.verify_mode = ssl.CERT_NONE
    elif authorities not in ("", "system"):
        with _explaining(key, "sslrootcert", authorities):
            context.load_verify_locations(cafile=authorities)
    elif mode == "verify-full":
        context.load_default_certs()
    else:
        raise ConfigError(
            f"{key}: sslmode=verify-ca needs sslrootcert, and there is no ~/.postgresql/root.crt",
            hint="name the file of the server's authority with sslrootcert=FILE, or use sslmode=verify-full",
        )
    revoked = find("sslcrl", "PGSSLCRL") or _default_file("root.crl")
    if revoked and context.verify_mode == ssl.CERT_REQUIRED:
        with _explaining(key, "sslcrl", revoked):
            context.load_verify_locations(cafile=revoked)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    if own := find("sslcert", "PGSSLCERT") or _default_file("postgresql.crt"):
        with _explaining(key, "sslcert, sslkey", own):
            private = find("sslkey", "PGSSLKEY") or _default_file("postgresql.key")
            context.load_cert_chain(own, private or None, password=lambda: find("sslpassword", ""))
    if version := find("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"):
        context.minimum_version = _version(key, version)
    if version := find("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"):
        context.maximum_version = _version(key, version)
    context.set_alpn_protocols(["postgresql"])  # Postgres 17 wants it of those who begin with TLS at once
    return context


def _default_file(name: str) -> str:
    """The path of a file in ~/.postgresql; empty if there is none."""
    path = os.path.expanduser(f"~/.postgresql/{name}")  # noqa: PTH111  # Path.expanduser raises where there is no home
    return path if os.path.isfile(path) else ""  # noqa: PTH113  # as does Path.is_file where it is closed


@contextmanager
def _explaining(key: str, parameter: str, path: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or "not PEM"
        raise ConfigError(
            f'{key}: {parameter} = "{path}": must be a file of PEM certificates: {reason}', hint="name a file of PEM certificates"
        ) from None
    except OSError as error:
        raise ConfigError(
            f'{key}: {parameter} = "{path}": must be a file that can be read: {error.strerror}',
            hint="name a file that the archiver's user can read",
        ) from None


def _version(key: str, text: str) -> ssl.TLSVersion:
    if text not in _VERSIONS:
        raise ConfigError(f'{key}: "{text}" must be a version of TLS: {", ".join(_VERSIONS)}', hint="correct it, or leave it out")
    return _VERSIONS[text]
