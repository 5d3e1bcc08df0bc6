"""Who the archiver is to Azure: signatures beside Azure's own client's, and identities as Azure's library finds them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

from archiver.config import AzureSettings, StorageSettings
from archiver.errors import ConfigError, StoreUnavailable
from archiver.observe.redact import MASK, redact
from archiver.runtime.buffers import Buffers
from archiver.stores.azure.access import Identity, SasToken, SharedKey, access_of
from archiver.stores.bucket.store import BucketStore
from archiver.stores.open import open_store
from tests.azure_servers import ACCOUNT, ACCOUNT_KEY

URL = "https://calls.blob.core.windows.net/audio/a%20b/%C3%BC%26%27.wav"


@pytest.mark.parametrize("query", ["", "?comp=blocklist", "?blockid=YWJj%2BZA%3D%3D&comp=block", "?restype=container"])
@pytest.mark.parametrize(
    ("method", "headers", "length"),
    [
        ("PUT", {"Content-MD5": "AAAA", "If-None-Match": "*", "Content-Type": "application/xml", "x-ms-meta-sha256": "ab"}, 12),
        ("PUT", {"Content-Type": "application/octet-stream", "x-ms-blob-type": "BlockBlob", "x-ms-blob-content-type": "b/c"}, 0),
        ("GET", {"If-Match": '"0x1"'}, 0),
        ("HEAD", {}, 0),
        ("DELETE", {"x-ms-version": "2023-11-03", "x-ms-date": "Fri, 02 Jan 2026 03:04:05 GMT"}, 0),
    ],
)
async def test_signatures_are_those_of_azure_s_own_client(query: str, method: str, headers: dict[str, str], length: int) -> None:
    request = HttpRequest(method, URL + query, headers={**headers, **({"Content-Length": str(length)} if length else {})})
    request.query = dict(pair.split("=", 1) for pair in query[1:].split("&")) if query else {}
    policy: Any = SharedKeyCredentialPolicy
    policy(ACCOUNT, ACCOUNT_KEY).on_request(PipelineRequest(request, PipelineContext(cast("Any", None))))

    url, signed = await SharedKey(ACCOUNT, ACCOUNT_KEY).prove(method, URL + query, headers, length)

    assert url == URL + query
    assert signed == {**headers, "Authorization": request.headers["Authorization"]}


def test_a_key_that_is_none_is_told_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="must be Base64") as caught:
        access_of(AzureSettings.model_validate({"account": "calls", "account_key": "not!base64"}))
    assert "not!base64" not in str(caught.value)


async def test_a_sas_goes_along_with_the_url_and_stays_out_of_sight() -> None:
    access = access_of(AzureSettings.model_validate({"account": "calls", "sas_token": "?sp=r&se=2027-01-01&sig=A%2Bbcdefgh%3D"}))
    assert isinstance(access, SasToken)
    assert (await access.prove("GET", URL, {}, 0))[0] == f"{URL}?sp=r&se=2027-01-01&sig=A%2Bbcdefgh%3D"
    assert (await access.prove("GET", f"{URL}?a=b", {}, 0))[0] == f"{URL}?a=b&sp=r&se=2027-01-01&sig=A%2Bbcdefgh%3D"
    assert "2027-01-01" in repr(access)
    assert "bcdefgh" not in repr(access)
    for text in ("A+bcdefgh=", "A%2Bbcdefgh%3D"):
        assert redact(f"so {text} it is") == f"so {MASK} it is"


# --- identities


@dataclass
class Credential:
    """An identity whose tokens last as long as the test says."""

    lasts: float = 3600
    fails: Exception | None = None
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.asked += scopes
        if self.fails is not None:
            raise self.fails
        return AccessToken(f"token-number-{len(self.asked)}", int(time.time() + self.lasts))

    async def close(self) -> None:
        self.closed = True


async def authorization(access: Identity) -> str:
    _, headers = await access.prove("GET", URL, {}, 0)
    return headers["Authorization"]


async def test_a_token_is_used_while_it_lasts_and_then_renewed_and_forgotten() -> None:
    credential = Credential()
    access = Identity(cast("Any", credential))
    assert [await authorization(access) for _ in range(3)] == ["Bearer token-number-1"] * 3
    assert credential.asked == ["https://storage.azure.com/.default"]
    assert "token-number" not in redact(f"{access!r} token-number-1")
    access.distrust()  # as when the service refuses it
    credential.lasts = 200
    assert await authorization(access) == "Bearer token-number-2"
    assert redact("token-number-1 token-number-2") == f"token-number-1 {MASK}"
    assert await authorization(access) == "Bearer token-number-3"  # less than five minutes are left: renewed each time
    await access.aclose()
    assert credential.closed


async def test_a_token_that_still_lasts_is_used_while_none_can_be_had() -> None:
    credential = Credential(lasts=200)
    access = Identity(cast("Any", credential))
    await authorization(access)
    credential.fails = OSError("no route to the token service\nand more")
    assert await authorization(access) == "Bearer token-number-1"
    access.distrust()
    with pytest.raises(StoreUnavailable, match=r"no credentials for Azure: no route to the token service and more$") as caught:
        await authorization(access)
    assert caught.value.facts == {"error": "OSError"}
    assert "managed identity" in caught.value.hint


@dataclass
class Cloud:
    """A machine of Azure: its token service and its blobs, both on loopback."""

    url: str = ""
    tokens: int = 0
    seen: list[str] = field(default_factory=list)
    accepts: bool = True

    async def token(self, request: web.Request) -> web.Response:
        assert request.headers["X-IDENTITY-HEADER"] == "of-the-platform"
        assert request.query["resource"] == "https://storage.azure.com"
        self.tokens += 1
        expires = str(int(time.time()) + 3600)
        return web.json_response(
            {"access_token": f"token-of-the-cloud-{self.tokens}", "expires_on": expires, "token_type": "Bearer", "resource": "r"}
        )

    async def blob(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers["Authorization"])
        if not self.accepts:
            return web.Response(status=401, headers={"x-ms-error-code": "InvalidAuthenticationInfo"})
        return web.Response(headers={"Content-Length": "7"})


@pytest.fixture
async def cloud(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """The environment is that of such a machine."""
    cloud = Cloud()
    app = web.Application()
    app.router.add_get("/token", cloud.token)
    app.router.add_route("HEAD", "/calls/{path:.*}", cloud.blob)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cloud.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{cloud.url}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of-the-platform")
    try:
        yield cloud
    finally:
        await runner.cleanup()


async def test_without_a_key_the_identity_of_the_machine_is_used(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    settings = StorageSettings.model_validate({"url": "az://audio/x", "azure": {"endpoint": f"{cloud.url}/calls"}})
    async with open_store(settings, Buffers(2**26)) as store:
        assert isinstance(store, BucketStore)
        assert [await store.size("a.wav"), await store.size("b.wav")] == [7, 7]
        assert cloud.seen == ["Bearer token-of-the-cloud-1"] * 2
        cloud.accepts = False
        with pytest.raises(StoreUnavailable, match="InvalidAuthenticationInfo"):
            await store.size("a.wav")
    assert not [record for record in caplog.records if "token-of-the-cloud" in record.getMessage()]


async def test_without_any_identity_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    settings = StorageSettings.model_validate({"url": "az://audio/x", "azure": {"account": "calls"}})
    async with open_store(settings, Buffers(2**26)) as store:
        with pytest.raises(StoreUnavailable, match="no credentials for Azure") as caught:
            await store.size("a.wav")
    assert "account_key_file" in caught.value.hint


def test_an_environment_that_makes_no_sense_is_a_mistake_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "Nobody")
    with pytest.raises(ConfigError, match="AZURE_TOKEN_CREDENTIALS") as caught:
        access_of(AzureSettings.model_validate({"account": "calls"}))
    assert "AZURE_" in caught.value.hint


async def test_without_the_extra_the_error_names_it_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "azure.identity.aio", None)
    monkeypatch.setitem(__import__("sys").modules, "azure.identity", None)
    for keys, needed in (({}, True), ({"account_key": ACCOUNT_KEY}, False)):
        settings = StorageSettings.model_validate({"url": "az://audio/x", "azure": {"account": "calls", **keys}})
        if needed:
            with pytest.raises(ConfigError, match="needs an extra") as caught:
                async with open_store(settings, Buffers(2**26)):
                    pass
            assert caught.value.hint == "pip install 'kore-archiver[azure]'"
        else:
            async with open_store(settings, Buffers(2**26)) as store:
                assert ACCOUNT_KEY not in repr(store)
