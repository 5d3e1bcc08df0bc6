"""Who spoke in a call, as a listing told it, for people. Whatever else stands in its place says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def number_of(call: object) -> str:
    """The customer's number, on whichever side; empty where none is known."""
    if not isinstance(call, Mapping):
        return ""
    side = "callee" if str(call.get("direction", "")).lower() == "outbound" else "caller"
    return str(call.get(side) or call.get("caller") or "")


def agents_of(call: object) -> list[str]:
    """Who spoke for the contact centre, by name, else address, else ID."""
    if not isinstance(call, Mapping):
        return []
    lists = (call.get(key) for key in ("agent", "consulted", "joined"))
    people: Iterable[Any] = (person for each in lists if isinstance(each, list) for person in each)
    named = (
        next((str(person[key]) for key in ("name", "email", "userId", "agentId") if person.get(key)), "")
        for person in people
        if isinstance(person, dict)
    )
    return list(dict.fromkeys(name for name in named if name))
