"""Who gets to hear the password: nobody beyond this machine who has not proved who they are, unless somebody said so.

The servers here are on loopback. `127.1` is that too, to the resolver; to us it is a name as any other, which may lead anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from archiver.config import DatabaseSettings
from archiver.errors import ArchiverError, ConfigError, DatabaseUnreachable
from archiver.postgres.database import Database, open_database
from archiver.postgres.tls import endpoint_of
from archiver.queue.sql import sql

ELSEWHERE = "127.1"

SSL_REQUEST = bytes.fromhex("0000000804d2162f")

PEM = serialization.Encoding.PEM


@pytest.fixture(autouse=True)
def nothing_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An account that nothing of Postgres is set up for."""
    import os

    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


class Authority:
    """Signs certificates, and says which it takes back."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = self._written(f"{name}.pem", self._certificate.public_bytes(PEM))

    def certificate(self, *names: str) -> Path:
        """A key and a certificate for these names, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        addresses = [x509.IPAddress(ipaddress.ip_address(name)) for name in names if name[-2:] == ".0.1"]
        listed = x509.SubjectAlternativeName([*(x509.DNSName(name) for name in names), *addresses])
        signed = self._sign(subject, key, listed)
        plain = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._written(f"{signed.serial_number}.pem", plain + signed.public_bytes(PEM))

    def took_back(self, *files: Path) -> Path:
        """The list of certificates that are good no more."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now, now + timedelta(days=1))
        for file in files:
            serial = x509.load_pem_x509_certificate(file.read_bytes()).serial_number
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now).build())
        return self._written("crl.pem", builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(days=1)
        )
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())

    def _written(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@dataclass
class Front:
    """What ends TLS before a Postgres, as poolers and the proxies of clouds do; without a context it has none. Keeps what it
    heard in clear, and what inside of TLS.
    """

    url: str
    context: ssl.SSLContext | None
    in_clear: bytearray = field(default_factory=bytearray)
    inside: bytearray = field(default_factory=bytearray)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.in_clear += await reader.readexactly(8)
            if self.context is None:
                writer.write(b"N")
                self.in_clear += await reader.read()
            else:
                writer.write(b"S")
                await writer.start_tls(self.context)
                await self.relay(reader, writer)
        writer.close()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = urlsplit(self.url)
        answers, server = await asyncio.open_connection(at.hostname, at.port)

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter, heard: bytearray) -> None:
            with contextlib.suppress(ConnectionError):  # a server that ends with something unread resets the connection
                while data := await source.read(65536):
                    heard += data
                    to.write(data)
            to.close()

        await asyncio.gather(copy(reader, server, self.inside), copy(answers, writer, bytearray()), return_exceptions=True)
        server.close()


@asynccontextmanager
async def front(database_url: str, certificate: Path | None, clients: Path | None = None) -> AsyncIterator[tuple[Front, str]]:
    """A front, and the URL that leads through it, ready for a query."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
    one = Front(database_url, context)
    under_way: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        await one.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield one, elsewhere(database_url, server.sockets[0].getsockname()[1])
        server.close()
        await asyncio.wait_for(asyncio.gather(*under_way), 20)


def elsewhere(database_url: str, port: int | None = None) -> str:
    """The same, by a name that is not this machine's for sure."""
    at = urlsplit(database_url)
    return f"postgresql://{at.username}:{at.password}@{ELSEWHERE}:{port or at.port}{at.path}"


async def refusal(url: str, kind: type[ArchiverError]) -> str:
    """What is said of a URL that leads nowhere; never its password."""
    with pytest.raises(kind) as caught:
        async with Database(url, pool_size=1):
            pass
    told = f"{caught.value} | {caught.value.hint}"
    assert str(urlsplit(url).password) not in told
    assert "\n" not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return told


async def protection(url: str) -> str:
    async with Database(url, pool_size=1) as database:
        await database.rows(sql("report/clock"))
        return await database.protection()


async def test_a_server_without_tls_hears_nothing(database_url: str) -> None:
    async with front(database_url, None) as (heard, url):
        told = await refusal(url, DatabaseUnreachable)
    assert bytes(heard.in_clear) == SSL_REQUEST
    assert told.startswith("database.url: the server has no TLS, so nothing was sent to it | ")
    assert "sslrootcert=FILE" in told
    assert "sslmode=disable" in told


