"""What counts as a recording, and what it may be called."""

from __future__ import annotations

import struct
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pathvalidate import validate_filename

from archiver.errors import RecordingRejected
from archiver.naming import MAX_NAME_BYTES, FileNames, clean_file_name
from archiver.recording import HEAD_BYTES, Inspection, inspect

FMT = struct.pack("<HHIIHH", 7, 1, 8000, 8000, 1, 8)
EXTENSIBLE = struct.pack("<HHIIHHHHI16s", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4, b"\x01" + bytes(15))
AUDIO = bytes(range(1, 200))
WAV = "audio/wav"


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def wav(
    *chunks: bytes, riff: bytes = b"RIFF", riff_size: int | None = None, data_size: int | None = None, audio: bytes = AUDIO
) -> bytes:
    """A WAV: the chunks, then its data; the sizes are true where none is given."""
    body = b"WAVE" + (b"".join(chunks) or chunk(b"fmt ", FMT)) + chunk(b"data", audio, data_size)
    return riff + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def rf64(audio: bytes = AUDIO, *, tail: bytes = b"", missing: int = 0) -> bytes:
    rest = chunk(b"fmt ", FMT) + chunk(b"data", audio, 0xFFFFFFFF) + tail
    size = 4 + 8 + 28 + len(rest)
    ds64 = chunk(b"ds64", struct.pack("<QQQI", size, len(audio), 0, 0))
    return b"RF64\xff\xff\xff\xffWAVE" + ds64 + rest[: len(rest) - missing]


def judged(body: bytes, *, name: str = "x.wav", content_type: str | None = WAV) -> Inspection:
    return inspect(name=name, head=body[:HEAD_BYTES], length=len(body), content_type=content_type)


def rejected(body: bytes, *, name: str = "x.wav", content_type: str | None = WAV) -> str:
    with pytest.raises(RecordingRejected) as caught:
        judged(body, name=name, content_type=content_type)
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


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream", None])
def test_a_whole_wav_is_one_whatever_it_is_declared_to_be(content_type: str | None) -> None:
    assert judged(wav(), name="a", content_type=content_type) == Inspection("audio/wav", seconds=199 / 8000)


@pytest.mark.parametrize(("name", "content_type"), [("a.WAV", None), ("a.wave", "x/y"), ("a", "audio/x-wav; rate=8000")])
def test_what_is_called_a_wav_must_be_one(name: str, content_type: str | None) -> None:
    assert rejected(b"ID3\x03\x00\x00\xff\xfb", name=name, content_type=content_type) == "recording_not_wav"


def test_other_audio_is_taken_as_it_is_declared() -> None:
    assert judged(b"ID3\x03\x00\x00\xff\xfb", name="a.mp3", content_type="Audio/MPEG; x") == Inspection("audio/mpeg")
    assert judged(b"OggS\x00\x02", name="a.ogg", content_type=None) == Inspection("application/octet-stream")


@pytest.mark.parametrize(
    "body",
    [
        wav(),
        wav(audio=AUDIO[:100]),
        wav(chunk(b"fmt ", EXTENSIBLE)),
        wav(chunk(b"fmt ", FMT + b"\0\0"), chunk(b"fact", b"\0\0\0\1")),
        wav(chunk(b"LIST", b"INFOISFT\x05\0\0\0odd.\0"), chunk(b"fmt ", FMT)),
        wav(chunk(b"bext", bytes(603)), chunk(b"fmt ", FMT)),
        wav() + b"",
        wav()[:4] + struct.pack("<I", len(wav()) - 9) + wav()[8:],  # a padding byte that the size leaves out
        wav()[:-1],  # a padding byte that was counted and never written
        rf64(),
        rf64(tail=chunk(b"LIST", b"x" * 8)),
        wav(riff=b"RF64", riff_size=0xFFFFFFFF)[:12] + rf64()[12:],
    ],
)
def test_a_coherent_wav_is_taken(body: bytes) -> None:
    found = judged(body)
    assert (found.media_type, found.flags) == ("audio/wav", ())


def test_how_long_it_plays_is_told_by_its_header() -> None:
    assert judged(wav(audio=bytes(range(1, 201)) * 40)).seconds == 1.0  # mu-law, 8000 bytes a second
    assert judged(wav(chunk(b"fmt ", EXTENSIBLE), audio=bytes(range(1, 201)) * 40)).seconds == 0.5
    assert judged(rf64(b"\1" * 2000)).seconds == 0.25
    assert judged(wav(chunk(b"fmt ", struct.pack("<HHIIHH", 7, 1, 8000, 0, 1, 8)))).seconds is None


