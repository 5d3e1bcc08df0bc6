"""What a bucket's server, and those who tell us who we are, may take of our time: none of them holds a slot for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from archiver.config import S3Settings, StorageSettings
from archiver.errors import StoreError, StoreUnavailable
from archiver.runtime import retry as transient
from archiver.runtime.buffers import Buffers
from archiver.stores import Store
from archiver.stores.azure.access import Identity
from archiver.stores.bucket import wire
from archiver.stores.open import open_store
from archiver.stores.s3.signing import Signer
from tests.kore.conftest import dripping, http_answer, raw_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is a tenth of a second."""
    monkeypatch.setattr(wire, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(wire, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(transient, "SECONDS", 0.0)


@asynccontextmanager
async def store_at(kind: str, url: str) -> AsyncIterator[Store]:
    settings = {
        "s3": {"url": "s3://bucket/x", "s3": {"endpoint": url, "access_key_id": "a", "secret_access_key": "b", "region": "r"}},
        "azure": {"url": "az://container/x", "azure": {"account": "account", "endpoint": url, "account_key": "c2VjcmV0"}},
    }
    async with open_store(StorageSettings.model_validate(settings[kind]), Buffers(2**26)) as store:
        yield store


@pytest.mark.parametrize("kind", ["s3", "azure"])
@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"\r\n", b" "),
        (b"HTTP/1.1 403 No\r\nContent-Length: 99999\r\n\r\n", b" "),
    ],
    ids=["header", "100-continue", "body", "refusal"],
)
async def test_an_answer_that_drips_is_an_unavailable_store(kind: str, first: bytes, drip: bytes) -> None:
    async with dripping(first, drip) as url, store_at(kind, url) as store:
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(store.check(), 10)


@pytest.mark.parametrize("kind", ["s3", "azure"])
async def test_of_what_a_server_says_little_is_kept(kind: str) -> None:
    body = b"<Error><Code>" + b"C" * 100_000 + b"</Code><Message>" + b"M" * 100_000 + b"</Message></Error>"
    answer = http_answer(body, "409 Conflict", x_amz_request_id="R" * 5000, x_ms_request_id="R" * 5000)
    async with raw_server(lambda head: answer) as raw, store_at(kind, raw.url) as store:
        with pytest.raises(StoreError) as caught:
            await asyncio.wait_for(store.check(), 10)
    assert len(str(caught.value)) + len(str(caught.value.facts)) < 5000


async def test_an_object_that_is_brought_byte_by_byte_is_not_read_for_ever() -> None:
    async def read(store: Store) -> None:
        async for _ in store.read("a/b"):
            pass

    async with dripping(OK + b'ETag: "x"\r\n\r\n', b"x") as url, store_at("s3", url) as store:
        with pytest.raises(StoreUnavailable, match="broke off"):
            await asyncio.wait_for(read(store), 10)


async def test_credentials_that_drip_are_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.stores.s3.signing.LOOKUP_SECONDS", 0.3)
    async with dripping(OK + b"\r\n{", b" ") as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
        signer = Signer(S3Settings(region="r"))
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="no credentials for S3: no answer within"):
                await asyncio.wait_for(signer.sign("GET", "https://x/", {}, region="r", body_sha256=""), 10)


async def test_a_token_of_azure_that_never_comes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never:
        async def get_token(self, *_: str) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("archiver.stores.azure.access.LOOKUP_SECONDS", 0.2)
    with pytest.raises(StoreUnavailable, match="no credentials for Azure: no answer within"):
        await asyncio.wait_for(Identity(cast("Any", Never())).prove("GET", "https://x/", {}, 0), 10)
