"""The platform's JSON web tokens.

The payload is `{"sub": any id, "appId": client id}` (spelled exactly so), signed with the app's client secret or, for RSA, with
our private key; `iat`, `exp` and a unique `jti` besides. A token is reused until shortly before it expires.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass, field

import jwt

from archiver.config import BotSettings
from archiver.errors import ConfigError

LIFETIME = 600.0
"""Seconds that a token is good for. Short, since it cannot be taken back."""

CLOCK_AHEAD = 60
"""Seconds that our clock may be ahead of the platform's: a token must not seem to come from the future."""

RENEW_BEFORE = 60.0
"""Seconds before its end that a token is no longer handed out: the platform's clock may be ahead of ours."""

FINGERPRINT_ROUNDS = 200_000
"""Of a slow hash, some hundredth of a second each time that a fingerprint is made or compared."""


@dataclass
class TokenSigner:
    """Signs for one bot. `token()` is cheap; `renew()` is for whoever was refused.

    An app may enforce the token's ID to be unique a request: it then refuses a token that it has seen. Whoever learns that
    (a refused token whose successor is accepted) sets `single_use`, and every request is signed afresh from then on.
    """

    bot: BotSettings
    single_use: bool = False
    clock_offset: float = 0.0
    """Seconds that the platform's clock is ahead of ours: whoever was refused for that sets it."""
    _key: str = field(default="", repr=False)
    _token: str = field(default="", repr=False)
    _good_until: float = 0.0
    _fingerprint: tuple[str, str] = field(default=("", ""), repr=False)  # the key that it is of, and itself

    def token(self) -> str:
        """A token that is good for a minute at least. Raises ConfigError if it cannot be signed."""
        if self.single_use or time.monotonic() >= self._good_until:
            self.renew()
        return self._token

    def discard(self) -> None:
        """The platform may have seen the token in a call that failed: sign afresh for the next one."""
        self._good_until = 0.0

    def reread_key(self) -> None:
        """The token was refused: the secret's file may hold a new one by now. If it can't be read, the old one stays."""
        with suppress(ConfigError):
            self._key = self.bot.signing_key()

    def take_key(self, key: str) -> None:
        """Sign with this one, as it was read from the secret's file."""
        self._key = key

    def signs_with(self, key: str) -> bool:
        """Whether this is the key in use. One that was not needed yet is not known: it may be any."""
        return self._key == key

    def fingerprint(self) -> str:
        """What tells these credentials from others, and no more: of a salted slow hash sixteen bits, so that nobody who reads it
        can make sure of a guess at the secret. Takes long: not for the event loop. Raises ConfigError if there is no key.
        """
        self._key = self._key or self.bot.signing_key()
        if self._fingerprint[0] != self._key:
            self._fingerprint = (self._key, self._hashed(secrets.token_hex(8)))
        return self._fingerprint[1]

    def recognises(self, fingerprint: str | None) -> bool:
        """Whether `fingerprint` is that of these credentials; of one in 65,536 others it seems so. As slow."""
        self._key = self._key or self.bot.signing_key()
        salt, _, digits = (fingerprint or "").partition(":")
        return bool(salt and digits) and self._hashed(salt) == fingerprint

    def _hashed(self, salt: str) -> str:
        said = json.dumps([self.bot.host, self.bot.bot_id, self.bot.client_id, self.bot.algorithm, self._key])
        return f"{salt}:{hashlib.pbkdf2_hmac('sha256', said.encode(), salt.encode(), FINGERPRINT_ROUNDS)[:2].hex()}"

    def renew(self) -> str:
        """A token that nobody has used; one just renewed by another will not do, it may be single-use. Raises ConfigError."""
        now = int(time.time() + self.clock_offset)
        payload = {
            "sub": "kore-archiver",
            "appId": self.bot.client_id,
            "iat": now - CLOCK_AHEAD,
            "exp": now + int(LIFETIME),
            "jti": str(uuid.uuid4()),
        }
        self._key = self._key or self.bot.signing_key()
        try:
            with warnings.catch_warnings():
                # The platform makes the secret, not its user: that it is short is not for us to say.
                warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
                self._token = jwt.encode(payload, self._key, algorithm=self.bot.algorithm)
        except Exception as error:  # noqa: BLE001  # for a wrong kind of key PyJWT lets through what cryptography raises
            raise ConfigError(
                f"bots.{self.bot.name}: no {self.bot.algorithm} token can be signed: {error}",
                hint="RS256 and RS512 need a PEM private key in private_key_file; HS256 and HS512 the app's client secret",
            ) from None
        self._good_until = time.monotonic() + LIFETIME - RENEW_BEFORE
        return self._token
