"""Accounts that have only version 1 of the recordings API, and voicemail: from the command line to a verified archive."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program

SAID = [{"components": [{"cT": "text", "data": {"text": "my PIN is 4711"}}], "createdOn": "2024-03-05T12:00:00Z", "lang": "en"}]


async def test_an_account_of_version_1_is_archived(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    data["bots"][0]["api"] = "v1"
    data["transfer"] = {"max_inline": "300KB"}
    archiver.configure(data)
    simulator.alter({"v1_paths": ["plain"]})
    simulator.script({"session_id": "two", "recordings": [{"audio": {"bytes": 200_000}}, {"audio": {"bytes": 300}}]})
    simulator.script({"session_id": "long", "recordings": [{"audio": {"bytes": 400_000}}]})
    simulator.script({"session_id": "later", "answers": [{"status": "call_in_progress"}, {"status": "success"}]})
    assert (await archiver("doctor")).code == 0
    await archiver("enqueue", "two", "long", "later", "none")

    drained = await archiver("worker", "--drain")

    assert drained.code == 3, drained.stderr
    shown = {one: (await archiver("show", one, "--json")).document for one in ("two", "long", "later", "none")}
    assert {one: document["state"] for one, document in shown.items()} == {
        "two": "archived", "long": "failed", "later": "archived", "none": "unavailable"
    }  # fmt: skip
    assert shown["long"]["reason"] == "recording_too_large"
    assert [file["file_name"] for file in shown["two"]["recordings"]] == ["recording-1.wav", "recording-2.wav"]
    assert [file["sha256"] for file in shown["two"]["recordings"]] == simulator.sha256_of("two")
    assert (await archiver("verify")).code == 0

    data["transfer"] = {"max_inline": "1MB"}
    archiver.configure(data)
    await archiver("retry", "--reason", "recording_too_large")
    assert (await archiver("worker", "--drain")).code == 0
    assert (await archiver("show", "long", "--json")).document["state"] == "archived"


async def test_voicemail_is_archived_with_what_was_said_and_nowhere_else_told(archiver: Program, simulator: Simulator) -> None:
    simulator.script({"session_id": "v", "voicemail": True, "transcriptions": SAID})
    await archiver("enqueue", "--kind", "voicemail", "v")
    drained = await archiver("--log-level", "debug", "worker", "--drain")
    assert drained.code == 0, drained.stderr
    shown = await archiver("show", "v", "--json")
    said, file = shown.document["recordings"]
    stored = next(archiver.folder.rglob("transcriptions.json")).read_bytes()
    assert json.loads(stored) == SAID
    assert (said["ordinal"], said["sha256"]) == (0, hashlib.sha256(stored).hexdigest())
    assert [file["sha256"]] == simulator.sha256_of("v")
    assert "4711" not in drained.stdout + drained.stderr + shown.stdout
    assert (await archiver("verify")).code == 0


async def test_a_missing_scope_for_voicemail_holds_voicemail_alone(archiver: Program, simulator: Simulator) -> None:
    simulator.alter({"scopes": ["SmartAssist Recordings"]})
    simulator.script({"session_id": "v", "voicemail": True})
    simulator.script({"session_id": "r"})
    await archiver("enqueue", "--kind", "voicemail", "v")
    await archiver("enqueue", "r")
    assert (await archiver("worker", "--drain")).code == 3
    status = (await archiver("status", "--json")).document
    assert status["sessions"]["archived"] == 1
    (hold,) = status["holds"]
    assert hold["kind"] == "voicemail"
    assert "SmartAssist Voicemail" in json.dumps(hold)