async def test_nor_does_one_whose_certificate_nobody_vouches_for(
    database_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with front(database_url, Authority(tmp_path, "stranger").certificate(ELSEWHERE)) as (heard, url):
        told = await refusal(url, DatabaseUnreachable)
    assert bytes(heard.in_clear) == SSL_REQUEST
    assert heard.inside == b""
    assert told.startswith("database.url: the server's certificate is not trusted: unable to get local issuer certificate | ")
    assert "sslrootcert=FILE" in told
    assert "sslmode=require" in told


async def test_the_authorities_are_the_systems_unless_others_are_named(
    database_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with front(database_url, authority.certificate(ELSEWHERE)) as (heard, url):
        for named in (f"?sslrootcert={authority.file}", f"?sslmode=verify-full&sslrootcert={authority.file}"):
            assert await protection(url + named) == "TLSv1.3, certificate verified"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        for named in ("", "?sslmode=verify-full", "?sslmode=verify-full&sslrootcert=system", "?ssl_min_protocol_version=TLSv1.3"):
            assert await protection(url + named) == "TLSv1.3, certificate verified"
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.file))
        assert await protection(url) == "TLSv1.3, certificate verified"
        monkeypatch.delenv("PGSSLROOTCERT")
        (tmp_path / ".postgresql").mkdir()
        (tmp_path / ".postgresql" / "root.crt").write_bytes(authority.file.read_bytes())
        assert await protection(url) == "TLSv1.3, certificate verified"
    assert heard.in_clear.replace(SSL_REQUEST, b"") == b""


async def test_a_certificate_for_another_name_is_refused_unless_that_is_waived(database_url: str, authority: Authority) -> None:
    async with front(database_url, authority.certificate("other.example")) as (_, url):
        told = await refusal(f"{url}?sslrootcert={authority.file}", DatabaseUnreachable)
        assert "Hostname mismatch, certificate is not valid for '127.1'" in told
        assert "sslmode=verify-ca" in told
        waived = await protection(f"{url}?sslmode=verify-ca&sslrootcert={authority.file}")
    assert waived == "TLSv1.3, certificate verified without its host name (sslmode=verify-ca given)"