@pytest.mark.parametrize("riff_size", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("data_size", [None, 0, 0xFFFFFFFF])
def test_a_wav_written_as_a_stream_is_taken_and_flagged(riff_size: int | None, data_size: int | None) -> None:
    body = wav(riff_size=riff_size, data_size=data_size)
    if (riff_size, data_size) == (None, None):
        assert judged(body).flags == ()
    elif (riff_size, data_size) == (None, 0):
        assert rejected(body) == "recording_bad_wav"
    else:
        found = judged(body)
        assert (found.media_type, found.flags) == ("audio/wav", ("streamed_wav",))
        assert found.seconds in (199 / 8000, 200 / 8000)  # the byte that pads it cannot be told from audio without a size


@pytest.mark.parametrize(
    "body",
    [
        b"RIFF",
        b"RIFF\0\0\0\0WAV",
        b"RIFF\x04\0\0\0AVI ",
        wav(audio=b""),
        wav(audio=b"", riff_size=0, data_size=0),
        wav(audio=b"", riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF),
        wav(data_size=len(AUDIO) + 2),
        wav(riff_size=0, data_size=len(AUDIO) + 2),
        wav(riff_size=8),
        wav(riff_size=len(wav()) + 1),
        wav() + b"\0\0",
        wav() + b"<html>appended</html>",
        wav(chunk(b"LIST", b"x")),
        wav(chunk(b"fmt ", FMT[:12])),
        b"RIFF" + struct.pack("<I", 4 + 24) + b"WAVE" + chunk(b"fmt ", FMT),
        wav(chunk(b"JUNK", bytes(HEAD_BYTES)), chunk(b"fmt ", FMT)),
        wav(chunk(b"fmt ", FMT), riff=b"RF64", riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF),
        wav(chunk(b"ds64", bytes(8)), chunk(b"fmt ", FMT), riff=b"RF64", riff_size=0xFFFFFFFF),
        rf64(missing=2),
        rf64(tail=chunk(b"LIST", b"x" * 8), missing=1),
        rf64() + b"\0\0",
    ],
)
def test_an_incoherent_wav_is_rejected(body: bytes) -> None:
    assert rejected(body) == "recording_bad_wav"


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
    after = b"".join(chunk(name, content) for name, content in draw(EXTRA))
    audio = draw(st.binary(min_size=1, max_size=300))
    if draw(st.booleans()):
        return rf64(audio, tail=after), audio
    body = b"WAVE" + b"".join(before) + chunk(b"data", audio) + after
    return b"RIFF" + struct.pack("<I", len(body)) + body, audio


@given(wavs(), st.data())
def test_a_whole_wav_is_never_rejected_and_one_that_lacks_bytes_always(made: tuple[bytes, bytes], data: st.DataObject) -> None:
    body, audio = made
    found = judged(body)
    assert (found.media_type, found.flags) == ("audio/wav", ())
    lacking = data.draw(st.integers(1, len(body)))
    if lacking == 1 and len(audio) % 2 and body.endswith(audio + b"\0"):
        return  # a padding byte alone is no loss
    assert rejected(body[: len(body) - lacking]) in (
        "recording_bad_wav",
        "recording_empty",
        "recording_not_wav",
        "recording_is_text",
    )


@given(st.binary(max_size=200), st.sampled_from(["a.wav", "a"]), st.sampled_from([WAV, None, "text/plain"]))
@example(b"RIFF\xff\xff\xff\xffWAVEdata", "a.wav", WAV)
@example(b"RF64\xff\xff\xff\xffWAVEds64\x10\0\0\0fmt \x10\0\0\0", "a", None)
def test_no_body_makes_the_judge_fail(body: bytes, name: str, content_type: str | None) -> None:
    try:
        reason = judged(b"RIFF" + body, name=name, content_type=content_type).media_type
    except RecordingRejected as error:
        reason = error.reason
    assert reason in ("audio/wav", "recording_bad_wav")


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
        validate_filename(cleaned.partition(".")[0], platform="universal")
        taken.append(cleaned)
    for form in ("NFC", "NFD", "NFKC"):
        assert len({unicodedata.normalize(form, name).casefold() for name in taken}) == len(taken)
