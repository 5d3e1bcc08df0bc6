"""A made-up night: sessions that meet every status and every fault that a real one could meet.

Hung connections are left out, so that a client that gives up after a few tries is through within half a minute.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from archiver.simulator.script import SessionScript

if TYPE_CHECKING:
    from collections.abc import Iterator

Fields = dict[str, Any]

MINIMUM = 100
MANY_FILES = 1000

SUCCESS: Fields = {"status": "success"}

ERROR_PAGE = "<html><head><title>503</title></head><body><h1>Service Unavailable</h1></body></html>"
ERROR_JSON = '{"code":"InternalError","message":"please try again later"}'


def demo_scenario(count: int = 300, *, seed: int, audio_files: list[str] | None = None) -> list[SessionScript]:
    """`count` scripts, equal for equal arguments; each says what it is about (`note`) and what should become of it (`expected`).

    About two thirds are plain successes. `audio_files` are names in the simulator's `audio_dir`; without them the recordings are
    made up. Raises ValueError below `MINIMUM`.
    """
    if count < MINIMUM:
        raise ValueError(f"a scenario that meets everything needs at least {MINIMUM} sessions, not {count}")
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    audio = _Audio(chance, audio_files or [])
    special = [*_waiting(), *_ends(), *_answers_once(), *_answers_always(), *_names(audio), *_urls(audio), *_media(audio)]
    # A longer night has more of what is common and succeeds in the end; what always fails stays rare.
    usual = [fields for fields in _usual(audio) for _ in range(max(0, count - MINIMUM) // 40)]
    rows = [*special, *usual][:count]
    rows += [_row("a plain success", "archived", recordings=[audio.entry()]) for _ in range(count - len(rows))]
    chance.shuffle(rows)
    ids = _session_ids(chance)
    return [SessionScript.from_json({"session_id": next(ids)} | fields) for fields in rows]


class _Audio:
    """Audio for recordings: the given files in turn, else made up, one to five seconds."""

    def __init__(self, chance: random.Random, files: list[str]) -> None:
        self._chance = chance
        self._files = files
        self._next = 0

    def entry(self, **fields: Any) -> Fields:
        """One recording."""
        self._next += 1
        if self._files:
            return {"audio": {"file": self._files[self._next % len(self._files)]}, **fields}
        seconds = self._chance.randrange(10, 50) / 10
        return {"audio": {"seconds": seconds, "seed": self._chance.getrandbits(48)}, **fields}

    def faulty(self, **fault: Any) -> list[Fields]:
        """The one recording of a session whose download goes wrong in this way."""
        return [self.entry(faults=[fault])]


def _waiting() -> Iterator[Fields]:
    """Calls that are not over, media that is not made yet."""
    for status in ("call_in_progress", "media_in_progress"):
        yield _row(f"{status} for two asks", "archived", {"status": status, "times": 2}, SUCCESS)
        yield _row(f"{status} for two seconds", "archived", {"status": status, "for_seconds": 2}, SUCCESS)
    call = {"status": "call_in_progress", "for_seconds": 1.5}
    media = {"status": "media_in_progress", "for_seconds": 1}
    yield _row("the call goes on, then its media is made", "archived", call, media, SUCCESS)
    yield _row("media in progress, then unavailable", "unavailable", media, {"status": "media_unavailable"})
    yield _row("the call goes on, then failed", "failed", call, {"status": "failed"})


def _ends() -> Iterator[Fields]:
    """Final answers, and answers that nobody documented."""
    for _ in range(4):
        yield _row("no recording on the server", "unavailable", {"status": "media_unavailable"})
    for _ in range(2):
        yield _row("failed, permanently", "failed", {"status": "failed"})
    deleted = _row("a call of long ago, whose recording the platform has deleted", "unavailable", {"status": "media_unavailable"})
    yield deleted | {"call": {"days_ago": 100, "seconds": 60}}
    yield _row("an unknown status for ever", "failed", {"status": "archived_to_glacier"})
    yield _row("an unknown status, then success", "archived", {"status": "warming_up", "times": 1}, SUCCESS)
    yield _row("success with an empty list", "failed", SUCCESS, recordings=[])


_MALFORMED = {
    "not JSON": "recording not found",
    "cut off": '{"status": "succ',
    "a list": '[{"status": "success"}]',
    "without status": '{"recording": []}',
    "without recording": '{"status": "success"}',
    "with a recording that is no list": '{"status": "success", "recording": "https://smartassist.kore.ai/x.wav"}',
    "with an entry without fileUrl": '{"status": "success", "recording": [{"fileName": "x.wav"}]}',
    "empty": "",
}


def _answers_once() -> Iterator[Fields]:
    """The API misbehaves for one ask."""
    for what, raw in _MALFORMED.items():
        yield _row(f"an answer {what}, once", "archived", {"raw": raw, "times": 1}, SUCCESS)
    for status in (500, 502, 503, 504):
        yield _row(f"HTTP {status}, once", "archived", {"http_status": status, "body": ERROR_PAGE}, SUCCESS)
    yield _row("the connection is reset, once", "archived", {"fault": "reset"}, SUCCESS)
    yield _row("the connection is reset, twice", "archived", {"fault": "reset", "times": 2}, SUCCESS)
    yield _row("429 with Retry-After, once", "archived", {"fault": "rate_limited", "retry_after": 1}, SUCCESS)
    yield _row("429 without Retry-After, once", "archived", {"fault": "rate_limited"}, SUCCESS)
    yield _row("a rate limit as HTTP 400, once", "archived", {"fault": "rate_limited", "http_status": 400}, SUCCESS)
    yield _row("401, once: a token signed afresh is accepted", "archived", {"fault": "unauthorized"}, SUCCESS)


def _answers_always() -> Iterator[Fields]:
    """The API misbehaves for ever."""
    yield _row("an answer not JSON, for ever", "failed", {"raw": _MALFORMED["not JSON"]})
    yield _row("HTTP 503, for ever", "failed", {"http_status": 503, "body": ERROR_PAGE})
    yield _row("success without the key recording, for ever", "failed", SUCCESS, recordings=None)


def _names(audio: _Audio) -> Iterator[Fields]:
    """Several files, and names that no file should have."""
    for several in (2, 3, 5):
        recordings = [audio.entry(file_name=f"part-{part}.wav") for part in range(1, several + 1)]
        yield _row(f"{several} files", "archived", recordings=recordings)
    hostile = {
        "a name that climbs": "../../etc/passwd",
        "an absolute name": "/etc/cron.d/x.wav",
        "a name with backslashes": "..\\..\\windows\\system32\\x.wav",
        "a name with NUL": "call\x00.wav",
        "a name with line breaks": "call\r\nSet-Cookie: a=b.wav",
        "a name of 400 characters": "n" * 396 + ".wav",
        "a name of 300 bytes in few letters": "é" * 148 + ".wav",
        "a reserved Windows name": "CON.wav",
        "a name that Windows forbids": "a:b?.wav",
        "a hidden name": ".part",
        "a name of dots": "..",
        "an empty name": "",
    }
    for note, name in hostile.items():
        yield _row(note, "archived", recordings=[audio.entry(file_name=name)])
    for note, names in {
        "the same name twice": ["call.wav", "call.wav"],
        "names that differ in case alone": ["Call.wav", "call.wav", "CALL.WAV"],
        "names that one clean-up makes equal": ["a:b.wav", "a?b.wav", "a/b.wav"],
    }.items():
        yield _row(note, "archived", recordings=[audio.entry(file_name=name) for name in names])
    many = [{"file_name": f"{at:04}.wav", "audio": {"seconds": 0.05, "seed": at}} for at in range(MANY_FILES)]
    yield _row(f"{MANY_FILES} files", "failed", recordings=many)


def _urls(audio: _Audio) -> Iterator[Fields]:
    """URLs that a recording must not be fetched from."""
    for note, url in {
        "fileUrl is a local file": "file:///etc/passwd",
        "fileUrl is the cloud's metadata service": "http://169.254.169.254/latest/meta-data/",
        "fileUrl is on a host outside the list": "https://recordings.example.net/x.wav",
        "fileUrl is no URL": "x.wav",
    }.items():
        yield _row(note, "failed", recordings=[audio.entry(url=url)])
    partial = [audio.entry(file_name="1.wav"), audio.entry(file_name="2.wav", url="file:///etc/passwd")]
    yield _row("one good file, one that must not be fetched", "failed", recordings=partial)


def _media(audio: _Audio) -> Iterator[Fields]:
    """Downloads that go wrong: once, so that the next try succeeds, and for ever."""
    page: Fields = {"kind": "page", "body": ERROR_PAGE}
    disguised: Fields = {"kind": "json", "body": ERROR_JSON, "content_type": "audio/wav"}
    once: dict[str, Fields] = {
        "cut off": {"kind": "truncate", "at": 1000},
        "cut off in the header": {"kind": "truncate", "at": 20},
        "reset": {"kind": "reset", "at": 1000},
        "reset before any answer": {"kind": "reset"},
        "HTTP 503": {"kind": "status", "http_status": 503, "body": ERROR_PAGE},
        "HTTP 403": {"kind": "status", "http_status": 403, "body": "<Error/>", "content_type": "application/xml"},
        "an error page": page,
        "JSON in disguise": disguised,
        "empty": {"kind": "empty"},
        "cut off without a length": {"kind": "no_length", "at": 1000},
        "an expired URL": {"kind": "expired"},
    }
    for note, fault in once.items():
        yield _row(f"download: {note}, once", "archived", recordings=audio.faulty(**fault))
    always: dict[str, Fields] = {
        "cut off": {"kind": "truncate", "at": 1000},
        "an error page": page,
        "an error page that says audio/wav": page | {"content_type": "audio/wav"},
        "JSON in disguise": disguised,
        "empty": {"kind": "empty"},
        "cut off without a length": {"kind": "no_length", "at": 1000},
        "HTTP 404": {"kind": "status", "http_status": 404},
    }
    for note, fault in always.items():
        yield _row(f"download: {note}, for ever", "failed", recordings=audio.faulty(**fault, times=None))
    metadata = {"kind": "redirect", "to": "http://169.254.169.254/latest/meta-data/", "times": None}
    yield _row("download: redirected to the metadata service", "failed", recordings=audio.faulty(**metadata))
    yield _row("download: redirected", "archived", recordings=audio.faulty(kind="redirect", to="same", times=None))
    yield _row("download: whole, without a length", "archived", recordings=audio.faulty(kind="no_length", times=None))
    yield _row("download: slow", "archived", recordings=[_slow()])
    for sizes in ("zero", "ffffffff"):
        yield _row(f"a WAV written as a stream ({sizes})", "archived", recordings=[audio.entry(riff_sizes=sizes)])
    yield _row("a WAV whose header is wrong", "failed", recordings=[audio.entry(riff_sizes="wrong")])
    yield _row("a FLAC that is called a WAV", "archived", recordings=[{"audio": {"seconds": 3, "seed": 5, "format": "flac"}}])
    paused = _row("the agent paused the recording", "archived", recordings=[{"audio": {"seconds": 1.5, "seed": 6}}])
    yield paused | {"call": {"days_ago": 1, "seconds": 60}}
    mixed = [audio.entry(file_name="1.wav"), audio.entry(file_name="2.wav", faults=[page | {"times": None}])]
    yield _row("one good file, one error page for ever", "failed", recordings=mixed)


def _usual(audio: _Audio) -> Iterator[Fields]:
    """What happens most nights."""
    yield _row("two files", "archived", recordings=[audio.entry(), audio.entry()])
    yield _row("media_in_progress for a second", "archived", {"status": "media_in_progress", "for_seconds": 1}, SUCCESS)
    yield _row("no recording on the server", "unavailable", {"status": "media_unavailable"})
    yield _row("HTTP 502, once", "archived", {"http_status": 502, "body": ERROR_PAGE, "times": 1}, SUCCESS)
    yield _row("download: reset, once", "archived", recordings=audio.faulty(kind="reset", at=4000))


def _slow() -> Fields:
    """Bounded to about a second, whatever the audio files are."""
    return {"audio": {"seconds": 1.5}, "faults": [{"kind": "slow", "bytes_per_second": 24_000}]}


_DEFAULT: Any = object()


def _row(note: str, expected: str, *answers: Fields, recordings: Any = _DEFAULT) -> Fields:
    fields: Fields = {"note": note, "expected": expected}
    if answers:
        fields["answers"] = list(answers)
    if recordings is not _DEFAULT:
        fields["recordings"] = recordings
    return json.loads(json.dumps(fields))  # type: ignore[no-any-return]


def _session_ids(chance: random.Random) -> Iterator[str]:
    """Ids as the vendor's: 24 hexadecimal digits, of which the first 8 are a time, in order. All different."""
    at = 0x65E7133A
    while True:
        at += 1 + chance.randrange(30)
        yield f"{at:08x}{chance.getrandbits(64):016x}"
