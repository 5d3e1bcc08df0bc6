"""Who spoke in a call, as a listing told it, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def number_of(call: Mapping[str, Any]) -> str:
    """The customer's number, on whichever side; empty where none is known."""
    side = "callee" if str(call.get("direction", "")).lower() == "outbound" else "caller"
    return str(call.get(side) or call.get("caller") or "")


def agents_of(call: Mapping[str, Any]) -> list[str]:
    """Who spoke for the contact centre, by name, else address, else ID."""
    people: Iterable[Any] = (person for key in ("agent", "consulted", "joined") for person in call.get(key) or ())
    named = (
        next((str(person[key]) for key in ("name", "email", "userId", "agentId") if person.get(key)), "")
        for person in people
        if isinstance(person, dict)
    )
    return list(dict.fromkeys(name for name in named if name))
