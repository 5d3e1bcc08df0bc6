"""Where a store's requests go, as whom, and that servers take the signature."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from archiver.config import S3Settings, StorageSettings
from archiver.errors import ConfigError, StoreUnavailable
from archiver.observe.redact import MASK, redact
from archiver.runtime.buffers import Buffers
from archiver.stores.open import open_store
from archiver.stores.s3.driver import open_s3, s3_store
from archiver.stores.s3.signing import Signer, Site
from archiver.stores.s3.wire import S3Wire
from tests.s3_servers import BUCKET, DOMAIN, S3Server
from tests.stores.harnesses import new_prefix

pytestmark = pytest.mark.once

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(autouse=True)
def no_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that nothing of AWS is set up on. Returns where its configuration would be."""
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


class Recorder:
    """An HTTP server that says yes to everything, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.requests.append(request)
        return web.Response(headers={"ETag": '"x"'})


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    runner = web.ServerRunner(web.Server(recorder))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield recorder
    await runner.cleanup()


class Everywhere(AbstractResolver):
    """A name server by which every host is this one."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def wire(http: aiohttp.ClientSession, endpoint: str, bucket: str = BUCKET, *, path_style: bool = False, **keys: str) -> S3Wire:
    settings = S3Settings.model_validate({"access_key_id": "AKIA", "secret_access_key": "Particular-7", **keys})
    return S3Wire(http, Signer(settings), Site(endpoint, "eu-north-1"), bucket, path_style)


@asynccontextmanager
async def everywhere() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Everywhere())) as http:
        yield http


@pytest.mark.parametrize(
    ("endpoint", "bucket", "path_style", "url"),
    [
        ("https://s3.eu-north-1.amazonaws.com", "calls", False, "https://calls.s3.eu-north-1.amazonaws.com/a%20b/%C3%BC~%2B.wav"),
        ("https://s3.eu-north-1.amazonaws.com", "calls", True, "https://s3.eu-north-1.amazonaws.com/calls/a%20b/%C3%BC~%2B.wav"),
        ("https://s3.test:9000", "my.calls", False, "https://s3.test:9000/my.calls/a%20b/%C3%BC~%2B.wav"),
        ("https://s3.test:9000", "calls", False, "https://calls.s3.test:9000/a%20b/%C3%BC~%2B.wav"),
        ("http://127.0.0.1:9000", "calls", False, "http://127.0.0.1:9000/calls/a%20b/%C3%BC~%2B.wav"),
        ("http://[::1]:9000", "calls", False, "http://[::1]:9000/calls/a%20b/%C3%BC~%2B.wav"),
        ("http://localhost:9000", "calls", False, "http://localhost:9000/calls/a%20b/%C3%BC~%2B.wav"),
        ("https://x.test/storage/v1/s3", "calls", True, "https://x.test/storage/v1/s3/calls/a%20b/%C3%BC~%2B.wav"),
    ],
)
async def test_the_address_of_an_object(endpoint: str, bucket: str, path_style: bool, url: str) -> None:
    async with everywhere() as http:
        assert wire(http, endpoint, bucket, path_style=path_style).url("a b/ü~+.wav") == url
        query = {"uploadId": "a/b=", "partNumber": "3"}
        assert wire(http, endpoint, bucket, path_style=path_style).url("k", query).endswith("/k?partNumber=3&uploadId=a%2Fb%3D")


@pytest.mark.parametrize("spelled", [DOMAIN.upper(), f"{DOMAIN}."])
async def test_a_host_with_capitals_or_a_dot_at_its_end_is_signed_as_it_is_sent(seaweedfs: S3Server, spelled: str) -> None:
    port = seaweedfs.url.rpartition(":")[2]
    settings = S3Settings.model_validate({**seaweedfs.keys, "endpoint": f"http://{spelled}:{port}", "path_style": True})
    async with everywhere() as http:
        line = S3Wire(http, Signer(settings), Site(settings.endpoint, "us-east-1"), BUCKET, path_style=True)
        assert await line.head("nothing") is None


async def test_a_bucket_in_the_host_name_is_what_a_real_server_takes_the_signature_for(seaweedfs: S3Server) -> None:
    port = seaweedfs.url.rpartition(":")[2]
    settings = S3Settings.model_validate({**seaweedfs.keys, "endpoint": f"http://{DOMAIN}:{port}", "path_style": False})
    async with everywhere() as http:
        line = S3Wire(http, Signer(settings), Site(settings.endpoint, "us-east-1"), BUCKET, path_style=False)
        assert line.url("k").startswith(f"http://{BUCKET}.{DOMAIN}:{port}/")
        store = s3_store(line, new_prefix() + "/", settings, Buffers(2**26))
        async with store.upload("a b/ü.wav", part=".x.part") as upload:
            await upload.write(bytes(6 * 2**20))
            await upload.save()
        assert await store.size("a b/ü.wav") == 6 * 2**20


