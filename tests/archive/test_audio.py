"""What counts as a recording, and what it may be called."""

from __future__ import annotations

import dataclasses
import re
import struct
import subprocess
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pathvalidate import validate_filename

from archiver.archive import naming
from archiver.archive.audio import Inspection, inspect
from archiver.archive.excerpt import HEAD_BYTES, Excerpt
from archiver.archive.formats import MAX_RATE, Sound
from archiver.archive.formats.known import FORMATS
from archiver.archive.naming import MAX_NAME_BYTES, FileNames, clean_file_name
from archiver.errors import RecordingRejected
from tests.audio_files import CASES, EXTENSIBLE, FRAME, LIST, VORBIS, Case, chunk, flac, frame, id3, ogg, opus, rf64, wav
from tests.audio_files import MULAW as FMT
from tests.programs import installed

WAV = "audio/wav"


def judged(
    body: bytes, *, name: str = "x.wav", content_type: str | None = WAV, whole: bool = True, step: int = 100_000
) -> Inspection:
    excerpt = Excerpt()
    for at in range(0, len(body), step):
        excerpt.take(body[at : at + step])
    assert excerpt.length == len(body)
    assert bytes(excerpt.head) == body[:HEAD_BYTES]
    return inspect(name=name, excerpt=excerpt, content_type=content_type, whole=whole)


def rejected(body: bytes, *, name: str = "x.wav", content_type: str | None = WAV, whole: bool = True) -> str:
    with pytest.raises(RecordingRejected) as caught:
        judged(body, name=name, content_type=content_type, whole=whole)
    assert caught.value.facts["received"] == len(body)
    return caught.value.reason


@pytest.mark.parametrize(
    "content_type", [WAV, "audio/mpeg", "application/octet-stream", "text/html", "application/json", "", None]
)
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "recording_empty"),
        (b"<html><body>Service unavailable</body></html>", "recording_is_page"),
        (b"\r\n \t<!DOCTYPE html>", "recording_is_page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "recording_is_page"),
        ("\ufeff<html>".encode("utf-16-le"), "recording_is_page"),
        ("<h1>désolé</h1>".encode("latin-1"), "recording_is_page"),
        (b'{"error": "x"}', "recording_is_json"),
        (b'\xef\xbb\xbf [{"error": "x"}]', "recording_is_json"),
        ('{"erreur": "désolé"}'.encode("latin-1"), "recording_is_json"),
        (b"Internal Server Error\n", "recording_is_text"),
        ("désolé, réessayez".encode(), "recording_is_text"),
        ("\ufeffno such file".encode("utf-16-be"), "recording_is_text"),
        (b"\n\n", "recording_is_text"),
        ("é".encode() * 40_000, "recording_is_text"),
    ],
)
def test_an_answer_in_disguise_is_no_recording(body: bytes, reason: str, name: str, content_type: str | None) -> None:
    declared = {"text/html": "recording_is_page", "application/json": "recording_is_json"}.get(content_type or "")
    found = rejected(body, name=name, content_type=content_type)
    assert found in ({reason, declared} if body else {reason})


PAGE = "<html><body>désolé</body></html>"


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a"])
@pytest.mark.parametrize("page", [PAGE.encode(), PAGE.encode("latin-1")], ids=["UTF-8", "Latin-1"])
@pytest.mark.parametrize(
    "mark",
    [b"#!AMR\n", b"#!AMR-WB\n", b"FORM1234AIFF", b".snd\0\0\0\x18", b"fLaC\0\0\0\x22", b"\xff\xfb\x10\xc4", id3(), id3(0)],
    ids=repr,
)
def test_a_page_behind_the_mark_of_audio_is_a_page(mark: bytes, page: bytes, name: str) -> None:
    assert rejected(mark + page, name=name, content_type="audio/mpeg") == "recording_is_page"


@pytest.mark.parametrize("mark", [b"#!AMR\n", b"FORM1234AIFF", id3()], ids=repr)
def test_text_and_json_behind_the_mark_of_audio_are_no_recording(mark: bytes) -> None:
    assert rejected(mark + b"Internal Server Error", name="a.mp3", content_type="") == "recording_is_text"
    assert rejected(id3() + b'{"error": 1}', name="a.mp3", content_type="") == "recording_is_json"


