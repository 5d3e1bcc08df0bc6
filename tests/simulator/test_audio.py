"""Recordings are WAVs as telephony makes them."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import time
import wave
from typing import TYPE_CHECKING, Any

import pytest

from archiver.simulator import flac
from archiver.simulator.audio import CHUNK_BYTES, GeneratedWav, RawBody, file_body, flac_of, load_folder, sha256_of
from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.simulator.conftest import SESSION, Client

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from archiver.simulator.audio import Body, RiffSizes


def whole(body: Body) -> bytes:
    return b"".join(body.pieces(0, body.size))


def write_wav(path: Path, samples: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples)


def test_generated_speech_is_a_valid_wav_in_telephone_format() -> None:
    with wave.open(io.BytesIO(whole(GeneratedWav(56_000, seed=7)))) as file:
        assert file.getparams()[:4] == (1, 2, 8000, 28_000)
        frames = file.readframes(28_000)
    samples = struct.unpack("<28000h", frames)
    assert len(frames) == 56_000
    assert 3_000 < max(samples) < 32_768


def test_speech_follows_from_its_seed() -> None:
    one, again, other = (sha256_of(GeneratedWav(16_000, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_silence_is_silent() -> None:
    assert set(whole(GeneratedWav(16_000, seed=None))[44:]) == {0}


def test_three_hundred_recordings_take_no_time_and_are_all_different() -> None:
    began = time.perf_counter()
    hashes = {sha256_of(GeneratedWav(16_000 * (1 + seed % 10), seed=seed)) for seed in range(300)}
    assert time.perf_counter() - began < 2
    assert len(hashes) == 300


@pytest.mark.parametrize("body", [GeneratedWav(300_000, seed=3), RawBody(bytes(range(256)) * 600)])
def test_any_part_of_a_body_is_a_part_of_the_whole(body: Body) -> None:
    everything = whole(body)
    assert len(everything) == body.size
    for start, stop in [(0, 10), (10, 60), (44, 45), (40, 150_000), (127_990, 128_100), (body.size - 1, body.size), (5, 5)]:
        pieces = list(body.pieces(start, stop))
        assert b"".join(pieces) == everything[start:stop]
        assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)


@pytest.mark.parametrize(
    ("riff_sizes", "riff", "data"),
    [("true", 1036, 1000), ("zero", 0, 0), ("ffffffff", 0xFFFFFFFF, 0xFFFFFFFF), ("wrong", 2036, 2000)],
)
def test_the_sizes_in_the_header(tmp_path: Path, riff_sizes: RiffSizes, riff: int, data: int) -> None:
    write_wav(tmp_path / "a.wav", bytes(1000))
    for body in (GeneratedWav(1000, seed=None, riff_sizes=riff_sizes), file_body(tmp_path / "a.wav", riff_sizes)):
        content = whole(body)
        assert len(content) == body.size == 1044
        assert struct.unpack("<4sI8s", content[:16])[:2] == (b"RIFF", riff)
        assert struct.unpack("<4sI", content[36:44]) == (b"data", data)
        assert content[44:] == bytes(1000)


def test_sizes_of_a_file_that_is_no_wav_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"ID3")
    with pytest.raises(ValueError, match="not a WAV"):
        file_body(tmp_path / "a.wav", "zero")


def test_a_folder_is_loaded_by_name(tmp_path: Path) -> None:
    for name in ("b.wav", "a.WAV", "c.txt"):
        write_wav(tmp_path / name, b"")
    (tmp_path / "d.wav").mkdir()
    assert list(load_folder(tmp_path)) == ["a.WAV", "b.wav"]


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="audio_dir"):
            Simulator(SimulatorSettings(audio_dir=folder))


async def test_sessions_without_audio_take_the_files_in_turn(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    for name in "ab":
        write_wav(tmp_path / f"{name}.wav", name.encode() * 1000)
    async with Simulator(SimulatorSettings(audio_dir=str(tmp_path))) as sim:
        client = Client(sim, http)
        fetched = []
        for session_id in ("one", "two", "three"):
            sim.script({"session_id": session_id})
            fetched += [(await client.fetch(url)).body for url in await client.urls(session_id)]
        a, b = ((tmp_path / f"{name}.wav").read_bytes() for name in "ab")
        assert fetched == [a, b, a]
        sim.script({"session_id": "one", "recordings": [{"audio": {"file": "b.wav"}}]})
        (url,) = await client.urls("one")
        assert (await client.fetch(url)).body == b


async def test_an_unknown_audio_file_is_refused(sim: Simulator) -> None:
    with pytest.raises(ValueError, match=r"recordings\[1\].audio.file: '../x.wav'"):
        sim.script({"session_id": SESSION, "recordings": [{}, {"audio": {"file": "../x.wav"}}]})


async def test_by_default_a_session_has_two_seconds_of_its_own(client: Client) -> None:
    bodies = []
    for session_id in ("one", "two"):
        client.sim.script({"session_id": session_id})
        (url,) = await client.urls(session_id)
        bodies.append((await client.fetch(url)).body)
    assert bodies[0] != bodies[1]
    with wave.open(io.BytesIO(bodies[0])) as file:
        assert file.getnframes() == 16_000


def test_a_flac_is_what_it_says(tmp_path: Path) -> None:
    """Its decoder is as small as its encoder: every frame is verbatim. `flac --test` and sox accept it, too."""
    for samples in (1, 4095, 4096, 4097, 50_000):
        wav = GeneratedWav(2 * samples, seed=samples)
        content = flac_of(2 * samples, samples)
        assert content[:8] == b"fLaC\x80\x00\x00\x22"
        packed = int.from_bytes(content[18:26])
        assert (packed >> 44, packed >> 41 & 7, packed >> 36 & 31, packed & (1 << 36) - 1) == (8000, 0, 15, samples)
        sound = whole(wav)[44:]
        assert content[26:42] == hashlib.md5(sound).digest()
        at, found = 42, b""
        while at < len(content):
            block = min(4096, samples - len(found) // 2)
            header = 5 + (0 if block == 4096 else 2)
            assert content[at : at + 2] == b"\xff\xf8"
            assert content[at + 4] == len(found) // 8192
            at += header + 1 + 1 + 2 * block + 2
            found += content[at - 2 - 2 * block : at - 2]
        assert struct.pack(f"<{samples}h", *struct.unpack(f">{samples}h", found)) == sound


def test_checksums_of_a_flac_are_those_of_its_format() -> None:
    """The check values of CRC-8 and of CRC-16/UMTS in the catalogue of parametrised CRC algorithms."""
    assert (flac._crc8(b"123456789"), flac._crc16(b"123456789")) == (0xF4, 0xFEE8)


@pytest.mark.parametrize("extra", ["list", "id3", None])
@pytest.mark.parametrize("riff_sizes", ["true", "7ffff000", "riff_wrong"])
def test_a_wav_can_have_more_than_its_sound(extra: Any, riff_sizes: Any) -> None:
    body = GeneratedWav(1000, 7, riff_sizes, extra)
    content = whole(body)
    assert len(content) == body.size == {"list": 1044 + 100_008, "id3": 1044 + 128, None: 1044}[extra]
    for start, stop in ((0, 50), (40, body.size), (body.size - 100, body.size), (body.size - 130, body.size - 1), (100, 900)):
        assert b"".join(body.pieces(start, stop)) == content[start:stop]
    riff, data = struct.unpack_from("<I", content, 4)[0], content.index(b"data")
    (size,) = struct.unpack_from("<I", content, data + 4)
    assert content[data + 8 :][:1000] == whole(GeneratedWav(1000, 7))[44:]
    counted = data + 1000  # what a right size of the whole counts
    assert (riff, size) == {"true": (counted, 1000), "7ffff000": (0x7FFFF024, 0x7FFFF000), "riff_wrong": (counted + 8, 1000)}[
        riff_sizes
    ]
    assert extra != "id3" or content[-128:-125] == b"TAG"


async def test_a_flac_can_come_as_a_wav_and_any_bytes_as_they_are(client: Client) -> None:
    flac_entry = {"audio": {"seconds": 0.5, "format": "flac"}}
    header = {"audio": {"bytes": 44}}
    given = {"audio": {"base64": base64.b64encode(b"OggS\x00\xff").decode()}}
    client.sim.script({"session_id": SESSION, "recordings": [flac_entry, header, given]})
    answer = await client.ask()
    entries = answer.json["recording"]
    assert entries[0]["fileName"].endswith(".wav")
    first, second, third = [await client.fetch(entry["fileUrl"]) for entry in entries]
    assert (first.headers["Content-Type"], first.body[:4]) == ("audio/wav", b"fLaC")
    assert hashlib.sha256(first.body).hexdigest() == client.sim.sha256_of(SESSION)[0]
    assert (len(second.body), second.body[36:]) == (44, b"data\0\0\0\0")
    assert third.body == b"OggS\x00\xff"


@pytest.mark.parametrize(
    ("recording", "says"),
    [
        ({"audio": {"base64": "no base64"}}, "audio.base64"),
        ({"audio": {"bytes": 1000, "format": "flac"}}, "flac doesn't go with bytes"),
        ({"audio": {"seconds": 1, "format": "flac"}, "riff_sizes": "zero"}, "riff_sizes don't go with"),
        ({"extra": "id3"}, "extra needs an audio of seconds or bytes"),
    ],
)
async def test_audio_that_cannot_be_is_refused(client: Client, recording: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        client.sim.script({"session_id": SESSION, "recordings": [recording]})
