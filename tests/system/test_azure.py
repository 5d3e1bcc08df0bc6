"""The main job with a container of Azure in place of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.azure_servers import ACCOUNT_KEY, CONTAINER, AzureServer, Folder
from tests.system.conftest import Program, eventually
from tests.system.test_object_storage import LONG, SHORT, recordings

pytestmark = pytest.mark.once


@pytest.fixture
def container(azurite: AzureServer, request: pytest.FixtureRequest) -> Folder:
    """The part of a container that this test archives into."""
    name = re.sub(r"[^a-z]+", " ", request.node.name.lower())
    return Folder(azurite, f"acceptance {os.getpid()}/{name}/")


@pytest.fixture
def archiver(blank: Program, data: dict[str, Any], container: Folder) -> Program:
    """The program, configured so."""
    data["storage"]["url"] = f"az://{CONTAINER}/{container.prefix}"
    data["storage.azure"] = {**container.server.keys, "part_size": "5MiB"}
    blank.configure(data)
    return blank


async def test_recordings_are_archived_into_a_container_and_verified_there(
    archiver: Program, simulator: Simulator, sql: Any, container: Folder
) -> None:
    simulator.script({"session_id": "s1", "recordings": [LONG, SHORT]})
    await archiver("enqueue", "s1")

    drained = await archiver("worker", "--drain")

    assert (drained.code, drained.stdout) == (0, ""), drained
    kept = await recordings(sql)
    assert sorted(key.rpartition("/")[2] for key in kept) == ["long.wav", "short.wav"]
    assert container.objects() == set(kept)
    assert b'"archive"' in container.get(MARKER)
    for key, (size, sha256) in kept.items():
        body = container.get(key)
        assert (len(body), hashlib.sha256(body).hexdigest()) == (size, sha256)
        assert container.head(key).metadata == {"sha256": sha256}
    assert (await archiver("verify")).code == 0
    (short,) = (key for key in kept if key.endswith("short.wav"))
    container.put(short, container.get(short)[:-1] + b"?")
    altered = await archiver("verify")
    assert altered.code == 3
    assert short in altered.stdout + altered.stderr


async def test_doctor_tries_the_container(archiver: Program, container: Folder) -> None:
    found = (await archiver("doctor", "--json")).document["findings"]
    store = [finding for finding in found if finding["check"].startswith("store")]
    assert store[0]["verdict"] == "ok"
    assert store[0]["message"].startswith(f"az://{CONTAINER}/{container.prefix} at {container.server.endpoint}")
    assert container.objects() == set()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ARCHIVER_STORAGE__AZURE__ACCOUNT_KEY", "TWlzdGFrZW4rc2VjcmV0", "AuthorizationFailure"),
        ("ARCHIVER_STORAGE__URL", "az://archiver-tests-none/x", "create the container"),
    ],
)
async def test_a_container_that_cannot_be_used_costs_no_session_and_is_told(
    archiver: Program, simulator: Simulator, sql: Any, variable: str, value: str, told: str
) -> None:
    simulator.script({"session_id": "s1", "recordings": [LONG]})
    assert (await archiver("enqueue", "s1")).code == 0
    doctor = await archiver("doctor", environment={variable: value})
    assert doctor.code == 3
    assert told in doctor.stdout
    worker = await archiver("worker", environment={variable: value})
    worker.refused(1, told)
    assert await sql.fetchval("SELECT state || failures FROM archive_sessions") == "pending0"
    for text in (doctor.stdout, doctor.stderr, worker.stderr):
        assert ACCOUNT_KEY not in text
        assert "TWlzdGFrZW4rc2VjcmV0" not in text
        assert "Traceback" not in text


async def test_a_worker_killed_in_the_middle_of_an_upload_leaves_nothing_that_is_seen_or_in_the_way(
    archiver: Program, simulator: Simulator, sql: Any, container: Folder
) -> None:
    stalled = {**LONG, "faults": [{"kind": "stall", "at": 8_000_000, "times": 1}]}
    simulator.script({"session_id": "s1", "recordings": [stalled]})
    await archiver("enqueue", "s1")
    first = await archiver.start("worker")

    async def begun() -> set[str]:
        return {key for key in container.uncommitted() if key.endswith("/long.wav")}  # and none of the trial's, before any claim

    (key,) = await eventually(begun)
    first.send(signal.SIGKILL)
    await first.ended()
    assert container.objects() == set()

    second = await archiver.start("worker")
    await second.logged("session_archived")
    second.send(signal.SIGTERM)
    await second.ended()

    assert container.objects() == {key} == set(await recordings(sql))
    assert container.uncommitted() == set()
    assert (await archiver("verify")).code == 0


async def test_a_body_that_is_no_recording_is_kept_under_quarantine_however_long_it_is(
    archiver: Program, simulator: Simulator, container: Folder
) -> None:
    """On its last attempt: blocks cannot be given another key, so that it is gathered aside, read and sent once more."""
    truncated = {**LONG, "resumable": "no", "faults": [{"kind": "truncate", "at": 9_000_000, "times": None}]}
    simulator.script({"session_id": "s1", "recordings": [truncated]})
    await archiver("enqueue", "s1")
    assert (await archiver("worker", "--drain", environment={"ARCHIVER_RETRY__MAX_ATTEMPTS": "1"})).code == 3
    (kept,) = container.objects()
    assert kept.startswith("quarantine/")
    assert kept.endswith("9000000-long.wav")
    assert len(container.get(kept)) == 9_000_000
