"""Everything goes by the proxy, and what the proxy says is never taken for the platform's word."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from yarl import URL

from archiver.archive.download import Download
from archiver.archive.media import MediaClient, MediaHosts
from archiver.config import BotSettings, NetworkSettings, S3Settings, StorageSettings
from archiver.errors import ApiUnreachable, ArchiverError, MediaHostRefused, MediaUnreachable, StoreUnavailable
from archiver.kore.answers import Answer
from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.observe.transfers import Transfer, Transfers
from archiver.outcome import HandedBack, Retry, classify
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.open import open_store
from archiver.stores.s3.signing import Signer
from tests.archive.test_media import Fixed
from tests.kore.conftest import http_answer, raw_server
from tests.runtime.network.conftest import API, BUCKET_HOST, MEDIA, Authority, ForwardProxy, forward_proxy, front, listening
from tests.s3_servers import BUCKET, S3Server

PASSWORD = "Pass word/of:the@proxy"
ENCODED = "Pass%20word%2Fof%3Athe%40proxy"

SUCCESS = json.dumps({"status": "success", "recording": [{"fileName": "a.wav", "fileUrl": f"https://{MEDIA}/a"}]}).encode()


def by(proxy: ForwardProxy, authority: Authority | None, *, login: str = "") -> Network:
    url = proxy.url.replace("://", f"://{login}@") if login else proxy.url
    bundle = str(authority.file) if authority is not None else ""
    return Network.of(NetworkSettings.model_validate({"proxy": url, "ca_bundle": bundle}), {})


async def ask(network: Network, host: str = f"https://{API}") -> Answer:
    bot = BotSettings(name="bot", host=host, bot_id="st-1", client_id="cs-1", client_secret=SecretStr("x" * 64))

    async def draw() -> None:
        pass

    async with api_session(network) as http:
        client = KoreClient(bot, http, max_files=9, on_retry=lambda error, wait: None)

        async def once() -> Answer:
            async with client.ask("s-1", draw=draw, on_answer=lambda asked: None) as asking:
                return await asking.answer()

        return await client.retrying(once)


async def fetch(network: Network, url: str, *patterns: str) -> bytes:
    client = MediaClient(MediaHosts("bot", patterns or ("*.test",)), network=network)
    try:
        async with Download(client, Fixed(url), Transfer("bot", "s", "f"), Transfers()) as body:
            return b"".join([piece async for piece in body.pieces()])
    finally:
        await client.close()


@asynccontextmanager
async def hosts(proxy: ForwardProxy, authority: Authority) -> AsyncIterator[list[str]]:
    """The platform and a media host, known to the proxy; and the heads of what they were asked."""

    def reply(head: str) -> bytes:
        if "/recordings" in head:
            return http_answer(SUCCESS)
        return http_answer(b"", "302 Found", Location=f"https://{MEDIA}/b") if "GET /a " in head else http_answer(b"audio")

    async with raw_server(reply, tls=authority.server) as raw:
        at = ("127.0.0.1", int(raw.url.rpartition(":")[2]))
        proxy.reaches |= {API: at, MEDIA: at}
        yield raw.heads


async def test_the_platform_and_media_are_reached_by_the_proxy_redirects_included(authority: Authority) -> None:
    async with forward_proxy(login=f"us er:{PASSWORD}") as proxy, hosts(proxy, authority) as heads:
        network = by(proxy, authority, login=f"us%20er:{ENCODED}")
        answer = await ask(network)
        assert await fetch(network, answer.files[0].url) == b"audio"
        assert proxy.asked == [f"{API}:443", f"{MEDIA}:443", f"{MEDIA}:443"]
        assert len(heads) == 3
        assert not any("proxy-authorization" in head.lower() for head in heads)
        assert not any("\r\nauth:" in head for head in proxy.heads)


async def test_a_proxy_may_be_spoken_to_by_tls(authority: Authority) -> None:
    async with forward_proxy(authority.server) as proxy, hosts(proxy, authority):
        network = Network.of(NetworkSettings.model_validate({"proxy": proxy.url.replace("http:", "https:")}), {})
        with pytest.raises(ApiUnreachable, match="no connection to the proxy") as caught:
            await ask(network)
        assert "network.ca_bundle" in caught.value.hint
        network = Network.of(
            NetworkSettings.model_validate({"proxy": proxy.url.replace("http:", "https:"), "ca_bundle": authority.file}), {}
        )
        assert (await ask(network)).status == "success"
        assert await fetch(network, f"https://{MEDIA}/b") == b"audio"


async def test_without_the_authority_nothing_is_asked_and_the_hint_names_the_key(authority: Authority) -> None:
    async with forward_proxy() as proxy, hosts(proxy, authority) as heads:
        with pytest.raises(ApiUnreachable) as caught:
            await ask(by(proxy, None))
        assert caught.value.reason == "api_unreachable"
        assert "network.ca_bundle" in caught.value.hint
        with pytest.raises(MediaUnreachable) as of_media:
            await fetch(by(proxy, None), f"https://{MEDIA}/b")
        assert "network.ca_bundle" in of_media.value.hint
    assert heads == []


def told(error: ArchiverError) -> str:
    return repr((error, error.message, error.hint, error.facts))


@pytest.mark.parametrize(
    ("answer", "reason", "word", "costs"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy_credentials_rejected", "password in network.proxy", False),
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "proxy_refused", "check network.proxy", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "", "check network.proxy", True),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "", "check network.proxy", True),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>Please log in</html>", "", "check network.proxy", True),
        (b"gone", "", "check network.proxy", True),
    ],
)
async def test_what_a_proxy_refuses_is_a_fault_of_the_network_and_names_it(
    authority: Authority, answer: bytes, reason: str, word: str, costs: bool
) -> None:
    async with forward_proxy(answer=answer) as proxy:
        network = by(proxy, authority, login=f"user:{ENCODED}")
        with pytest.raises(ApiUnreachable) as of_api:
            await ask(network)
        with pytest.raises(MediaUnreachable) as of_media:
            await fetch(network, f"https://{MEDIA}/a?s=SIGNATURE")
    for error, otherwise in ((of_api.value, "api_unreachable"), (of_media.value, "media_unreachable")):
        assert error.reason == (reason or otherwise)
        assert proxy.url in error.message
        assert word in error.hint
        assert not any(secret in told(error) for secret in (PASSWORD, ENCODED, "SIGNATURE", "dXNlcjpQYXNz"))
    assert isinstance(classify(of_api.value), Retry if costs else HandedBack)
    assert isinstance(classify(of_media.value), HandedBack if reason == "proxy_credentials_rejected" else Retry)


async def test_a_proxy_that_is_not_there_costs_no_attempt(authority: Authority) -> None:
    async with forward_proxy() as proxy:
        network = by(proxy, authority)
    with pytest.raises(ApiUnreachable, match=f"no connection to the proxy {network.proxy and network.proxy.url}") as caught:
        await ask(network)
    assert caught.value.reason == "proxy_unreachable"
    assert isinstance(classify(caught.value), HandedBack)


async def test_a_proxy_that_never_answers_is_given_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.runtime.network.CONNECT_SECONDS", 0.1)
    never = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with listening(serve) as port:
        network = Network.of(NetworkSettings.model_validate({"proxy": f"http://127.0.0.1:{port}"}), {})
        with pytest.raises(ApiUnreachable, match="opened no connection to platform"):
            await asyncio.wait_for(ask(network), 10)


async def test_loopback_and_metadata_are_never_asked_by_a_proxy(authority: Authority) -> None:
    async with forward_proxy() as proxy, raw_server(lambda head: http_answer(b"direct")) as raw:
        network = by(proxy, authority)
        assert await fetch(network, f"{raw.url}/x", "127.0.0.1") == b"direct"
        assert await fetch(network, f"{raw.url.replace('127.0.0.1', 'localhost')}/x", "localhost") == b"direct"
        for host in ("169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "[fe80::1]", "127.0.0.9", "[::1]", "localhost."):
            assert network.proxy_for(URL(f"http://{host}/latest/meta-data/")) is None
        assert proxy.asked == []


@pytest.mark.parametrize(
    "host", ["10.1.2.3", "169.254.169.254", "[::1]", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "x.0x7f000001"]
)
async def test_behind_a_proxy_an_inner_address_is_refused_all_the_same(authority: Authority, host: str) -> None:
    async with forward_proxy() as proxy:
        with pytest.raises(ArchiverError) as caught:
            await fetch(by(proxy, authority), f"https://{host}/x", "*")
        assert type(caught.value).__name__ in ("MediaHostRefused", "MediaUrlRefused")
        assert proxy.asked == []


async def test_behind_a_proxy_names_are_held_to_the_list(authority: Authority) -> None:
    async with forward_proxy() as proxy:
        with pytest.raises(MediaHostRefused) as caught:
            await fetch(by(proxy, authority), "https://metadata.internal/x", "*.test")
        assert caught.value.public
        assert proxy.asked == []


async def test_the_proxys_own_name_is_no_media_host(authority: Authority) -> None:
    """Where it leads to is not checked, as the proxy may well be inside."""
    network = Network.of(NetworkSettings(), {"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": "proxy.test"})
    with pytest.raises(MediaHostRefused, match="is the proxy itself"):
        await fetch(network, "https://proxy.test:8443/x", "*")


# --- buckets


def storage(endpoint: str, **keys: Any) -> StorageSettings:
    return StorageSettings.model_validate(
        {"url": f"s3://{BUCKET}/by a proxy", "allow_http": True, "s3": {"endpoint": endpoint, **keys}}
    )


@pytest.mark.once
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_bucket_is_reached_by_the_proxy(authority: Authority, seaweedfs: S3Server, scheme: str) -> None:
    """By plain http, too: then the proxy is sent the request itself."""
    server = ("127.0.0.1", int(seaweedfs.url.rpartition(":")[2]))

    tls = listening(front(seaweedfs.url), authority.server)
    async with forward_proxy(login=f"user:{PASSWORD}") as proxy, tls as port:
        proxy.reaches[BUCKET_HOST] = ("127.0.0.1", port) if scheme == "https" else server
        keys = seaweedfs.keys | {"endpoint": f"{scheme}://{BUCKET_HOST}"}
        settings = storage(**keys)
        async with open_store(settings, Buffers(2**26), by(proxy, authority, login=f"user:{ENCODED}")) as store:
            assert "s3://" in await store.check()
        assert proxy.asked[0].startswith(f"{BUCKET_HOST}:443" if scheme == "https" else f"http://{BUCKET_HOST}/{BUCKET}/")
        assert len(proxy.asked) <= 2, "connections are used again"
        with pytest.raises(StoreUnavailable) as caught:
            async with open_store(settings, Buffers(2**26), by(proxy, authority, login="user:other")) as store:
                await store.check()
    assert caught.value.facts["error"] == "ProxyFault"
    assert "rejects our credentials (HTTP 407" in caught.value.message
    assert "network.proxy" in caught.value.hint


async def test_whoever_hands_out_credentials_is_asked_by_the_proxy_and_the_instances_metadata_is_not(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = (
        b"<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleWithWebIdentityResult>"
        b"<Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>Secret-number-1</SecretAccessKey><SessionToken>Token-1"
        b"</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        b"</AssumeRoleWithWebIdentityResponse>"
    )
    (tmp_path / "token").write_text("token")
    for name, value in {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": f"https://{API}",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    async with (
        forward_proxy(login="user:pass") as proxy,
        raw_server(lambda head: http_answer(document), tls=authority.server) as raw,
    ):
        proxy.reaches[API] = ("127.0.0.1", int(raw.url.rpartition(":")[2]))
        with closing(Signer(S3Settings(region="r"), by(proxy, authority, login="user:pass"))) as signer:
            signed = await signer.sign("GET", "https://x/", {}, region="r", body_sha256="0" * 64)
            fetcher = _fetcher(signer)
        assert "Credential=ASIA1/" in signed["Authorization"]
        assert set(proxy.asked) == {f"{API}:443"}
        assert fetcher._session._proxy_config.proxy_url_for("http://169.254.169.254/") is None


def _fetcher(signer: Signer) -> Any:
    (provider,) = [p for p in signer._session.get_component("credential_provider").providers if p.METHOD == "iam-role"]
    return provider._role_fetcher


async def test_azures_identity_is_asked_for_by_the_proxy(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    from archiver.config import AzureSettings
    from archiver.stores.azure.access import access_of

    for name, value in {
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": "secret-of-azure",
        "AZURE_AUTHORITY_HOST": f"https://{API}",
        "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    document = b'{"access_token": "the-token-of-azure", "expires_in": 3600, "token_type": "Bearer"}'
    json_answer = http_answer(document, Content_Type="application/json")
    async with forward_proxy() as proxy, raw_server(lambda head: json_answer, tls=authority.server) as raw:
        proxy.reaches[API] = ("127.0.0.1", int(raw.url.rpartition(":")[2]))
        access = access_of(AzureSettings.model_validate({"account": "calls"}), by(proxy, authority))
        try:
            _, headers = await access.prove("GET", "https://x/", {}, 0)
        finally:
            await access.aclose()
        assert headers["Authorization"] == "Bearer the-token-of-azure"
        assert proxy.asked
        assert set(proxy.asked) == {f"{API}:443"}


# --- the environment


@pytest.mark.parametrize(
    ("environment", "url", "proxied"),
    [
        ({"HTTPS_PROXY": "http://p.test:3128"}, "https://platform.kore.ai/", True),
        ({"https_proxy": "p.test:3128"}, "https://platform.kore.ai/", True),
        ({"https_proxy": "", "HTTPS_PROXY": "http://p.test:3128"}, "https://platform.kore.ai/", True),
        ({"HTTPS_PROXY": "http://p.test:3128"}, "http://minio.corp.test:9000/", False),
        ({"HTTP_PROXY": "http://p.test:3128", "ALL_PROXY": "http://p.test:3128"}, "https://platform.kore.ai/", False),
        ({"HTTPS_PROXY": "http://p.test:3128"}, "https://127.0.0.1/", False),
        ({"HTTPS_PROXY": "http://p.test:3128"}, "https://localhost:8080/", False),
    ],
)
def test_the_environments_proxy(environment: Mapping[str, str], url: str, proxied: bool) -> None:
    proxy = Network.of(NetworkSettings(), environment).proxy_for(URL(url))
    assert (proxy is not None) == proxied
    assert proxy is None or proxy.url == "http://p.test:3128"


@pytest.mark.parametrize(
    ("named", "exempt", "proxied"),
    [
        ("minio.corp.test", "https://minio.corp.test/", "https://xminio.corp.test/"),
        (".corp.test", "https://minio.corp.test/", "https://corp.test.evil/"),
        ("corp.test", "https://MINIO.corp.test./", "https://evilcorp.test/"),
        ("*.corp.test", "https://a.corp.test/", "https://corp.test.x/"),
        ("a.test, minio.test", "https://minio.test/", "https://b.test/"),
        ("a.test minio.test", "https://minio.test/", "https://b.test/"),
        ("minio.test:9000", "https://minio.test:9000/", "https://minio.test/"),
        ("10.0.0.0/8", "https://10.1.2.3/", "https://11.1.2.3/"),
        ("10.1.2.3", "https://10.1.2.3/", "https://10.1.2.30/"),
        ("[2001:db8::1]", "https://[2001:db8::1]/", "https://[2001:db8::2]/"),
        ("*", "https://anything.test/", None),
        (",, ,", None, "https://anything.test/"),
    ],
)
def test_no_proxy_says_what_is_reached_directly(named: str, exempt: str | None, proxied: str | None) -> None:
    network = Network.of(NetworkSettings(), {"HTTPS_PROXY": "http://p.test:3128", "NO_PROXY": named})
    assert exempt is None or network.proxy_for(URL(exempt)) is None
    assert proxied is None or network.proxy_for(URL(proxied)) is not None


async def test_what_no_proxy_names_is_reached_directly(authority: Authority) -> None:
    async with forward_proxy() as proxy, raw_server(lambda head: http_answer(b"direct"), tls=authority.server) as raw:
        environment = {"HTTPS_PROXY": proxy.url, "NO_PROXY": "media.test"}
        network = Network.of(NetworkSettings.model_validate({"ca_bundle": authority.file}), environment)
        assert await fetch(network, f"{raw.url}/x", "127.0.0.1") == b"direct"
        with pytest.raises(MediaUnreachable, match=f"Cannot connect to host {MEDIA}"):  # there is no such name
            await fetch(network, f"https://{MEDIA}/x")
        assert proxy.asked == []


def test_the_key_comes_before_the_environment() -> None:
    settings = NetworkSettings.model_validate({"proxy": "http://key.test:1"})
    network = Network.of(settings, {"HTTPS_PROXY": "http://p.test:3128", "NO_PROXY": "*"})
    assert network.proxy is not None
    assert (network.proxy.url, network.exempt) == ("http://key.test:1", ())


def test_the_password_is_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    from archiver.observe.redact import redact

    network = Network.of(NetworkSettings.model_validate({"proxy": "http://user:Open-Sesame-77@proxy.test:3128"}), {})
    assert network.proxy is not None
    for text in (repr(network), str(network.proxy), repr(NetworkSettings.model_validate({"proxy": network.proxy.whole_url}))):
        assert "Sesame" not in text
    for secret in (network.proxy.whole_url, network.proxy.authorization, "Open-Sesame-77"):
        assert "Sesame" not in redact(secret)
        assert "T3Blbi1TZXNhbWUtNzc" not in redact(secret)
    logging.getLogger("archiver").debug("%r", network)
    assert "Sesame" not in caplog.text


def test_no_bundle_leaves_the_systems_authorities_alone() -> None:
    assert Network.of(NetworkSettings(), {}).tls is True


def test_a_bundle_is_trusted_beside_the_systems_authorities(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    tls = Network.of(NetworkSettings.model_validate({"ca_bundle": authority.file}), {}).tls
    assert isinstance(tls, ssl.SSLContext)
    names = {str(dict(pair[0] for pair in found["subject"]).get("commonName")) for found in tls.get_ca_certs()}  # type: ignore[misc]
    assert "Test Authority" in names
    assert len(names) > 50
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
