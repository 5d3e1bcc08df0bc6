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
from tests.simulator.conftest import SESSION, Client

if TYPE_CHECKING:
    import aiohttp


@pytest.fixture(autouse=True)
def a_session(sim: Simulator) -> None:
    sim.script({"session_id": SESSION})


def because(client: Client) -> str:
    """Why the last call was refused, which its answer doesn't say."""
    return str(client.sim.report()["api"]["last_refusal"])


def unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


async def test_a_good_token_is_accepted(client: Client) -> None:
    answer = await client.ask()
    assert (answer.status, answer.json["status"]) == (200, "success")


async def test_claims_about_time_are_optional(client: Client) -> None:
    assert (await client.ask(token=client.token(iat=None, exp=None))).status == 200


@pytest.mark.parametrize(
    ("claims", "why", "says"),
    [
        ({"appId": None}, "appId", "Invalid SDK credentials"),
        ({"appId": "cs-someone-else"}, "appId", "Invalid SDK credentials"),
        ({"appId": None, "appID": "cs"}, "appId", "Invalid SDK credentials"),
        ({"sub": None}, "sub", "Invalid JWT token"),
        ({"sub": ""}, "sub", "Invalid JWT token"),
        ({"exp": 1_600_000_000}, "expired", "Invalid JWT token"),
        ({"iat": 4_000_000_000}, "iat", "Invalid JWT token"),
    ],
)
async def test_a_wrong_claim_is_refused(client: Client, claims: dict[str, Any], why: str, says: str) -> None:
    answer = await client.ask(token=client.token(**claims))
    assert (answer.status, answer.json) == (401, {"errors": [{"msg": says, "code": 4002}]})
    assert why in because(client)


async def test_app_id_is_spelled_exactly(client: Client) -> None:
    answer = await client.ask(token=client.token(appId=None, appid=client.sim.client_id))
    assert answer.status == 401


async def test_clocks_may_differ_by_a_few_seconds(client: Client) -> None:
    now = int(time.time())
    assert (await client.ask(token=client.token(iat=now + 3, exp=now - 3))).status == 200


@pytest.mark.parametrize("headers", [{}, {"auth": ""}, {"auth": "no token"}, {"auth": "a.b.c"}])
async def test_no_token_is_refused(client: Client, headers: dict[str, str]) -> None:
    answer = await client.ask(headers=headers)
    assert (answer.status, answer.message) == (401, "Invalid JWT token" if headers.get("auth") else "Invalid SDK credentials")


async def test_a_wrong_signature_is_refused(client: Client) -> None:
    assert (await client.ask(token=client.token("w" * 64))).status == 401


async def test_an_algorithm_that_is_not_enabled_is_refused(client: Client) -> None:
    answer = await client.ask(token=client.token(algorithm="HS512"))
    assert answer.status == 401
    assert "HS512" in because(client)
    client.sim.settings.algorithms = ("HS512",)
    assert (await client.ask(token=client.token(algorithm="HS512"))).status == 200


async def test_an_unsigned_token_is_refused(client: Client) -> None:
    answer = await client.ask(token=unsigned({"sub": "a", "appId": client.sim.client_id}))
    assert answer.status == 401
    assert "none" in because(client)


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
    assert (await client.ask(token=client.token())).message == "Invalid JWT token"
    assert "jti" in because(client)


async def test_where_jwe_is_enforced_a_signed_token_is_refused_and_told_why(client: Client) -> None:
    client.sim.settings.enforce_jwe = True
    answer = await client.ask()
    assert answer.status == 401
    assert answer.message.startswith("Invalid JWT token: ")
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


async def test_a_bot_of_nobody_is_refused_as_one_of_another_app_or_is_not_found(client: Client) -> None:
    client.sim.add_bot("st-two", "cs-two", "2" * 64)
    for bot_id in ("st-nobodys", "st-two"):
        answer = await client.ask(bot_id=bot_id)
        assert (answer.status, answer.message) == (401, "Invalid SDK credentials")
        assert (await client.sessions(bot_id=bot_id)).message == "Invalid SDK credentials"
        assert (await client.details(headers={"iId": bot_id})).message == "Invalid SDK credentials"
    client.sim.alter({"unknown_bot_status": 404})
    assert [(await client.ask(bot_id=bot_id)).status for bot_id in ("st-nobodys", "st-two")] == [404, 401]


async def test_a_token_is_judged_before_the_bot_that_it_asks_for(client: Client) -> None:
    client.sim.add_bot("st-two", "cs-two", "2" * 64)
    client.sim.alter({"scopes": []})
    for bot_id in ("st-nobodys", "st-two"):
        forged = await client.ask(bot_id=bot_id, token=client.token("another secret" * 5))
        assert (forged.status, forged.message) == (401, "Invalid JWT token")
        assert (await client.ask(bot_id=bot_id)).message == "Invalid SDK credentials", "and the scope last"
    unknown = await client.ask(token=client.token(appId="cs-nobody"))
    assert (unknown.status, unknown.message) == (401, "Invalid SDK credentials")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("token", "Invalid JWT token"),
        ("credentials", "Invalid SDK credentials"),
        ("scope", "Permission denied. Scope is incorrect!"),
    ],
)
async def test_each_cause_of_a_refusal_can_be_scripted(client: Client, wrong: str, says: str) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "unauthorized", "http_status": 403, "wrong": wrong}]})
    answer = await client.ask()
    assert (answer.status, answer.json) == (403, {"errors": [{"msg": says, "code": 4002}]})


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