def test_a_tag_that_is_cut_off_is_no_recording() -> None:
    assert rejected(id3()[:-1], name="a.mp3") == "recording_truncated"
    assert rejected(id3(), name="a.mp3", whole=False) == "recording_truncated"


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("text/html; charset=utf-8", "recording_is_page"),
        ("Application/XML", "recording_is_page"),
        ("application/problem+json", "recording_is_json"),
        ("text/plain", "recording_is_text"),
    ],
)
def test_binary_that_is_declared_to_be_text_is_no_recording(content_type: str, reason: str) -> None:
    assert rejected(b"\x1f\x8b\x08\x00\xff\xfe", name="a.bin", content_type=content_type) == reason


def fate(case: Case, step: int) -> Inspection | str:
    """What becomes of a file: what it is, or the reason to refuse it."""
    try:
        return judged(case.body, name=case.name, content_type=case.declared, whole=case.proven, step=step)
    except RecordingRejected as error:
        return error.reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_each_file_is_kept_or_refused_for_what_it_is(case: Case) -> None:
    for step in (7, 4096, 1 << 30):
        found = fate(case, step)
        if isinstance(found, Inspection):
            assert (found.media_type, found.flags) == (case.media_type, case.flags)
            assert found.seconds == (None if case.seconds is None else pytest.approx(case.seconds, abs=1e-6))
        assert (found if isinstance(found, str) else None) == case.refused


@pytest.mark.parametrize("step", [7, 300, 5000, 64 * 1024, 300_000])
def test_of_a_long_body_only_the_end_is_held(step: int) -> None:
    case = next(case for case in CASES if case.what == "Ogg Vorbis of 300 KB")
    excerpt = Excerpt()
    for at in range(0, len(case.body), step):
        excerpt.take(case.body[at : at + step])
        assert sum(map(len, excerpt._last)) <= 2 * 66_560 + step
        assert len(excerpt._last) <= 64
    assert excerpt.finish() == Sound(case.seconds, 8000, 1)


def test_the_size_of_the_pieces_makes_no_difference() -> None:
    body = ogg(VORBIS, last=16000) + bytes(120_000)
    assert {judged(body, step=step).seconds for step in (999, 65_536, 1 << 30)} == {None}


def _with_fmt(kind: int, channels: int, rate: int) -> bytes:
    return wav(chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, 16000, 2, 16)))


@pytest.mark.parametrize(
    ("what", "sample_rate", "channels"),
    [
        ("mu-law", 8000, 1), ("GSM 6.10", 8000, 1), ("RF64", 8000, 1), ("no audio", 8000, 1), ("no rates at all", None, 1),
        ("FLAC", 8000, 1), ("FLAC of unknown length", 8000, 1), ("FLAC without a rate", None, 1), ("Ogg FLAC", 8000, 1),
        ("Ogg Opus", 48000, 1), ("Ogg Vorbis", 8000, 1), ("Ogg Speex", 8000, None), ("Ogg Vorbis, another stream last", 8000, 1),
        ("Ogg of something else", None, None), ("Ogg without a rate", None, 1), ("MP3", 44100, 1), ("MP3, 8 kHz", 8000, 1),
        ("MP3 with a Xing table", 44100, 1), ("MP3 of two bitrates", 44100, 1), ("MP3, nothing but an ID3 tag", None, None),
        ("AU", 8000, 1), ("AIFF", 8000, 1), ("AIFF without a rate", None, 1), ("AIFF of an endless rate", None, 1),
        ("M4A", None, None), ("AMR", None, None), ("WebM", None, None), ("noise", None, None),
    ],
)  # fmt: skip
def test_the_rate_and_the_channels_are_those_of_the_header(what: str, sample_rate: int | None, channels: int | None) -> None:
    found = fate(next(case for case in CASES if case.what == what), 4096)
    assert isinstance(found, Inspection)
    assert (found.sample_rate, found.channels) == (sample_rate, channels)


def test_a_rate_that_no_format_means_is_none() -> None:
    stereo = judged(_with_fmt(1, 2, 44100))
    assert (stereo.sample_rate, stereo.channels) == (44100, 2)
    hostile = judged(_with_fmt(1, 0, 10_000_001))
    assert (hostile.sample_rate, hostile.channels) == (None, None)
    assert judged(_with_fmt(1, 65535, 0xFFFFFFFF)).sample_rate is None
    joint = judged(frame(0xFFFB1044) * 100, name="a.mp3", content_type="audio/mpeg")
    assert (joint.sample_rate, joint.channels) == (44100, 2)


