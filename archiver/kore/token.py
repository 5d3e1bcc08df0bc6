"""The platform's JSON web tokens.

The payload is `{"sub": any id, "appId": client id}` (spelled exactly so), signed with the app's client secret or, for RSA, with
our private key; `iat`, `exp` and a unique `jti` besides. A token is reused until shortly before it expires.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

import jwt

from archiver.config import BotSettings
from archiver.errors import ConfigError

LIFETIME = 600.0
"""Seconds that a token is good for. Short, since it cannot be taken back."""

RENEW_BEFORE = 60.0
"""Seconds before its end that a token is no longer handed out: the platform's clock may be ahead of ours."""


@dataclass
class TokenSigner:
    """Signs for one bot. `token()` is cheap; `renew()` forgets the token that was refused.

    An app may enforce the token's ID to be unique a request: it then refuses a token that it has seen. Whoever learns that
    (a refused token whose successor is accepted) sets `single_use`, and every request is signed afresh from then on.
    """

    bot: BotSettings
    single_use: bool = False
    _key: str = field(default="", repr=False)
    _token: str = field(default="", repr=False)
    _good_until: float = 0.0

    def token(self) -> str:
        """A token that is good for a minute at least. Raises ConfigError if it cannot be signed."""
        if self.single_use or time.monotonic() >= self._good_until:
            self._sign()
        return self._token

    def renew(self, refused: str) -> str:
        """A token other than `refused`; concurrent callers who met the same refusal share one."""
        if self._token == refused or self.single_use:
            self._sign()
        return self._token

    def _sign(self) -> None:
        now = int(time.time())
        payload = {
            "sub": "kore-archiver",
            "appId": self.bot.client_id,
            "iat": now,
            "exp": now + int(LIFETIME),
            "jti": str(uuid.uuid4()),
        }
        try:
            self._key = self._key or self.bot.signing_key()
            self._token = jwt.encode(payload, self._key, algorithm=self.bot.algorithm)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise ConfigError(
                f"bots.{self.bot.name}: no {self.bot.algorithm} token can be signed: {error}",
                hint="RS256 and RS512 need a PEM private key in private_key_file; HS256 and HS512 the app's client secret",
            ) from None
        self._good_until = time.monotonic() + LIFETIME - RENEW_BEFORE
