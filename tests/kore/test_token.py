"""Tokens: accepted by the platform, reused as long as that is right, learned to be single-use where they are."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from archiver.errors import ConfigError, CredentialsRejected
from archiver.kore import clock as clock_module
from archiver.kore import token as token_module
from archiver.kore.token import LIFETIME, RENEW_BEFORE, TokenSigner
from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.kore.conftest import SESSION, KoreHarness, asking, bot_of

RSA = rsa.generate_private_key(65537, 2048)
PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


PRIVATE = pem(RSA, serialization.NoEncryption())


class Clock:
    """Stands in for the module's `time`, because a token lasts for minutes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(token_module, "time", clock)
    return clock


def test_the_claims_are_those_that_the_platform_wants(simulator: Simulator) -> None:
    signer = TokenSigner(bot_of(simulator))
    one, other = (jwt.decode(each, simulator.client_secret, algorithms=["HS256"]) for each in (signer.token(), signer.renew()))
    assert set(one) == {"sub", "appId", "iat", "exp", "jti"}
    assert one["sub"]
    assert one["appId"] == simulator.client_id
    assert one["exp"] - time.time() == pytest.approx(LIFETIME, abs=5)
    assert time.time() - one["iat"] == pytest.approx(60, abs=5)
    assert one["jti"] != other["jti"]


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "RS256", "RS512"])
async def test_every_algorithm_is_accepted(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PRIVATE)
    async with Simulator(SimulatorSettings(algorithms=(algorithm,), public_key_pem=PUBLIC, account_rate_limits=())) as platform:
        async with asking(bot_of(platform, algorithm=algorithm, private_key_file=tmp_path / "key.pem")) as kore:
            assert (await kore.ask()).status == "media_unavailable"
        assert platform.report()["api"]["unauthorized"] == 0


async def test_another_algorithm_than_the_apps_is_refused() -> None:
    settings = SimulatorSettings(algorithms=("RS256",), public_key_pem=PUBLIC, account_rate_limits=())
    async with Simulator(settings) as platform, asking(bot_of(platform)) as kore:
        with pytest.raises(CredentialsRejected):
            await kore.ask()


def test_a_token_is_reused_until_shortly_before_it_expires(simulator: Simulator, clock: Clock) -> None:
    signer = TokenSigner(bot_of(simulator))
    first = signer.token()
    clock.now += LIFETIME - RENEW_BEFORE - 1
    assert signer.token() == first
    clock.now += 1
    second = signer.token()
    assert second != first
    assert signer.token() == second


async def test_single_use_is_learned_with_one_call_too_many(simulator: Simulator, kore: KoreHarness) -> None:
    simulator.settings.enforce_jti = True
    for _ in range(5):
        await kore.ask()
    report = simulator.report()["api"]
    assert (report["calls"], report["unauthorized"]) == (6, 1)
    assert kore.draws == report["calls"]
    assert kore.client.signer.single_use


async def test_single_use_is_learned_by_many_at_once_without_anyone_being_rejected(
    simulator: Simulator, kore: KoreHarness
) -> None:
    simulator.settings.enforce_jti = True
    answers = await asyncio.gather(*(kore.ask(f"session-{n}") for n in range(16)))
    assert [answer.status for answer in answers] == ["media_unavailable"] * 16
    assert kore.draws == simulator.report()["api"]["calls"] <= 31


async def test_a_repeated_call_does_not_repeat_a_single_use_token(simulator: Simulator, kore: KoreHarness) -> None:
    simulator.settings.enforce_jti = True
    reset = {"fault": "reset"}
    # The platform sees the token before it breaks the connection: each try is signed afresh.
    simulator.script({"session_id": SESSION, "answers": [reset, reset, {"status": "media_unavailable"}]})
    assert (await kore.ask()).status == "media_unavailable"
    assert kore.draws == simulator.report()["api"]["calls"] == 3
    assert simulator.report()["api"]["unauthorized"] == 0


@pytest.mark.parametrize("wrong", [-3600, 3600])
async def test_on_a_machine_whose_clock_is_wrong_tokens_go_by_the_platforms(
    simulator: Simulator, kore: KoreHarness, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=wrong)

    monkeypatch.setattr(clock_module, "datetime", Wrong)
    monkeypatch.setattr(token_module, "time", SimpleNamespace(time=lambda: time.time() + wrong, monotonic=time.monotonic))
    for _ in range(3):
        assert (await kore.ask()).status == "media_unavailable"
    report = simulator.report()["api"]
    assert (report["calls"], report["unauthorized"]) == (4, 1)
    assert not kore.client.signer.single_use
    simulator.settings.enforce_jti = True
    for _ in range(3):
        await kore.ask()
    report = simulator.report()["api"]
    assert (report["calls"], report["unauthorized"]) == (8, 2)


def test_a_fingerprint_tells_credentials_apart_and_nothing_of_them(simulator: Simulator) -> None:
    signer = TokenSigner(bot_of(simulator))
    fingerprint = signer.fingerprint()
    assert TokenSigner(bot_of(simulator)).recognises(fingerprint)
    for other in ({"client_secret": "x" * 32}, {"client_id": "cs-other"}, {"algorithm": "HS512"}, {"bot_id": "st-other"}):
        assert not TokenSigner(bot_of(simulator, **other)).recognises(fingerprint)
    for none in (None, "", ":", "x", fingerprint.partition(":")[0] + ":"):
        assert not signer.recognises(none)
    assert TokenSigner(bot_of(simulator)).fingerprint() != fingerprint, "salted: two of them cannot be compared"
    # However weak a secret is, sixteen bits leave too many that it could be.
    assert len(fingerprint.partition(":")[2]) == 4
    assert simulator.client_secret not in fingerprint


async def test_an_app_that_enforces_encryption_is_told_apart(simulator: Simulator, kore: KoreHarness) -> None:
    simulator.settings.enforce_jwe = True
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    assert caught.value.facts["enforces"] == "JWE"


async def test_other_refusals_do_not_speak_of_encryption(simulator: Simulator, kore: KoreHarness) -> None:
    simulator.reject_credentials = True
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    assert "enforces" not in caught.value.facts


@pytest.mark.parametrize(
    "key",
    [
        "junk",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        PUBLIC,
        pem(RSA, serialization.BestAvailableEncryption(b"0pen-sesame")),
        pem(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption()),
        None,
        "",
    ],
    ids=["junk", "empty PEM", "public", "encrypted", "elliptic", "missing", "empty"],
)
def test_a_key_that_cannot_sign_is_a_mistake_of_the_configuration(key: str | None, simulator: Simulator, tmp_path: Path) -> None:
    if key is not None:
        (tmp_path / "key.pem").write_text(key)
    signer = TokenSigner(bot_of(simulator, algorithm="RS256", private_key_file=tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match=r"bots\.bot") as caught:
        signer.token()
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_short_secret_signs_without_a_warning(simulator: Simulator) -> None:
    signer = TokenSigner(bot_of(simulator, client_secret="short!", algorithm="HS512"))
    assert signer.token().count(".") == 2


def test_no_key_and_no_token_is_in_the_signers_representation(simulator: Simulator) -> None:
    signer = TokenSigner(bot_of(simulator))
    token = signer.token()
    assert token not in repr(signer)
    assert simulator.client_secret not in repr(signer)
