"""Recordings inside an answer: whatever pieces it comes in, and however JSON spells it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.errors import ApiDefect
from archiver.kore.inline import Closed, Opened, Scanner, inline_recordings

LIMIT = 1000


def cut(answer: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The answer in pieces of these sizes, over and over."""
    at, turn = 0, 0
    while at < len(answer):
        yield answer[at : at + sizes[turn % len(sizes)]]
        at += sizes[turn % len(sizes)]
        turn += 1


def scan(answer: bytes, sizes: list[int], limit: int = LIMIT) -> tuple[list[tuple[str, bytes]], Scanner]:
    """What it tells of an answer: type and bytes of each recording."""
    scanner, found, opened = Scanner(limit), list[tuple[str, bytes]](), False
    for piece in cut(answer, sizes):
        for event in scanner.feed(piece):
            match event:
                case Opened():
                    assert event.ordinal == len(found) + 1
                    assert not opened
                    found.append((event.media_type, b""))
                    opened = True
                case Closed():
                    opened = False
                case bytes():
                    assert opened
                    assert event
                    found[-1] = (found[-1][0], found[-1][1] + event)
        assert scanner.inside == opened
    scanner.finish()
    assert not opened
    return found, scanner


def defect(answer: bytes, limit: int = LIMIT) -> ApiDefect:
    with pytest.raises(ApiDefect) as whole:
        scan(answer, [len(answer)], limit)
    with pytest.raises(ApiDefect) as bytewise:
        scan(answer, [1], limit)
    assert whole.value.message == bytewise.value.message
    return whole.value


@st.composite
def spelt(draw: st.DrawFn, text: str) -> str:
    """A string as some writer of JSON might spell it: each character as it is, or escaped."""
    escapes = draw(st.sampled_from([set[str](), {"/"}, set("/+="), set(text)]))
    spelling = draw(st.sampled_from(["short", "long", "LONG"]))
    made = []
    for character in text:
        if character in '"\\' or ord(character) < 0x20:
            made.append(json.dumps(character)[1:-1])
        elif character not in escapes or ord(character) > 0xFFFF:
            made.append(character)
        elif spelling == "short" and character == "/":
            made.append("\\/")
        else:
            made.append(f"\\u{ord(character):04x}" if spelling == "long" else f"\\u{ord(character):04X}")
    return '"' + "".join(made) + '"'


@st.composite
def data_url(draw: st.DrawFn, body: bytes) -> str:
    """One with white space in its base64, as some writers wrap it."""
    text = base64.b64encode(body).decode()
    width = draw(st.integers(1, 80))
    space = draw(st.sampled_from(["", "\n", "\r\n", " "]))
    wrapped = space.join(text[at : at + width] for at in range(0, len(text), width))
    return draw(spelt(f"data:{draw(st.sampled_from(['audio/wav', 'audio/wav;rate=8000']))};base64,{wrapped}"))


others = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("data:audio/wav;base64,UklG"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("recording"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.data(),
    st.lists(st.binary(max_size=300), max_size=4),
    st.dictionaries(st.text().filter(lambda key: key != "recording"), others, max_size=3),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
)
def test_every_recording_comes_out_whole_and_the_rest_stays(
    data: st.DataObject, bodies: list[bytes], rest: dict[str, Any], sizes: list[int]
) -> None:
    urls = [data.draw(data_url(body)) for body in bodies]
    fields = [f"{json.dumps(key, ensure_ascii=data.draw(st.booleans()))}: {json.dumps(value)}" for key, value in rest.items()]
    fields.insert(data.draw(st.integers(0, len(fields))), '"recording" : [' + " , ".join(urls) + "]")
    answer = (" {" + ", ".join(fields) + "}\n").encode("utf-8", "surrogatepass")
    found, scanner = scan(answer, sizes)
    assert [body for _, body in found] == bodies
    assert {media_type for media_type, _ in found} <= {"audio/wav"}
    skeleton = json.loads(scanner.skeleton)
    assert skeleton == rest | {"recording": scanner.placeholders}
    for placeholder, body in zip(scanner.placeholders, bodies, strict=True):
        assert f" {len(body)} bytes" in placeholder


@given(st.binary(), st.lists(st.integers(1, 10), min_size=1))
@example(b'{"recording": ["data:audio/wav;base64,UklGRg==\\', [1])
@example(b'{"recording": ["data:,', [1])
@example(b']]]}}}{"recording":["', [3])
@example(b'{"recording": [' + b'"\\u', [2])
def test_nonsense_is_a_defect_or_kept_as_it_came(answer: bytes, sizes: list[int]) -> None:
    for said in (answer, b'{"recording": ["' + answer, b'{"recording": ["data:a/b;base64,' + answer):
        with suppress(ApiDefect):
            found, scanner = scan(said, sizes)
            assert found or bytes(scanner.skeleton) == said


URL = b"data:audio/wav;base64,"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (URL + b"UklG!Rg=", "its base64 is invalid"),
        (URL + b"UklG-_Rg", "its base64 is invalid"),
        (URL + "UklG\u00fc\u00fc".encode(), "its base64 is invalid"),
        (URL + b"=AAA", "its base64 is invalid"),
        (URL + b"UklGRg", "ends in the middle of a byte"),
        (URL + b"U", "ends in the middle of a byte"),
        (URL + b"UklGR\\x0", "an escape in it is not JSON"),
        (URL + b"UklGR\\u00g0AAA", "an escape in it is not JSON"),
        (b"data:audio/wav,UklGRg==", "not of base64"),
        (b"data:audio/wav;base32,KJEUMRQ=", "not of base64"),
        (b"data:,x", "not of base64"),
    ],
)
def test_what_cannot_be_decoded_is_a_defect_that_says_why(content: bytes, says: str) -> None:
    error = defect(b'{"recording": ["' + URL + b'UklG", "' + content + b'"]}')
    assert says in error.message
    assert error.facts["ordinal"] == 2
    assert error.reason == "api_answer_invalid"


