"""What the platform accepts in the `auth` header.

Vendor: a JWT with the claims `sub` and `appId`, signed with the app's client secret or, for RS*, with a private key
whose public half the platform holds. An app can enforce JTI (every request needs a `jti` not used before) and JWE
(encrypted tokens). A refusal is worded as the vendor does: one wording for a token that doesn't parse or verify, one for no token
and for a bot that is not the app's. Which of them an unknown `appId` or a missing `jti` gets is made up, and so are the words for
a token that is not encrypted. So is the order: whose token it is, then its signature, then the bot, then the scope.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LEEWAY_SECONDS = 5

ALGORITHMS = ("HS256", "HS512", "RS256", "RS512")


UNVERIFIED = "Invalid JWT token"
INVALID_CREDENTIALS = "Invalid SDK credentials"


class TokenRefused(Exception):
    """The token is not accepted: `says` goes into the 401 answer, and why truly is the message, which the client never sees."""

    def __init__(self, why: str, says: str = UNVERIFIED) -> None:
        super().__init__(why)
        self.says = says


def check_token(
    token: str | None,
    *,
    apps: Mapping[str, str],
    public_key_pem: str | None,
    algorithms: Collection[str],
    enforce_jwe: bool,
) -> dict[str, Any]:
    """The claims of an accepted token of one of `apps`, client IDs with their secrets. Raises TokenRefused.

    `none` is never accepted, and the key follows from the algorithm: a public key never serves as an HMAC secret.
    """
    if not token:
        raise TokenRefused("the auth header is missing", INVALID_CREDENTIALS)
    if token.count(".") == 4:
        raise TokenRefused("this platform holds no key to decrypt the token (JWE)")
    if enforce_jwe:
        why = "the token must be encrypted (JWE), this app enforces it"
        raise TokenRefused(why, f"{UNVERIFIED}: {why}")
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
        if algorithm not in algorithms or algorithm not in ALGORITHMS:
            raise TokenRefused(f"the algorithm {algorithm!r} is not enabled for this app")
        # The claim says whose secret verifies the token, so it comes first.
        secret = apps.get(str(jwt.decode(token, options={"verify_signature": False}).get("appId")))
        if secret is None:
            raise TokenRefused("the claim appId is the client id of no app", INVALID_CREDENTIALS)
        key = secret if algorithm.startswith("HS") else public_key_pem
        if key is None:
            raise TokenRefused("this app has no public key")
        with warnings.catch_warnings():
            # The client's secret may be shorter than the algorithm deserves; the platform takes it.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                leeway=LEEWAY_SECONDS,
                options={"require": ["sub"], "verify_aud": False, "verify_iss": False},
            )
    except jwt.PyJWTError as error:
        raise TokenRefused(f"invalid token ({error})") from error
    if not claims["sub"]:
        raise TokenRefused("the claim sub is empty")
    return claims


def check_jti(claims: dict[str, Any], seen: set[str]) -> None:
    """Where JTI is enforced: the claim is there and was never used before; notes it in `seen`. Raises TokenRefused."""
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise TokenRefused("the claim jti is missing, this app enforces it")
    if jti in seen:
        raise TokenRefused("this jti was used before")
    seen.add(jti)
