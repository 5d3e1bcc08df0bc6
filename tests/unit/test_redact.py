"""No secret passes, however it is spelled."""

from __future__ import annotations

import json
import time
from urllib.parse import quote, quote_plus

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.errors import ApiDefect
from archiver.redact import MASK, redact, redact_value, remember_secret

SIGNATURE = "InpqMWpn+a%2Bb/c=%7E*Ig$$"
URL = f"https://media.kore.ai/api/getMediaStream/f-1.wav?e=1709706278&n=6398115875&s={SIGNATURE}"


def test_a_signed_url_keeps_its_place_and_loses_its_query() -> None:
    assert redact(f"GET {URL} failed") == f"GET https://media.kore.ai/api/getMediaStream/f-1.wav?{MASK} failed"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"fileUrl": URL}),
        json.dumps({"fileUrl": URL}).replace("/", "\\/"),
        json.dumps(json.dumps({"fileUrl": URL}).replace("/", "\\/")),
        json.dumps({"fileUrl": URL}).replace("&", "\\u0026"),
        json.dumps({"fileUrl": URL}).replace("&", "\\u0026").replace("=", "\\u003d"),
        json.dumps({"fileUrl": URL}).replace("/", "\\/").replace("&", "\\u0026").replace("=", "\\u003d"),
        f"<a href='{URL}'>",
        f"Location: {URL.removeprefix('https://media.kore.ai')}",
        f"query e=1709706278&s={SIGNATURE}",
        f"s={SIGNATURE}",
        f"x\\u0026s\\u003d{SIGNATURE}",
        f"HTTPS://MEDIA?S={SIGNATURE}",
    ],
)
def test_a_signature_is_cut_wherever_it_stands(text: str) -> None:
    redacted = redact(text)
    assert MASK in redacted
    for part in ("InpqMWpn", "Ig$$", "%2Bb"):
        assert part not in redacted


@pytest.mark.parametrize(
    "name", ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "sig", "signature"]
)
def test_the_signatures_of_the_clouds_are_cut_without_their_url(name: str) -> None:
    assert redact(f"a=b&{name}=abcdef0123&c=d") == f"a=b&{name}={MASK}&c=d"


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
def test_a_token_is_cut(algorithm: str) -> None:
    token = jwt.encode({"appId": "cs-1"}, "k" * 64, algorithm=algorithm)
    for text in (token, f"auth: {token}", f'{{"auth":"{token}"}}', f"auth={token}&x", f"x-{token}", f"a_{token}"):
        assert token.split(".")[1] not in redact(text)
        assert token.split(".")[2] not in redact(text)


def test_an_encrypted_token_of_five_parts_is_cut_whole() -> None:
    assert redact("eyJhbGciOiJkaXIifQ..iv-iv-iv.ciphertext.tag-tag") == MASK


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://archiver:{}@db.example:5432/archiver",
        "postgres://archiver:{}@db/archiver?sslmode=require",
        "https://user:{}@host/path",
        "postgresql://:{}@db/x",
    ],
)
@pytest.mark.parametrize("password", ["abc", "S3cret-word", "p%40ss%2Fw", "p@ss:w0rd", "[pass]"])
def test_a_password_in_a_url_is_cut(dsn: str, password: str) -> None:
    redacted = redact(f"connect {dsn.format(password)} now")
    assert password not in redacted
    assert f"{MASK}@" in redacted
    assert redacted.endswith(" now")


@pytest.mark.parametrize("password", ["p/ss-word", "p@ss/w:rd", "p#ss?word", "p'ss\"word"])
def test_a_database_password_that_nobody_encoded_is_cut_too(password: str) -> None:
    assert redact(f"postgresql://u:{password}@h/d").startswith(f"postgresql://u:{MASK}@h/d")


NASTY = 'Kf7+/"ö\\ $&=\n%x'


@pytest.mark.parametrize(
    "spelled",
    [
        NASTY,
        quote(NASTY),
        quote(NASTY, safe=""),
        quote_plus(NASTY),
        quote(NASTY, safe="").lower(),
        json.dumps(NASTY),
        json.dumps(NASTY).replace("/", "\\/"),
    ],
)
def test_a_known_secret_is_masked_in_every_spelling(spelled: str) -> None:
    remember_secret(NASTY)
    remember_secret(NASTY.lower())
    assert redact(f"<{spelled}>").strip('<>"') == MASK


def test_a_secret_that_begins_like_another_leaves_no_end_behind() -> None:
    for secret in ("shared-beginning", "shared-beginning-and-more", "and-more"):
        remember_secret(secret)
    assert redact("<shared-beginning-and-more>") == f"<{MASK}>"


def test_what_is_too_short_to_be_a_secret_masks_nothing() -> None:
    remember_secret("abc")
    remember_secret("")
    assert redact("abcabc") == "abcabc"


def test_a_secret_that_is_part_of_the_mask_does_no_harm() -> None:
    remember_secret("redacted")
    assert redact("redacted") == "redacted"


def test_values_are_redacted_at_any_depth_and_in_an_errors_facts() -> None:
    value = {"a": [URL, {"b": (URL, 1, None)}]}
    assert SIGNATURE not in repr(redact_value(value))
    error = ApiDefect(f"about {URL}", hint=URL, answer=value)
    assert SIGNATURE not in repr((error, str(error), error.hint, error.facts))


PARTS = [
    "a",
    " ",
    "://",
    "https://",
    "postgres://",
    ":",
    "@",
    "?",
    "&s=",
    "abcd",
    "eyJ",
    "eyJabcd",
    ".",
    "/",
    "\\/",
    '"',
    "[",
    "]",
]
PARTS += [MASK, "\\u0026", "=", "-", "_", "\n", "s=", "sig=", "é", "\ud800", "shared-beginning"]
PIECES = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(PIECES | st.text())
@example("a://b:c@d?e")
@example("eyJabcd.a://b:c@?eyJabcd.")
@example("postgres://a:b@c?d@e")
def test_redacting_twice_is_redacting_once(text: str) -> None:
    remember_secret("shared-beginning")
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "eyJ",
        "-eyJ",
        "eyJaaaa.",
        "a://",
        "a:b://",
        "postgres://",
        "postgres://a:",
        "a:\\/\\/",
        "\\",
        "&s=",
        "s=\\u002",
        "a://b:@",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    """Redaction happens on the event loop. Quadratic patterns took two seconds for this much text; half a second is generous."""
    text = piece * (16_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 0.5