async def test_what_goes_out_is_signed_and_names_the_bucket(recorder: Recorder) -> None:
    port = recorder.url.rpartition(":")[2]
    async with everywhere() as http:
        line = wire(http, f"http://s3.test:{port}", "calls", session_token="Particular-token")
        await line.send("PUT", "a b.wav", headers={"If-None-Match": "*"})
    (request,) = recorder.requests
    assert request.headers["Host"] == f"calls.s3.test:{port}"
    assert request.raw_path == "/a%20b.wav"
    signed = request.headers["Authorization"]
    assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKIA/")
    assert "/eu-north-1/s3/aws4_request" in signed
    assert "SignedHeaders=host;if-none-match;x-amz-content-sha256;x-amz-date;x-amz-security-token" in signed
    assert request.headers["x-amz-security-token"] == "Particular-token"
    assert request.headers["x-amz-content-sha256"] == EMPTY


@pytest.mark.parametrize(
    ("keys", "environment", "site"),
    [
        ({"region": "eu-north-1"}, {}, Site("https://s3.eu-north-1.amazonaws.com", "eu-north-1")),
        ({}, {"AWS_DEFAULT_REGION": "cn-north-1"}, Site("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1")),
        (
            {"region": "eu-north-1"},
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            Site("https://s3.dualstack.eu-north-1.amazonaws.com", "eu-north-1"),
        ),
        ({}, {"AWS_ENDPOINT_URL_S3": "http://minio:9000"}, Site("http://minio:9000", "us-east-1")),
        ({"endpoint": "http://minio:9000/"}, {"AWS_DEFAULT_REGION": "x-1"}, Site("http://minio:9000", "x-1")),
        ({"endpoint": "http://minio:9000", "region": "y-1"}, {"AWS_DEFAULT_REGION": "x-1"}, Site("http://minio:9000", "y-1")),
    ],
)
def test_where_requests_go(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], environment: dict[str, str], site: Site
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Signer(S3Settings.model_validate(keys)).site() == site


