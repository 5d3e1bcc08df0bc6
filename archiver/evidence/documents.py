"""What explains the evidence to whoever has the store alone: kept in it, and vouched for by the first entry."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from archiver.evidence.keys import PublicKey, allowed_signers
from archiver.evidence.objects import FORMAT_KEY, SCHEMA_KEY, signers_key


def format_text() -> bytes:
    """FORMAT.md."""
    return resources.files("archiver.evidence").joinpath("FORMAT.md").read_bytes()


def schema_text() -> bytes:
    """The JSON Schema of a session's record."""
    return resources.files("archiver.evidence").joinpath("session-v1.schema.json").read_bytes()


def naming(origin: str, public: PublicKey, number: int, previous: str | None) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """What a `key` entry says of the ledger's `number`th key, and the files that it vouches for."""
    signers = allowed_signers(origin, public)
    said, schema = format_text(), schema_text()
    body = {
        "origin": origin,
        "public_key": public.openssh,
        "fingerprint": public.fingerprint,
        "format_sha256": hashlib.sha256(said).hexdigest(),
        "schema_sha256": hashlib.sha256(schema).hexdigest(),
        "signers": number,
        "signers_sha256": hashlib.sha256(signers).hexdigest(),
        "previous": previous,
        "by": "worker" if previous is None else "person",
    }
    files = [(signers_key(number), signers)]
    return body, files if previous is not None else [(FORMAT_KEY, said), (SCHEMA_KEY, schema), *files]
