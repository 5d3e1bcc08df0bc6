"""Signed URLs count byte for byte, and for their time alone."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest

from archiver.simulator.urls import UrlSigner
from tests.simulator.conftest import SESSION, Client

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def a_session(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "recordings": [{"audio": {"raw": "the recording"}}]})


def reencoded(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(parse_qsl(parts.query, keep_blank_values=True))))


async def test_a_url_looks_like_the_vendors(client: Client) -> None:
    (url,) = await client.urls()
    assert url.startswith(client.sim.media_url + "/")
    assert client.sim.media_url != client.sim.api_url
    uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    path = rf"/api/getMediaStream/smartassistrecording/UAT/o-{uuid}/st-{uuid}/\d{{4}}/\d\d-\d\d-\d{{4}}/f-{uuid}\.wav"
    assert re.fullmatch(path + r"\?e=\d{10}&n=\d{10}&s=[^&?#]+\$\$", url.removeprefix(client.sim.media_url))
    for trap in ("$$", "+", "%2B", "/", "=", "%2a", "%7E"):
        assert trap in url.partition("&s=")[2]
    expires = int(url.partition("?e=")[2].partition("&")[0])
    assert abs(expires - time.time() - 60) <= 2


async def test_a_url_as_given_serves_the_recording(client: Client) -> None:
    (url,) = await client.urls()
    answer = await client.fetch(url)
    assert (answer.status, answer.body) == (200, b"the recording")
    assert (answer.headers["Content-Type"], answer.headers["Content-Length"]) == ("audio/wav", "13")


@pytest.mark.parametrize(
    "alter",
    [
        reencoded,
        lambda url: url.replace("%2B", "+"),
        lambda url: url.replace("%2B", "%2b"),
        lambda url: url.replace("+", "%20"),
        lambda url: url.replace("%7E", "~"),
        lambda url: url.replace("%2a", "*"),
        lambda url: url.replace("$$", "%24%24"),
        lambda url: url.removesuffix("$$"),
        lambda url: re.sub(r"e=\d{10}", "e=4000000000", url),
        lambda url: url.replace("/UAT/", "/uat/"),
        lambda url: url.replace("/UAT/", "/%55AT/"),
        lambda url: url + "&x=1",
        lambda url: url.partition("?")[0],
    ],
)
async def test_an_altered_url_is_forbidden(client: Client, alter: Callable[[str], str]) -> None:
    (url,) = await client.urls()
    assert alter(url) != url
    answer = await client.fetch(alter(url))
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
    assert b"<Code>AccessDenied</Code>" in answer.body
    assert client.sim.report()["media"]["altered_urls"] == 1


async def test_a_client_that_reencodes_is_forbidden(client: Client) -> None:
    (url,) = await client.urls()
    assert (await client.fetch(url, encoded=False)).status == 403
    assert (await client.fetch(url, encoded=True)).status == 200


async def test_an_expired_url_is_forbidden(client: Client) -> None:
    client.sim.settings.url_lifetime = 0
    (url,) = await client.urls()
    answer = await client.fetch(url)
    assert answer.status == 403
    assert b"expired" in answer.body
    media = client.sim.report()["media"]
    assert (media["expired_urls"], media["altered_urls"]) == (1, 0)


async def test_the_first_url_handed_out_can_be_expired(client: Client) -> None:
    fault = {"kind": "expired"}
    client.sim.script({"session_id": SESSION, "recordings": [{"audio": {"raw": "x"}, "faults": [fault]}]})
    (dead,), (fresh,) = await client.urls(), await client.urls()
    assert [(await client.fetch(url)).status for url in (dead, fresh)] == [403, 200]


def test_a_lifetime_is_kept_to_the_millisecond() -> None:
    signer = UrlSigner()
    target = signer.check(signer.sign("/f.wav", 1_709_706_278.125))
    assert target is not None
    assert (target.path, target.expires) == ("/f.wav", 1_709_706_278.125)


def test_another_simulator_does_not_recognise_the_url() -> None:
    assert UrlSigner().check(UrlSigner().sign("/f.wav", 4e9)) is None


@pytest.mark.parametrize("header", ["auth", "Authorization"])
async def test_a_token_that_reaches_the_media_origin_is_noted(client: Client, header: str) -> None:
    (url,) = await client.urls()
    assert (await client.fetch(url, headers={header: client.token()})).status == 200
    assert client.sim.report()["media"]["leaked_auth"] == 1


async def test_only_get_is_allowed(client: Client) -> None:
    (url,) = await client.urls()
    async with client.http.post(url) as response:
        assert response.status == 405