def test_every_format_has_its_files() -> None:
    assert {case.media_type for case in CASES if not case.refused} >= {known.media_type for known in FORMATS}


@pytest.mark.parametrize(
    ("what", "declared"),
    [
        ("16-bit PCM", "audio/x-wav audio/vnd.wave Audio/Wave;codec=1"),
        ("FLAC", "audio/flac audio/x-flac"),
        ("Ogg Opus", "audio/opus audio/ogg;codecs=opus application/ogg"),
        ("MP3", "audio/mpeg AUDIO/MP3 audio/x-mpeg"),
        ("M4A", "audio/mp4 audio/x-m4a video/mp4"),
        ("WebM", "audio/webm video/webm"),
        ("AIFF", "audio/aiff audio/x-aiff application/octet-stream binary/octet-stream"),
    ],
)
def test_another_word_for_the_same_type_is_no_difference(what: str, declared: str) -> None:
    body = next(case.body for case in CASES if case.what == what)
    assert {judged(body, name="a", content_type=each).flags for each in declared.split()} == {()}


@pytest.mark.parametrize("name", ["a", "a.bin", "recording.2024", "wav", ""])
def test_a_name_that_says_nothing_does_not_differ(name: str) -> None:
    assert judged(next(case.body for case in CASES if case.what == "FLAC"), name=name, content_type="").flags == ()


def test_other_bodies_are_taken_as_they_are_declared() -> None:
    noise = bytes(range(200, 256)) * 9
    assert judged(noise, name="a.aac", content_type="Audio/AAC; x") == Inspection("audio/aac")
    assert judged(noise, name="a.ogg", content_type=None) == Inspection("application/octet-stream")
    assert rejected(noise, name="a.wave", content_type="x/y") == "recording_not_wav"
    assert rejected(noise, name="a", content_type="audio/x-wav; rate=8000") == "recording_not_wav"


# --- what a closed connection does not prove


@pytest.mark.parametrize(
    "body",
    [
        wav(),
        wav(chunk(b"fmt ", EXTENSIBLE)),
        wav(behind=LIST),
        wav(riff_size=0),
        wav(riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF),
        wav(riff_size=0, data_size=0),
        rf64(),
        rf64(behind=LIST),
        wav(chunk(b"JUNK", bytes(HEAD_BYTES)), chunk(b"fmt ", FMT)),
    ],
)
def test_a_header_that_agrees_is_enough(body: bytes) -> None:
    assert judged(body, whole=False) == judged(body)


@pytest.mark.parametrize(
    "body",
    [
        wav(audio=b""),
        wav(audio=b"", riff_size=0, data_size=0),
        wav(audio=b"", riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF),
        wav(riff_size=8),
        wav(riff_size=len(wav()) + 1),
        wav(riff_size=36, data_size=0),
        wav() + b"\0\0",
        wav() + b"<html>appended</html>",
        wav(behind=LIST)[:-1],
        rf64() + b"\0\0",
        rf64(behind=LIST, missing=1),
    ],
)
def test_a_header_that_disagrees_is_a_flag_only_where_the_transfer_proves_that_all_has_come(body: bytes) -> None:
    assert judged(body).flags
    assert rejected(body, whole=False) == "recording_bad_wav"


@pytest.mark.parametrize("body", [flac()[:4000], opus(), bytes(range(200, 256))], ids=["FLAC", "Opus", "unknown"])
def test_of_what_is_no_wav_a_closed_connection_leaves_open_whether_it_is_whole(body: bytes) -> None:
    found = judged(body, name="a", content_type="")
    assert judged(body, name="a", content_type="", whole=False) == dataclasses.replace(found, flags=("end_unproven",))


def test_a_rejection_says_what_was_expected_and_what_came() -> None:
    body = wav()[:-20]
    with pytest.raises(RecordingRejected) as caught:
        judged(body)
    error = caught.value
    assert str(len(body)) in error.message
    assert error.facts["first_bytes"].startswith("RIFF")
    assert error.facts["content_type"] == WAV


EXTRA = st.lists(st.tuples(st.sampled_from([b"LIST", b"fact", b"bext", b"JUNK"]), st.binary(max_size=40)), max_size=3)