@pytest.mark.parametrize(
    ("keys", "environment", "named"),
    [
        ({}, {"AWS_ENDPOINT_URL_S3": "http://minio:9000"}, "http://minio:9000"),
        ({}, {"AWS_ENDPOINT_URL": "HTTP://minio:9000"}, "http://minio:9000"),
        ({"endpoint": "https://minio:9000"}, {"AWS_ENDPOINT_URL_STS": "http://sts:1"}, "http://sts:1"),
        ({"endpoint": "https://minio:9000", "profile": "audit"}, {}, "http://sts.example"),
        (
            {"endpoint": "https://minio:9000", "access_key_id": "A", "secret_access_key": "-"},
            {"AWS_ENDPOINT_URL": "http://h"},
            "",
        ),
        ({"endpoint": "https://minio:9000"}, {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"}, ""),
    ],
)
async def test_nor_may_awss_own_settings_lead_to_another_machine_in_the_open(
    monkeypatch: pytest.MonkeyPatch, no_chain: Path, keys: dict[str, str], environment: dict[str, str], named: str
) -> None:
    (no_chain / "config").write_text(
        "[profile audit]\nservices = own\n[services own]\nsts =\n  endpoint_url = http://sts.example\n"
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = StorageSettings.model_validate({"url": "s3://bucket", "s3": {"region": "x-1", **keys}})
    if named:
        with pytest.raises(ConfigError, match=r"storage\.allow_http = true") as caught:
            async with open_s3(settings, Buffers(2**26)):
                pass
        assert named in str(caught.value).lower()
    for allowed in (settings.model_copy(update={"allow_http": True}), *([] if named else [settings])):
        async with open_s3(allowed, Buffers(2**26)):
            pass


async def test_an_endpoint_of_awss_own_settings_with_a_password_in_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, no_chain: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://user:Particular-7@minio:9000")
    settings = StorageSettings.model_validate({"url": "s3://bucket", "s3": {"region": "x-1"}})
    with pytest.raises(ConfigError, match="must have no user in it") as caught:
        async with open_s3(settings, Buffers(2**26)):
            pass
    assert "Particular-7" not in str(caught.value)


async def test_a_profile_provides_what_the_settings_leave_out(no_chain: Path) -> None:
    (no_chain / "config").write_text("[profile audit]\nregion = eu-south-1\n")
    (no_chain / "credentials").write_text("[audit]\naws_access_key_id = AKIA-audit\naws_secret_access_key = Particular-6\n")
    signer = Signer(S3Settings(profile="audit"))
    assert signer.site() == Site("https://s3.eu-south-1.amazonaws.com", "eu-south-1")
    signed = await signer.sign("GET", "https://x/", {}, region="eu-south-1", body_sha256=EMPTY)
    assert "AKIA-audit" in signed["Authorization"]
    assert redact("<Particular-6>") == f"<{MASK}>"
    with pytest.raises(ConfigError, match="nobody"):
        Signer(S3Settings(profile="nobody"))


async def test_without_any_credentials_the_error_says_so() -> None:
    with pytest.raises(StoreUnavailable, match="no credentials for S3 were found") as caught:
        await Signer(S3Settings(region="eu-north-1")).sign("GET", "https://x/", {}, region="", body_sha256=EMPTY)
    assert "access_key_id" in caught.value.hint


class Container:
    """What a container of AWS asks for its credentials, on loopback. `lasts`: seconds; None: it is out of order."""

    def __init__(self, lasts: float | None) -> None:
        self.lasts = lasts
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.hold = threading.Event()
        self.hold.set()
        self.reached = threading.Event()
        lock = threading.Lock()
        container = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    container.asked += 1
                    number = container.asked
                    container.at_once += 1
                    container.most_at_once = max(container.at_once, container.most_at_once)
                container.reached.set()
                container.hold.wait(10)
                with lock:
                    container.at_once -= 1
                if container.lasts is None:
                    self.send_error(500)
                    return
                body = json.dumps(
                    {
                        "AccessKeyId": f"ASIA{number}",
                        "SecretAccessKey": f"Secret-number-{number}",
                        "Token": f"Token-number-{number}",
                        "Expiration": (datetime.now(UTC) + timedelta(seconds=container.lasts)).isoformat(),
                    }
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/credentials"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    container = Container(lasts=3600)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.url)
    yield container
    container.close()


async def _key_of(signer: Signer) -> str:
    signed = await signer.sign("GET", "https://x/", {}, region="r", body_sha256=EMPTY)
    return signed["Authorization"].partition("Credential=")[2].partition("/")[0]


async def test_credentials_that_last_are_asked_for_once(container: Container) -> None:
    signer = Signer(S3Settings(region="r"))
    assert {await _key_of(signer) for _ in range(3)} == {"ASIA1"}
    assert container.asked == 1


async def test_credentials_are_renewed_before_they_run_out_by_one_and_beside_the_loop(container: Container) -> None:
    container.lasts = 20
    signer = Signer(S3Settings(region="r"))
    first = await _key_of(signer)
    asked = container.asked
    container.reached.clear()
    container.hold.clear()
    waiting = [asyncio.create_task(_key_of(signer)) for _ in range(5)]
    assert await asyncio.to_thread(container.reached.wait, 10)  # the loop runs on meanwhile
    container.lasts = 3600
    container.hold.set()
    (second,) = set(await asyncio.gather(*waiting))
    assert second != first
    assert container.most_at_once == 1
    assert await _key_of(signer) == second
    assert container.asked == asked + 1
    for secret in ("Secret-number", "Token-number"):
        assert redact(f"<{secret}-{asked + 1}>") == f"<{MASK}>"
        # That one was good for 20 s, and would be looked for in every text for ever after.
        assert redact(f"<{secret}-{asked}>") == f"<{secret}-{asked}>"


async def test_short_credentials_are_not_asked_for_with_every_request(container: Container) -> None:
    """botocore would renew what lasts less than a quarter of an hour whenever it is used."""
    container.lasts = 300
    signer = Signer(S3Settings(region="r"))
    await _key_of(signer)
    asked = container.asked
    assert {await _key_of(signer) for _ in range(5)} == {f"ASIA{asked}"}
    assert container.asked == asked


async def test_credentials_that_cannot_be_renewed_are_used_as_long_as_they_last(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.lasts = 300
    signer = Signer(S3Settings(region="r"))
    key = await _key_of(signer)
    container.lasts = None
    monkeypatch.setattr("archiver.stores.s3.signing.RENEW_SECONDS", 0.0)
    assert await _key_of(signer) == key
    monkeypatch.setattr("archiver.stores.s3.signing.LAST_SECONDS", 400)
    with pytest.raises(StoreUnavailable, match="no credentials for S3"):
        await _key_of(signer)


async def test_credentials_that_the_server_refuses_are_looked_for_afresh(container: Container, seaweedfs: S3Server) -> None:
    settings = StorageSettings.model_validate({"url": f"s3://{BUCKET}", "s3": {"endpoint": seaweedfs.url}})
    async with open_s3(settings, Buffers(2**26)) as store:
        for number in (1, 2):
            with pytest.raises(StoreUnavailable, match="InvalidAccessKeyId"):
                await store.check()
            assert container.asked == number


async def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore" or name.startswith("archiver.stores.s3.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    settings = StorageSettings.model_validate({"url": "s3://bucket/prefix"})
    with pytest.raises(ConfigError, match="needs an extra") as caught:
        async with open_store(settings, Buffers(2**26)):
            pass
    assert caught.value.hint == "pip install 'kore-archiver[s3]'"
