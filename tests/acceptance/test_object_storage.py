"""The main job with a bucket in place of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.acceptance.conftest import Program, eventually
from tests.s3_servers import BUCKET, SECRET_KEY, Prefix, S3Server

pytestmark = pytest.mark.once

LONG = {"file_name": "long.wav", "audio": {"bytes": 12_000_000, "seed": 1}}
SHORT = {"file_name": "short.wav", "audio": {"bytes": 20_000, "seed": 2}}


@pytest.fixture
def bucket(seaweedfs: S3Server, request: pytest.FixtureRequest) -> Prefix:
    """The part of a bucket that this test archives into."""
    name = re.sub(r"[^a-z]+", " ", request.node.name.lower())
    return Prefix(seaweedfs, f"acceptance {os.getpid()}/{name}/")


@pytest.fixture
def archiver(blank: Program, data: dict[str, Any], bucket: Prefix) -> Program:
    """The program, configured so."""
    data["storage"]["url"] = f"s3://{BUCKET}/{bucket.prefix}"
    data["storage.s3"] = {**bucket.server.keys, "part_size": "5MiB"}
    blank.configure(data)
    return blank


async def recordings(sql: Any) -> Mapping[str, tuple[int, str]]:
    """Size and hash of every recorded file, by its key."""
    rows = await sql.fetch("SELECT store_key, bytes, sha256 FROM archived_recordings")
    return {row["store_key"]: (row["bytes"], row["sha256"]) for row in rows}


async def test_recordings_are_archived_into_a_bucket_and_verified_there(
    archiver: Program, simulator: Simulator, sql: Any, bucket: Prefix
) -> None:
    simulator.script({"session_id": "s1", "recordings": [LONG, SHORT]})
    await archiver("enqueue", "s1")

    drained = await archiver("worker", "--drain")

    assert (drained.code, drained.stdout) == (0, ""), drained
    kept = await recordings(sql)
    assert sorted(key.rpartition("/")[2] for key in kept) == ["long.wav", "short.wav"]
    assert bucket.objects() == set(kept)
    for key, (size, sha256) in kept.items():
        body = bucket.get(key)
        assert (len(body), hashlib.sha256(body).hexdigest()) == (size, sha256)
    assert (await archiver("verify")).code == 0
    (short,) = (key for key in kept if key.endswith("short.wav"))
    bucket.put(short, bucket.get(short)[:-1] + b"?")
    altered = await archiver("verify")
    assert altered.code == 3
    assert short in altered.stdout + altered.stderr


async def test_doctor_tries_the_bucket_and_advises_on_it(archiver: Program, bucket: Prefix) -> None:
    found = (await archiver("doctor", "--json")).document["findings"]
    store = [finding for finding in found if finding["check"].startswith("store")]
    assert [finding["verdict"] for finding in store] == ["ok", "warning"]
    assert store[0]["message"].startswith(f"s3://{BUCKET}/{bucket.prefix} at {bucket.server.url}")
    assert "AbortIncompleteMultipartUpload" in store[1]["mend"]
    assert bucket.objects() == set()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ARCHIVER_STORAGE__S3__SECRET_ACCESS_KEY", "Mistaken+secret/of-mine=", "check the secret access key"),
        ("ARCHIVER_STORAGE__S3__ACCESS_KEY_ID", "nobody", "knows no such key"),
        ("ARCHIVER_STORAGE__URL", "s3://archiver-tests-none/x", "create the bucket"),
    ],
)
async def test_a_bucket_that_cannot_be_used_costs_no_session_and_is_told(
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
        assert SECRET_KEY not in text
        assert "Mistaken+secret/of-mine=" not in text
        assert "Traceback" not in text


async def test_a_worker_killed_in_the_middle_of_an_upload_leaves_nothing_that_stays(
    archiver: Program, simulator: Simulator, sql: Any, bucket: Prefix
) -> None:
    stalled = {**LONG, "faults": [{"kind": "stall", "at": 8_000_000, "times": 1}]}
    simulator.script({"session_id": "s1", "recordings": [stalled]})
    await archiver("enqueue", "s1")
    first = await archiver.start("worker")

    async def begun() -> list[str]:
        return [key for key in bucket.uploads() if key.endswith("/long.wav")]  # and none of the trial's, before any claim

    (key,) = await eventually(begun)
    first.send(signal.SIGKILL)
    await first.ended()
    assert bucket.objects() == {f"{key} (in parts)"}

    second = await archiver.start("worker")
    await second.logged("session_archived")
    await second.logged("leftover_swept")
    second.send(signal.SIGTERM)
    await second.ended()

    assert bucket.objects() == {key} == set(await recordings(sql))
    assert (await archiver("verify")).code == 0


async def test_a_worker_that_is_stopped_in_the_middle_of_an_upload_takes_it_back(
    archiver: Program, simulator: Simulator, sql: Any, bucket: Prefix
) -> None:
    stalled = {**LONG, "faults": [{"kind": "stall", "at": 8_000_000, "times": None}]}
    simulator.script({"session_id": "s1", "recordings": [stalled]})
    await archiver("enqueue", "s1")
    worker = await archiver.start("worker", environment={"ARCHIVER_WORKER__DRAIN_GRACE_SECONDS": "0"})

    async def begun() -> list[str]:
        return [key for key in bucket.uploads() if key.endswith("/long.wav")]  # and none of the trial's, before any claim

    await eventually(begun)
    worker.send(signal.SIGTERM)
    await worker.ended()
    assert bucket.objects() == set()
    assert await sql.fetchval("SELECT state || failures FROM archive_sessions") == "pending0"


async def test_a_body_that_is_no_recording_is_kept_under_quarantine_however_long_it_is(
    archiver: Program, simulator: Simulator, bucket: Prefix
) -> None:
    """On its last attempt: parts cannot be given another key, so that it is gathered aside and copied."""
    truncated = {**LONG, "resumable": "no", "faults": [{"kind": "truncate", "at": 9_000_000, "times": None}]}
    simulator.script({"session_id": "s1", "recordings": [truncated]})
    await archiver("enqueue", "s1")
    assert (await archiver("worker", "--drain", environment={"ARCHIVER_RETRY__MAX_ATTEMPTS": "1"})).code == 3
    (kept,) = bucket.objects()
    assert kept.startswith("quarantine/")
    assert kept.endswith("9000000-long.wav")
    assert len(bucket.get(kept)) == 9_000_000
