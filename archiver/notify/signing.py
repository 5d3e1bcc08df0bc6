"""What goes over the wire: a message's body, its ID and its signature, as the Standard Webhooks have them
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from archiver.observe.redact import redact_value
from archiver.queue.notifications import Message


def id_of(message: Message) -> str:
    """The same for each attempt, and for the same matter in a database that was restored: a receiver that knows it drops it."""
    return "msg_" + hashlib.sha256(f"{message.archive_id}\n{message.matter}".encode()).hexdigest()[:32]


def body_of(message: Message) -> bytes:
    """JSON in ASCII, without anything that is known to be secret or has the shape of it."""
    document = {
        "type": message.event,
        "timestamp": message.created_at.astimezone(UTC).isoformat(),
        "archive": str(message.archive_id),
        "attempt": message.attempts,
        "data": redact_value(message.payload),
    }
    return _json(document)


def trial_body(at: datetime, version: str) -> bytes:
    """Of the message that asks only whether it arrives."""
    return _json({"type": "test", "timestamp": at.isoformat(), "attempt": 1, "data": {"version": version}})


def headers_of(key: bytes, message_id: str, at: int, body: bytes, attempt: int) -> dict[str, str]:
    """For a body that is sent at this second: what the receiver verifies, and which attempt it is."""
    signature = hmac.digest(key, f"{message_id}.{at}.".encode() + body, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        "webhook-attempt": str(attempt),
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