async def test_a_mode_that_is_given_is_meant(database_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with front(database_url, authority.certificate("other.example")) as (_, url):
        assert await protection(f"{url}?sslmode=require") == "TLSv1.3, certificate not verified (sslmode=require given)"
        assert await protection(f"{url}?sslmode=prefer") == "TLSv1.3, certificate not verified (sslmode=prefer given)"
        assert "not trusted" in await refusal(
            f"{url}?sslmode=require&sslrootcert={Authority(authority.file.parent, 'else').file}", DatabaseUnreachable
        ), "as libpq has it, authorities that are named are asked"
    plain = elsewhere(database_url)
    for mode in ("disable", "allow", "prefer"):
        assert await protection(f"{plain}?sslmode={mode}") == "loopback, no TLS"
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert await protection(plain) == "loopback, no TLS"
    assert "has no TLS" in await refusal(f"{plain}?sslmode=require", DatabaseUnreachable)


async def test_a_socket_of_this_machine_needs_no_tls(database_url: str, tmp_path: Path) -> None:
    at = urlsplit(database_url)
    one = Front(database_url, None)
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await one.relay(reader, writer)
        ended.set()

    async with await asyncio.start_unix_server(serve, tmp_path / ".s.PGSQL.5432"):
        assert await protection(f"postgresql://{at.username}:{at.password}@{at.path}?host={tmp_path}") == "Unix socket"
        await asyncio.wait_for(ended.wait(), 20)


async def test_a_client_proves_itself_by_a_certificate_too(database_url: str, authority: Authority) -> None:
    own = authority.certificate("archiver")
    async with front(database_url, authority.certificate(ELSEWHERE), clients=authority.file) as (_, url):
        trusted = f"{url}?sslrootcert={authority.file}"
        assert await protection(f"{trusted}&sslcert={own}") == "TLSv1.3, certificate verified"
        assert await protection(f"{trusted}&sslcert={own}&sslkey={own}") == "TLSv1.3, certificate verified"
        await refusal(trusted, DatabaseUnreachable)


async def test_files_are_read_anew_for_each_connection(database_url: str, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    async with (
        front(database_url, authority.certificate(ELSEWHERE)) as (_, url),
        Database(f"{url}?sslrootcert={file}", pool_size=1) as database,
    ):
        file.unlink()
        async with database.connection() as connection:
            # Here, not at the server: that would race with what the client sends next.
            connection.terminate()
        with pytest.raises(DatabaseUnreachable, match=f'sslrootcert = "{file}": must be a file that can be read: No such'):
            await database.rows(sql("report/clock"))
        file.write_bytes(authority.file.read_bytes())
        await database.rows(sql("report/clock"))


async def test_a_certificate_that_was_taken_back_is_refused(database_url: str, authority: Authority) -> None:
    certificate = authority.certificate(ELSEWHERE)
    async with front(database_url, certificate) as (_, url):
        listed = f"{url}?sslrootcert={authority.file}&sslcrl="
        assert await protection(f"{listed}{authority.took_back()}") == "TLSv1.3, certificate verified"
        assert "certificate revoked" in await refusal(f"{listed}{authority.took_back(certificate)}", DatabaseUnreachable)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sslrootcert=/no/such.pem", 'sslrootcert = "/no/such.pem": must be a file that can be read: No such file or directory'),
        (
            "sslmode=verify-full&sslrootcert=/no/such.pem",
            'sslrootcert = "/no/such.pem": must be a file that can be read: No such file',
        ),
        ("sslrootcert=/dev/null", 'sslrootcert = "/dev/null": must be a file of PEM certificates: no certificate or crl found'),
        (
            "sslmode=prefer&sslcert=/no/such.crt",
            'sslcert, sslkey = "/no/such.crt": must be a file that can be read: No such file',
        ),
        ("sslmode=verify-ca", "database.url: sslmode=verify-ca needs sslrootcert"),
        ("sslmode=verify-ca&sslrootcert=system", "database.url: sslrootcert=system needs sslmode=verify-full"),
        (
            "sslmode=perhaps",
            'database.url: sslmode = "perhaps": must be one of disable, allow, prefer, require, verify-ca, verify-full',
        ),
        (
            "ssl_min_protocol_version=TLSv9",
            'database.url: "TLSv9" must be a version of TLS: TLSv1, TLSv1.1, TLSv1.2, TLSv1.3',
        ),
        ("service=none", "/.pg_service.conf: No such file or directory | correct the file, or name another one in PGSERVICEFILE"),
    ],
)
async def test_what_is_wrong_with_a_parameter_names_it_and_what_it_holds(query: str, says: str) -> None:
    assert says in await refusal(f"postgresql://u:hunter2hunter2@{ELSEWHERE}:1/x?{query}", ConfigError)


