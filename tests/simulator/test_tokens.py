"""Who is let in."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from archiver.simulator.platform import Simulator, SimulatorSettings

from .conftest import SESSION, Client

if TYPE_CHECKING:
    import aiohttp


@pytest.fixture(autouse=True)
def a_session(sim: Simulator) -> None:
    sim.script({"session_id": SESSION})


def unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


async def test_a_good_token_is_accepted(client: Client) -> None:
    answer = await client.ask()
    assert (answer.status, answer.json["status"]) == (200, "success")


async def test_claims_about_time_are_optional(client: Client) -> None:
    assert (await client.ask(token=client.token(iat=None, exp=None))).status == 200


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"appId": None}, "appId"),
        ({"appId": "cs-someone-else"}, "appId"),
        ({"appId": None, "appID": "cs"}, "appId"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"exp": 1_600_000_000}, "expired"),
        ({"iat": 4_000_000_000}, "iat"),
    ],
)
async def test_a_wrong_claim_is_refused(client: Client, claims: dict[str, Any], says: str) -> None:
    answer = await client.ask(token=client.token(**claims))
    assert answer.status == 401
    assert says in answer.message


async def test_app_id_is_spelled_exactly(client: Client) -> None:
    answer = await client.ask(token=client.token(appId=None, appid=client.sim.client_id))
    assert answer.status == 401


async def test_clocks_may_differ_by_a_few_seconds(client: Client) -> None:
    now = int(time.time())
    assert (await client.ask(token=client.token(iat=now + 3, exp=now - 3))).status == 200


@pytest.mark.parametrize("headers", [{}, {"auth": ""}, {"auth": "no token"}, {"auth": "a.b.c"}])
async def test_no_token_is_refused(client: Client, headers: dict[str, str]) -> None:
    assert (await client.ask(headers=headers)).status == 401


async def test_a_wrong_signature_is_refused(client: Client) -> None:
    assert (await client.ask(token=client.token("w" * 64))).status == 401


async def test_an_algorithm_that_is_not_enabled_is_refused(client: Client) -> None:
    answer = await client.ask(token=client.token(algorithm="HS512"))
    assert answer.status == 401
    assert "HS512" in answer.message
    client.sim.settings.algorithms = ("HS512",)
    assert (await client.ask(token=client.token(algorithm="HS512"))).status == 200


async def test_an_unsigned_token_is_refused(client: Client) -> None:
    answer = await client.ask(token=unsigned({"sub": "a", "appId": client.sim.client_id}))
    assert answer.status == 401
    assert "none" in answer.message


async def test_the_authorization_header_is_not_looked_at_but_noted(client: Client) -> None:
    answer = await client.ask(headers={"Authorization": f"Bearer {client.token()}"})
    assert answer.status == 401
    api = client.sim.report()["api"]
    assert (api["authorization_header_seen"], api["unauthorized"]) == (1, 1)


async def test_a_short_secret_is_taken_as_it_is(http: aiohttp.ClientSession) -> None:
    async with Simulator(SimulatorSettings(client_secret="short")) as sim:
        with pytest.warns(UserWarning, match="key"):
            token = Client(sim, http).token()
        assert (await Client(sim, http).ask(token=token)).status == 200


async def test_a_token_can_be_used_again_unless_jti_is_enforced(client: Client) -> None:
    token = client.token(jti="one")
    assert [(await client.ask(token=token)).status for _ in range(2)] == [200, 200]
    client.sim.settings.enforce_jti = True
    assert [(await client.ask(token=token)).status for _ in range(2)] == [200, 401]
    assert (await client.ask(token=client.token(jti="two"))).status == 200
    assert "jti" in (await client.ask(token=client.token())).message


async def test_where_jwe_is_enforced_a_signed_token_is_refused_and_told_why(client: Client) -> None:
    client.sim.settings.enforce_jwe = True
    answer = await client.ask()
    assert answer.status == 401
    assert "encrypted" in answer.message
    assert "JWE" in answer.message


@pytest.mark.parametrize("algorithm", ["RS256", "RS512"])
async def test_rsa_tokens_are_checked_with_the_public_key(http: aiohttp.ClientSession, algorithm: str) -> None:
    private, other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    public_pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    settings = SimulatorSettings(algorithms=(algorithm,), public_key_pem=public_pem.decode())
    async with Simulator(settings) as sim:
        client = Client(sim, http)
        for key, status in ((private, 200), (other, 401)):
            pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            answer = await client.ask(token=client.token(pem.decode(), algorithm))
            assert answer.status == status
        assert (await client.ask()).status == 401  # HS256, with the right secret


def test_rsa_without_a_public_key_cannot_be_set_up() -> None:
    with pytest.raises(ValueError, match="public_key_pem"):
        SimulatorSettings(algorithms=("RS256",))


async def test_another_bot_is_not_found(client: Client) -> None:
    answer = await client.ask(bot_id="st-other")
    assert answer.status == 404
    assert answer.json["errors"]


async def test_each_bot_has_its_own_credentials(client: Client) -> None:
    client.sim.add_bot("st-two", "cs-two", "2" * 64)
    assert (await client.ask(bot_id="st-two")).status == 401
    answer = await client.ask(bot_id="st-two", token=client.token("2" * 64, appId="cs-two"))
    assert answer.json["status"] == "success"


async def test_all_credentials_can_be_rejected_for_a_while(client: Client) -> None:
    client.sim.reject_credentials = True
    assert (await client.ask()).status == 401
    client.sim.reject_credentials = False
    assert (await client.ask()).status == 200
    assert client.sim.report()["api"]["by_session"] == {SESSION: 1}