@st.composite
def wavs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid WAV, plain or RF64, and its audio with whatever trails it but a padding byte."""
    before = [chunk(name, content) for name, content in draw(EXTRA)]
    before.insert(draw(st.integers(0, len(before))), chunk(b"fmt ", draw(st.sampled_from([FMT, FMT + b"\0\0", EXTENSIBLE]))))
    behind = b"".join(chunk(name, content) for name, content in draw(EXTRA))
    audio = draw(st.binary(min_size=1, max_size=300))
    return (rf64(audio, behind=behind) if draw(st.booleans()) else wav(*before, audio=audio, behind=behind)), audio


@given(wavs(), st.data())
def test_a_whole_wav_is_never_rejected_and_one_that_lacks_bytes_always(made: tuple[bytes, bytes], data: st.DataObject) -> None:
    body, audio = made
    for whole in (True, False):
        found = judged(body, whole=whole)
        assert (found.media_type, found.flags) == ("audio/wav", ())
    lacking = data.draw(st.integers(1, len(body)))
    if lacking == 1 and len(audio) % 2 and body.endswith(audio + b"\0"):
        return  # a padding byte alone is no loss
    assert rejected(body[: len(body) - lacking], whole=False) in (
        "recording_bad_wav",
        "recording_empty",
        "recording_not_wav",
        "recording_is_text",
    )


@given(wavs(), st.data())
def test_audio_that_lacks_bytes_is_refused_whatever_the_transfer_proves(made: tuple[bytes, bytes], data: st.DataObject) -> None:
    body, audio = made
    end = body.index(b"data") + 8 + len(audio)
    assert rejected(body[: data.draw(st.integers(12, end - 1))]) == "recording_bad_wav"


@given(st.binary(max_size=200), st.sampled_from(["a.wav", "a"]), st.sampled_from([WAV, None, "text/plain"]), st.booleans())
@example(b"RIFF\xff\xff\xff\xffWAVEdata", "a.wav", WAV, False)
@example(b"RF64\xff\xff\xff\xffWAVEds64\x10\0\0\0fmt \x10\0\0\0", "a", None, True)
def test_no_body_makes_the_judge_fail(body: bytes, name: str, content_type: str | None, whole: bool) -> None:
    try:
        reason = judged(b"RIFF" + body, name=name, content_type=content_type, whole=whole).media_type
    except RecordingRejected as error:
        reason = error.reason
    assert reason in ("audio/wav", "recording_bad_wav")


SMALL = [case.body for case in CASES if len(case.body) < 12_000]


@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=12)), max_size=4),
    st.integers(0, 12_000),
    st.binary(max_size=80),
    st.integers(1, 5000),
    st.booleans(),
)
def test_no_damage_makes_the_judge_fail(
    body: bytes, damage: list[tuple[int, bytes]], kept: int, behind: bytes, step: int, whole: bool
) -> None:
    damaged = bytearray(body)
    for at, content in damage:
        damaged[at : at + len(content)] = content
    try:
        found = judged(bytes(damaged[:kept] + behind), step=step, whole=whole)
    except RecordingRejected:
        return
    assert found.seconds is None or 0 <= found.seconds <= 30 * 86400
    assert all(number is None or 0 < number <= MAX_RATE for number in (found.sample_rate, found.channels))


@given(st.binary(max_size=400))
def test_one_frame_before_noise_is_no_mp3(noise: bytes) -> None:
    body = b"\xff\xfb\x10\xc4" + noise.replace(b"\xff", b"\xfe")
    assert judged(body, name="a", content_type="x/y").media_type == "x/y"


@pytest.mark.parametrize(
    "body",
    [
        wav(*[chunk(b"JUNK", b"")] * 500_000),
        wav(audio=b"", behind=chunk(b"JUNK", b"") * 500_000),
        b"FORM\0\0\0\0AIFF" + b"JUNK\0\0\0\0" * 500_000,
        b"\0\0\0\x10ftypM4A " + bytes(4) + b"\0\0\0\x08free" * 500_000,
        b"\0\0\0\x10ftypM4A " + bytes(4) + b"\0\0\0\x08moov" * 500_000,
        b"OggS" * 1_000_000,
        b"OggS\0\2" + b"OggS" * 1_000_000,
        frame(FRAME) * 40_000,
        b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(4_000_000),
    ],
    ids=lambda body: repr(body[:4])[2:-1],
)
def test_a_hostile_body_costs_no_time(body: bytes) -> None:
    began = time.process_time()
    for step in (1 << 16, 1 << 12):
        with suppress(RecordingRejected):
            judged(body, name="a", content_type=None, step=step)
    assert time.process_time() - began < 1


# --- what others make of the same files

PROGRAMS = ("file", "sox")
KNOWN_TO_FILE = {
    "audio/wav": "WAVE audio|RF64",
    "audio/flac": "FLAC",
    "audio/ogg": "Ogg data",
    "audio/mpeg": "MPEG ADTS|ID3",
    "audio/mp4": "ISO Media",
    "audio/amr": "Adaptive Multi-Rate",
    "audio/amr-wb": "Adaptive Multi-Rate",
    "audio/webm": "WebM",
    "audio/basic": "Sun/NeXT audio",
    "audio/aiff": "AIFF",
}
SUFFIXES = {known.media_type: known.media_type.partition("/")[2] for known in FORMATS} | {
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/amr": "amr-nb",
    "audio/basic": "au",
}
ENCODED = [
    ("wav", "-e signed -b 16", 0.0), ("wav", "-e mu-law", 0.0), ("wav", "-e gsm", 0.02), ("wav", "-e ms-adpcm", 0.2),
    ("wav", "-e ima-adpcm", 0.2), ("flac", "", 0.0), ("ogg", "", 0.0), ("mp3", "-C 32", 0.1), ("mp3", "-C -4.2", 0.1),
    ("aiff", "", 0.0), ("aifc", "", 0.0), ("au", "-e mu-law", 0.0), ("amr-nb", "", 0.0),
]  # fmt: skip
"""What sox can make: suffix, options, and how far from its own opinion of the length the header's may be."""