@pytest.mark.parametrize(
    "answer", [b'{"recording": ["' + URL, b'{"recording": ["' + URL + b"UklGRg==", b'{"recording": ["' + URL + b"U\\"]
)
def test_a_string_that_never_ends_is_a_defect(answer: bytes) -> None:
    assert "ends in the middle of it" in defect(answer).message


def test_what_follows_the_end_of_base64_is_a_defect_wherever_the_pieces_end() -> None:
    for size in range(1, 60):
        with pytest.raises(ApiDefect, match=r"recording 1 cannot be read"):
            scan(b'{"recording": ["' + URL + b'UklGRg==UklG"]}', [size])


@pytest.mark.parametrize("more", [b"A" * 1400, b" " * 9000, b"\\u0020" * 9000], ids=["audio", "space", "escaped space"])
def test_a_recording_above_the_limit_ends_there(more: bytes) -> None:
    fits, _ = scan(b'{"recording": ["' + URL + base64.b64encode(bytes(LIMIT)) + b'"]}', [100])
    assert len(fits[0][1]) == LIMIT
    scanner, came = Scanner(LIMIT), 0

    def take() -> None:
        nonlocal came
        for piece in cut(b'{"recording": ["' + URL + more, [64]):
            came += sum(len(event) for event in scanner.feed(piece) if isinstance(event, bytes))

    with pytest.raises(ApiDefect) as caught:
        take()
    assert caught.value.reason == "recording_too_large"
    assert caught.value.facts["expected"] == LIMIT >= came
    assert "transfer.max_inline" in caught.value.message
    assert "transfer.max_inline" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        ("data:audio/wav;base64", "audio/wav"),
        ("data:AUDIO/X-Wav ; codecs=1;BASE64", "audio/x-wav"),
        ("data:;base64", ""),
        ("data:a b/c<script>;base64", ""),
        ("\\u0064\\u0061ta:audio\\/mpeg;base64", "audio/mpeg"),
        ("data:" + "x" * 900 + "/y;base64", ""),
    ],
)
def test_the_type_is_what_the_url_says_if_that_is_one(head: str, media_type: str) -> None:
    for size in (1, 7, 5000):
        found, scanner = scan(f'{{"recording": ["{head}\\u002cUklGRg=="]}}'.encode(), [size])
        assert found == [(media_type, b"RIFF")]
        assert len(scanner.skeleton) < 100


@pytest.mark.parametrize(
    "answer",
    [
        {"recording": "data:audio/wav;base64,UklGRg=="},
        {"recording": [["data:audio/wav;base64,UklGRg=="]]},
        {"recording": [{"url": "data:audio/wav;base64,UklGRg=="}]},
        {"recordings": ["data:audio/wav;base64,UklGRg=="]},
        {"other": ["data:audio/wav;base64,UklGRg=="], "recording": []},
        {"inner": {"recording": ["data:audio/wav;base64,UklGRg=="]}},
        {"recording": ["x" * 3000, "data:" + "x" * 3000 + ";base64,UklG"]},
        ["data:audio/wav;base64,UklGRg=="],
        "data:audio/wav;base64,UklGRg==",
    ],
)
def test_only_the_list_that_is_documented_has_recordings(answer: Any) -> None:
    said = json.dumps(answer).encode()
    for sizes in ([1], [5], [len(said)]):
        found, scanner = scan(said, sizes)
        assert found == []
        assert bytes(scanner.skeleton) == said


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_what_is_left_unread_is_read_past() -> None:
    bodies = [bytes([number]) * 600 for number in range(4)]
    answer = json.dumps({"recording": [f"data:audio/wav;base64,{base64.b64encode(body).decode()}" for body in bodies]}).encode()
    taken: dict[int, bytes] = {}

    scanner = Scanner(LIMIT)
    async for recording in inline_recordings(pieces(*cut(answer, [100])), scanner, longest=LIMIT):
        match recording.ordinal:
            case 2:
                taken[2] = await anext(aiter(recording))
            case 3:
                taken[3] = b"".join([piece async for piece in recording])
                taken[3] += b"".join([piece async for piece in recording])
    assert json.loads(scanner.skeleton) == {"recording": scanner.placeholders}
    assert len(scanner.placeholders) == 4
    assert bodies[1].startswith(taken[2])
    assert taken[3] == bodies[2]


async def test_no_more_is_read_than_an_answer_may_have_beside_its_recordings() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 10
            yield b'{"a": "bcd'

    scanner = Scanner(LIMIT)
    assert [recording async for recording in inline_recordings(endless(), scanner, longest=995)] == []
    assert len(scanner.skeleton) == read == 1000


async def test_a_recording_is_whole_however_much_else_came_before_it() -> None:
    """The limit of the rest is no end of a recording."""
    answer = b'{"a": "' + b"x" * 500 + b'", "recording": ["' + URL

    came = pieces(answer, b"UklG", b'Rg=="]}', b"never read")
    taken = [
        b"".join([piece async for piece in recording]) async for recording in inline_recordings(came, Scanner(LIMIT), longest=100)
    ]
    assert taken == [b"RIFF"]
