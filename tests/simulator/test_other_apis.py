"""Version 1 of the recordings API, whose audio lies in the answer, and voicemail."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import aiohttp
import pytest

from archiver.simulator.script import SessionScript
from tests.simulator.conftest import SESSION, Answer, Client

V1 = "/api/1.1/public/bot/{}/recordings"
V1_PLAIN = "/api/public/bot/{}/recordings"
VOICEMAIL = "/api/public/bot/{}/voicemail"


async def ask(client: Client, path: str, **more: str) -> Answer:
    url = client.sim.api_url + path.format(client.sim.bot_id)
    async with client.http.get(url, params={"sessionId": SESSION, **more}, headers={"auth": client.token()}) as response:
        body = await response.read()
        return Answer(response.status, response.headers, body, json.loads(body))


def audio(url: str) -> bytes:
    return base64.b64decode(url.partition(";base64,")[2], validate=True)


def script(client: Client, *recordings: dict[str, Any], **fields: Any) -> None:
    client.sim.script({"session_id": SESSION, "recordings": list(recordings), **fields})


@pytest.mark.parametrize("path", [V1, V1_PLAIN])
async def test_version_1_has_the_audio_in_its_answer(client: Client, path: str) -> None:
    sizes = (46, 50, 200_000, 200_002)
    script(client, *({"audio": {"bytes": size}} for size in sizes))
    answer = await ask(client, path)
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json) == ["recording"]
    urls = answer.json["recording"]
    assert {url.partition(",")[0] for url in urls} == {"data:audio/wav;base64"}
    assert [len(audio(url)) for url in urls] == list(sizes)
    assert [hashlib.sha256(audio(url)).hexdigest() for url in urls] == client.sim.sha256_of(SESSION)
    api = client.sim.report()["api"]
    assert (api["calls"], api["by_status"], api["by_session"]) == (1, {"success": 1}, {SESSION: 1})


async def test_a_path_of_version_1_can_be_unknown(client: Client) -> None:
    script(client, {})
    client.sim.alter({"v1_paths": ["plain"]})
    assert [(await ask(client, path)).status for path in (V1, V1_PLAIN)] == [404, 200]
    assert client.sim.report()["api"]["by_status"] == {"http_404": 1, "success": 1}


async def test_version_1_answers_anything_else_as_version_2_does(client: Client) -> None:
    script(client, {}, answers=[{"status": "call_in_progress"}, {"http_status": 503, "body": "7"}, {"status": "success"}])
    assert (await ask(client, V1)).json == {"status": "call_in_progress"}
    assert (await ask(client, V1)).status == 503
    assert len((await ask(client, V1)).json["recording"]) == 1


async def test_faults_meet_a_recording_in_the_answer(client: Client) -> None:
    faults: list[dict[str, Any]] = [{"kind": "page", "body": "<p>"}, {"kind": "empty"}, {"kind": "no_length", "at": 100}]
    script(client, {"audio": {"bytes": 5000}, "faults": faults})
    urls = [(await ask(client, V1)).json["recording"][0] for _ in range(4)]
    assert [url.partition(",")[0] for url in urls[:2]] == ["data:text/html;base64", "data:audio/wav;base64"]
    assert [audio(url) for url in urls[:2]] == [b"<p>", b""]
    assert [len(audio(url)) for url in urls[2:]] == [100, 5000]


@pytest.mark.parametrize("kind", ["truncate", "reset"])
async def test_the_connection_can_break_in_the_middle_of_a_recording(client: Client, kind: str) -> None:
    script(client, {"audio": {"bytes": 300_000}, "faults": [{"kind": kind, "at": 150_000}]})
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(client, V1)
    assert len(audio((await ask(client, V1)).json["recording"][0])) == 300_000


@pytest.mark.parametrize("key", ["voicemail recording", "voicemail_recording"])
async def test_a_voicemail_lists_its_files_and_what_was_said_if_asked(client: Client, key: str) -> None:
    said = [{"components": [{"cT": "text", "data": {"text": "hello"}}], "lang": "en"}]
    script(client, {"file_name": "v.wav"}, voicemail=True, voicemail_key=key, transcriptions=said)
    plain, answer = await ask(client, VOICEMAIL), await ask(client, VOICEMAIL, transcription="true")
    assert list(plain.json) == ["status", key]
    assert answer.json["status"] == "success"
    assert answer.json["transcriptions"] == said
    (file,) = answer.json[key]
    assert file["fileName"] == "v.wav"
    body = (await client.fetch(file["fileUrl"])).body
    assert [hashlib.sha256(body).hexdigest()] == client.sim.sha256_of(SESSION)


async def test_recordings_and_voicemails_are_not_known_to_each_other(client: Client) -> None:
    unavailable = {"status": "media_unavailable"}
    script(client, {}, voicemail=True)
    assert (await client.ask()).json == (await ask(client, V1)).json == unavailable
    assert "voicemail recording" in (await ask(client, VOICEMAIL)).json
    script(client, {})
    assert (await ask(client, VOICEMAIL)).json == unavailable


async def test_voicemail_needs_its_scope(client: Client) -> None:
    script(client, {}, voicemail=True)
    client.sim.alter({"scopes": ["SmartAssist Recordings"]})
    assert (await ask(client, VOICEMAIL)).status == 401
    client.sim.alter({"scopes": ["SmartAssist Voicemail"]})
    assert (await ask(client, VOICEMAIL)).status == 200
    assert (await ask(client, V1)).status == 401


def test_the_keys_of_a_voicemail_survive_the_json_form() -> None:
    given = {"session_id": "a", "voicemail": True, "voicemail_key": "voicemail_recording", "transcriptions": [{"a": 1}]}
    assert SessionScript.from_json(given).to_json() == given