@pytest.fixture
def programs() -> None:
    for name in PROGRAMS:
        installed(name, "file sox libsox-fmt-all")


def run(*command: str) -> str:
    """What a program says; nothing where it gives up, or does not come to an end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@pytest.mark.once
@pytest.mark.usefixtures("programs")
def test_file_and_sox_say_the_same(tmp_path: Path) -> None:
    """The table is printed with `pytest -s`."""
    paths = [tmp_path / f"{number:03}.{SUFFIXES.get(case.media_type, 'bin')}" for number, case in enumerate(CASES)]
    for path, case in zip(paths, CASES, strict=True):
        path.write_bytes(case.body)
    kinds = run("file", "--brief", *map(str, paths)).splitlines()
    print(f"\n{'file':46}{'state':19}{'flags':34}{'seconds':>9}{'sox':>17}  file says")
    differ = []
    for path, case, kind in zip(paths, CASES, kinds, strict=True):
        told = run("sox", "--i", "-D", str(path)) if case.sox else ""
        seconds = "-" if case.seconds is None else f"{case.seconds:.3f}"
        print(f"{case.what:46}{case.refused or 'kept':19}{' '.join(case.flags):34}{seconds:>9}{told or '-':>17}  {kind[:60]}")
        if case.refused or case.media_type not in KNOWN_TO_FILE:
            continue
        # Newer than the table that `file` has of marks.
        if not re.search(KNOWN_TO_FILE[case.media_type], kind) and case.body[:4] != b"BW64":
            differ.append((case.what, kind))
        # Of a size that was never written sox makes hours, or nothing.
        if told and case.seconds is not None and "streamed_wav" not in case.flags and abs(float(told) - case.seconds) > 0.06:
            differ.append((case.what, told))
    assert differ == []


@pytest.mark.once
@pytest.mark.usefixtures("programs")
def test_what_sox_encodes_is_known_and_measured(tmp_path: Path) -> None:
    for number, (suffix, options, tolerance) in enumerate(ENCODED):
        path = tmp_path / f"{number}.{suffix}"
        made = ["sox", "-n", "-r", "8000", "-c", "1", *options.split(), str(path), "synth", "7.3", "sine", "300-2000"]
        subprocess.run(made, check=True, capture_output=True, timeout=20)
        told = float(run("sox", "--i", "-D", str(path)))
        found = judged(path.read_bytes(), name=path.name.replace(".amr-nb", ".amr"), content_type=None)
        kind = run("file", "--brief", str(path))
        print(f"{suffix + ' ' + options:26}{found.media_type:14}{found.seconds!s:>12}{told:>12}  {kind[:60]}")
        assert re.search(KNOWN_TO_FILE[found.media_type], kind)
        assert found.flags == ()
        if found.media_type != "audio/amr":
            assert found.seconds == pytest.approx(told, abs=tolerance + 1e-4)


# --- names


@pytest.mark.parametrize(
    ("given_name", "cleaned"),
    [
        ("22d8-merged.wav", "22d8-merged.wav"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "recording"),
        ("..", "recording"),
        ("", "recording"),
        (" . ", "recording"),
        (".bashrc", "bashrc"),
        ("~.a.b", "a.b"),
        ("a\0b.wav", "a_b.wav"),
        ("a\nb\u202eb\ud800.wav", "a_b_b_.wav"),
        ('a<b>:"|?*.wav', "a_b______.wav"),
        ("CON", "CON_"),
        (".con", "con_"),
        ("~aux.wav", "aux_.wav"),
        ("com1.tar.gz", "com1_.tar.gz"),
        ("COM¹.wav", "COM¹_.wav"),
        ("CONIN$.wav", "_CONIN$.wav"),
        ("console.wav", "console.wav"),
        ("name. ", "name"),
        ("a .wav", "a.wav"),
        ("cafe\u0301.wav", "café.wav"),
        ("a" * 400 + ".wav", "a" * 176 + ".wav"),
        ("é" * 400 + ".wav", "é" * 88 + ".wav"),
        ("a." + "b" * 400, "a." + "b" * 178),
        ("session.json", "session~2.json"),
        ("ＳＥＳＳＩＯＮ.12.JSON", "ＳＥＳＳＩＯＮ.12~2.JSON"),
        ("session.json.wav", "session.json.wav"),
    ],
)
def test_names(given_name: str, cleaned: str) -> None:
    assert clean_file_name(given_name, []) == cleaned


def test_equal_names_of_one_session_are_told_apart() -> None:
    taken: list[str] = []
    for name in ("a.wav", "A.WAV", "x/a.wav", "ａ.wav", "a~2.wav", "b"):
        taken.append(clean_file_name(name, taken))
    assert taken[0] == "a.wav"
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in taken}) == len(taken)
    assert taken[1:3] == ["A~2.WAV", "a~3.wav"]


def test_many_names_that_are_alike_take_no_longer_than_others() -> None:
    """Each was held against all others, and each of the numbers before its own: ten thousand of the longest took hours."""
    names, began = FileNames([]), time.perf_counter()
    taken = [names.take(("\ufdfa" * 60) + ".wav") for _ in range(1000)]
    assert len(set(taken)) == 1000
    assert taken[-1].endswith("~1000.wav")
    assert time.perf_counter() - began < 5


DEVICES = st.sampled_from(["con", "PRN", "aux", "nul", "com1", "LPT9", "conin", "clock", "session"])


@given(
    st.from_regex(naming._PLAIN, fullmatch=True) | st.builds("{}{}".format, DEVICES, st.sampled_from([".wav", "-1.wav", ".json"]))
)
def test_a_closer_look_finds_nothing_in_a_plain_name(name: str) -> None:
    quick = clean_file_name(name, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "_PLAIN", re.compile(r"(?!)"))
        assert clean_file_name(name, []) == quick


ODD = st.text(
    st.sampled_from('aAbc.  ..~/\\:*?<>|"\0\n\x7f\u202e\ud800\u2028İıſßéÉﬁ＂／Kk\u0301\ufffe¹CONconauxcom1$') | st.characters(),
    max_size=12,
)
NAMES = ODD | st.builds(
    lambda name, times, end: name * times + end, ODD, st.integers(1, 400), st.sampled_from(["", ".wav", ".wav "])
)


@given(st.lists(NAMES, min_size=1, max_size=6))
@example(["con", "_con", ".CON", "nul.tar.gz", "conin$.wav"])
@example(["\ud800", "\udfff"])
@example(["\xa0.0", "\u2003.wav"])
@example(["0 .0.0", "con .a.wav"])
def test_every_name_is_safe_and_unlike_the_others(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        cleaned = clean_file_name(name, taken)
        assert cleaned == clean_file_name(name, list(taken))
        assert 0 < len(cleaned.encode("utf-8")) <= MAX_NAME_BYTES
        assert not set(cleaned) & set('/\\:*?"<>|')
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn") for c in cleaned)
        assert cleaned[0] not in ". ~"
        assert cleaned[-1] not in ". "
        assert unicodedata.is_normalized("NFC", cleaned)
        validate_filename(cleaned, platform="universal")
        # Windows leaves out spaces before the first dot, and a device is one with them, too.
        validate_filename(cleaned.partition(".")[0].rstrip(" "), platform="universal")
        taken.append(cleaned)
    for form in ("NFC", "NFD", "NFKC"):
        assert len({unicodedata.normalize(form, name).casefold() for name in taken}) == len(taken)
