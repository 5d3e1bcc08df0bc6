"""The main job with a bucket in place of a folder."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.s3_servers import BUCKET, SECRET_KEY, Prefix, S3Server
from tests.system.conftest import Program, eventually

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
    assert b'"archive"' in bucket.get(MARKER)
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
    assert [finding["verdict"] for finding in store] == ["ok", "ok", "warning"]
    assert store[0]["message"].startswith(f"s3://{BUCKET}/{bucket.prefix} at {bucket.server.url}")
    assert "not marked yet" in store[1]["message"]
    assert "AbortIncompleteMultipartUpload" in store[2]["hint"]
    assert bucket.objects() == set()


IDENTITY = "Identity-of-this-pod"
SESSION = "Session-token-of-an-hour"
SECRET_OF_SESSION = "Secret-of-an-hour"


async def _grant(request: web.BaseRequest) -> web.Response:
    """What AWS's token service answers to who may have a role for an hour."""
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    members = {"AccessKeyId": "ASIA1", "SecretAccessKey": SECRET_OF_SESSION, "SessionToken": SESSION, "Expiration": until}
    listed = "".join(f"<{name}>{value}</{name}>" for name, value in members.items())
    result = f"<AssumeRoleWithWebIdentityResult><Credentials>{listed}</Credentials></AssumeRoleWithWebIdentityResult>"
    return web.Response(
        text=f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>", content_type="text/xml"
    )


async def test_temporary_credentials_are_in_no_log_however_loud_it_is(
    archiver: Program, data: dict[str, Any], bucket: Prefix
) -> None:
    data["storage.s3"] = {"endpoint": bucket.server.url, "path_style": True}
    archiver.configure(data)
    (archiver.folder / "identity").write_text(IDENTITY)
    runner = web.ServerRunner(web.Server(_grant))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    environment = {
        "ARCHIVER_LOG__LEVEL": "debug",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/archiver",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(archiver.folder / "identity"),
    }
    try:
        told = await archiver("doctor", environment=environment)
    finally:
        await runner.cleanup()
    assert "InvalidAccessKeyId" in told.stdout, "they got there, and this server knows no sessions"
    assert '"level": "debug"' in told.stderr
    for secret in (SECRET_OF_SESSION, SESSION, IDENTITY):
        assert secret not in told.stdout + told.stderr


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
    await second.logged("leftover_removed")
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