async def test_a_service_may_say_where_and_how(
    database_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service"
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    async with front(database_url, authority.certificate(ELSEWHERE)) as (_, url):
        at = urlsplit(url)
        where = f"[a]\nhost={at.hostname}\nport={at.port}\nuser={at.username}\npassword={at.password}\ndbname={at.path[1:]}\n"
        file.write_text(where)
        assert "not trusted" in await refusal("postgresql://?service=a", DatabaseUnreachable)
        file.write_text(f"{where}sslrootcert={authority.file}\n")
        assert await protection("postgresql://?service=a") == "TLSv1.3, certificate verified"
        file.write_text(f"{where}sslmode=require\n")
        assert await protection("postgresql://?service=a") == "TLSv1.3, certificate not verified (sslmode=require given)"
    assert f"service=b: {file} has no such section" in await refusal("postgresql://?service=b", ConfigError)
    file.write_text("[a]\npassword=half%of-it\n")
    told = await refusal("postgresql://?service=a", ConfigError)
    assert "a '%' in a value is written '%%'" in told
    assert "of-it" not in told


async def test_the_connection_that_listens_is_held_to_the_same(database_url: str, authority: Authority) -> None:
    trusted = f"?sslrootcert={authority.file}"
    async with front(database_url, authority.certificate(ELSEWHERE)) as (heard, url):
        settings = DatabaseSettings.model_validate({"url": database_url, "listen_url": url + trusted})
        async with open_database(settings, pool_size=1) as database:
            assert await database.protection() == "loopback, no TLS; listen_url: TLSv1.3, certificate verified"
            async with database.listening(asyncio.Event()), database.alone("test", on_wait=lambda: None):
                pass
        clear = bytes(heard.in_clear)
        async with Database(database_url, listen_dsn=url, pool_size=1) as database:
            for use in (database.listening(asyncio.Event()), database.alone("test", on_wait=lambda: None)):
                with pytest.raises(DatabaseUnreachable, match=r"^database\.listen_url: the server's certificate is not trusted"):
                    async with use:
                        pass
    assert clear == SSL_REQUEST * 3


@pytest.mark.parametrize(
    ("url", "variables", "mode", "hosts", "ports"),
    [
        ("postgresql://localhost/x", {}, "", ["localhost"], [5432]),
        ("postgresql://LOCALHOST:1/x", {}, "", ["LOCALHOST"], [1]),
        ("postgresql://127.9.9.9/x", {}, "", ["127.9.9.9"], [5432]),
        ("postgresql://u:p@[::1]:1/x", {}, "", ["::1"], [1]),
        ("postgresql://u:p@[fe80::1%25lo]/x", {}, "verify-full", ["fe80::1%lo"], [5432]),
        ("postgresql://db:/x", {"PGPORT": "7"}, "verify-full", ["db"], [7]),
        ("postgresql://%2Frun%2Fpg:1/x", {}, "", ["/run/pg"], [1]),
        ("postgresql:///x?host=/run/pg", {}, "", ["/run/pg"], [5432]),
        ("postgresql:///x?host=/run/pg,::1", {}, None, None, None),
        ("postgresql:///x", {}, "", None, None),
        ("postgresql:///x", {"PGHOST": "/run/pg"}, "", ["/run/pg"], [5432]),
        ("postgresql:///x", {"PGHOST": "db", "PGPORT": "7"}, "verify-full", ["db"], [7]),
        ("postgresql://db/x", {}, "verify-full", ["db"], [5432]),
        ("postgresql://localhost.example/x", {}, "verify-full", ["localhost.example"], [5432]),
        ("postgresql://127.0.0.1.example/x", {}, "verify-full", ["127.0.0.1.example"], [5432]),
        ("postgresql://2130706433/x", {}, "verify-full", ["2130706433"], [5432]),
        ("postgresql://0.0.0.0/x", {}, "verify-full", ["0.0.0.0"], [5432]),
        ("postgresql://localhost:1,db:2/x", {}, "verify-full", ["localhost", "db"], [1, 2]),
        ("postgresql:///x?host=localhost,db&port=1,2", {}, "verify-full", ["localhost", "db"], [1, 2]),
        ("postgresql://db/x?host=localhost", {}, "verify-full", ["db"], [5432]),
        ("postgresql://localhost/x?host=db", {}, "", ["localhost"], [5432]),
        ("postgresql://localhost/x", {"PGSSLMODE": "require"}, "require", ["localhost"], [5432]),
        ("postgresql://db/x", {"PGSSLMODE": "prefer"}, "prefer", ["db"], [5432]),
        ("postgresql://db/x?sslmode=disable", {"PGSSLMODE": "require"}, "disable", ["db"], [5432]),
        ("postgresql://localhost/x?sslrootcert=system", {}, "verify-full", ["localhost"], [5432]),
        ("postgresql://localhost/x", {"PGSSLROOTCERT": "system"}, "", ["localhost"], [5432]),
        ("postgresql://db:x/x", {}, None, None, None),
        ("postgresql://db,db:1:2/x", {}, None, None, None),
        ("postgresql:///x?host=a,b&port=1,2,3", {}, None, None, None),
    ],
)
async def test_where_a_url_leads_and_what_it_asks_for(
    url: str,
    variables: dict[str, str],
    mode: str | None,
    hosts: list[str] | None,
    ports: list[int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if mode is None:
        with pytest.raises(ValueError):
            await endpoint_of("database.url", url)
        return
    endpoint = await endpoint_of("database.url", url)
    assert (endpoint.mode, endpoint.arguments["host"], endpoint.arguments["port"]) == (mode, hosts, ports)
    protects = endpoint.arguments["ssl"]
    assert isinstance(protects, ssl.SSLContext) == (mode in ("require", "verify-ca", "verify-full"))
    assert not isinstance(protects, ssl.SSLContext) or protects.check_hostname == (mode == "verify-full")
