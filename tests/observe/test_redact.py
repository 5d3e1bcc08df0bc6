"""No secret passes, however it is spelled."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from base64 import b64encode
from typing import Any
from urllib.parse import quote, quote_plus

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.errors import ApiDefect
from archiver.observe import redact as module
from archiver.observe.cells import cell, cells
from archiver.observe.redact import (
    MASK,
    MAX_TEXT,
    forget_secret,
    hold_no_secret,
    redact,
    redact_each,
    redact_value,
    remember_secret,
)

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
        f"x-amz-security-token: {SIGNATURE}",
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
    redacted = redact(f"postgresql://u:{password}@h/d")
    assert redacted in (f"postgresql://u:{MASK}@h/d", f"postgresql://u:{MASK}")


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


def test_a_text_that_was_harmless_is_none_once_it_is_known_to_be_a_secret() -> None:
    text = "now-and-later"
    assert redact(text) == redact(text) == text
    remember_secret(text)
    assert redact(text) == MASK


def test_short_texts_without_end_are_not_kept_without_end() -> None:
    for number in range(3 * module._CLEAN_TEXTS):
        redact(f"session-{number}")
    assert len(module._clean) <= module._CLEAN_TEXTS


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
PARTS += [MASK, "\\u0026", "=", "-", "_", "\n", "s=", "sig=", "é", "\ud800", "shared-beginning", "password=", "token", "'", "#"]
PARTS += ["&amp;", "%3D", "%22", "Bearer ", "\\", 'secret":', ",", "}"]
PIECES = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(PIECES | st.text())
@example("a://b:c@d?e")
@example("eyJabcd.a://b:c@?eyJabcd.")
@example("postgres://a:b@c?d@e")
def test_redacting_twice_is_redacting_once(text: str) -> None:
    remember_secret("shared-beginning")
    once = redact(text)
    assert redact(once) == once


@given(st.lists(PIECES | st.text(), max_size=6))
@example(["access_key", "=abcdef"])
@example(["eyJ", "eyJabcd.abcd"])
@example(["postgres://a", "postgres://a:b@c"])
@example(["password='", "it's", "token=abcdef"])
def test_what_is_looked_at_together_is_what_is_looked_at_alone(texts: list[str]) -> None:
    remember_secret("shared-beginning")
    assert not hold_no_secret(texts) or [redact(text) for text in texts] == texts
    assert cells([texts, texts[::-1]]) == [list(map(cell, texts)), list(map(cell, texts[::-1]))]


@given(
    st.recursive(
        PIECES | st.none() | st.integers(), lambda of: st.lists(of, max_size=3) | st.dictionaries(PIECES, of, max_size=3)
    )
)
@example({"secret": "abc"})
@example({"a": {"token": ["x", {"b": 1}]}})
def test_values_that_are_looked_at_together_are_redacted_alike(value: Any) -> None:
    assert redact_each([value, {"a": value}]) == [redact_value(value), redact_value({"a": value})]


WORD = "Hunter2-Zq7/x+Y9"
ENCODED = quote(WORD, safe="")


@pytest.mark.parametrize(
    "text",
    [
        f"https://media.example/f.wav#access_token={WORD}",
        f"https://media.example/f.wav#{WORD}",
        quote(f"https://media.example/f.wav?e=1&s={WORD}", safe=""),
        quote(quote(f"https://media.example/f.wav?e=1&s={WORD}", safe=""), safe=""),
        f"/login?next=https%3a%2f%2fmedia.example%2ff.wav%3fs%3d{ENCODED}",
        f"?e=1&amp;s={WORD}",
        f"?e=1&#38;sig={WORD}",
        f"?e=1&#x26;sig&#x3D;{WORD}",
        f"?e=1&amp;amp;sig&equals;{WORD}",
        f"x\\u0026s\\u003D{WORD}",
        f"x\\\\u0026sig\\\\u003d{WORD}",
        f"https:\\u002F\\u002Fmedia.example\\u002Ff.wav\\u003Fe\\u003D1\\u0026n={WORD}",
        "https&colon;//u&#58;Hunter2&commat;host/x",
        f"postgresql:\\u002f\\u002fu:{WORD}\\u0040db/x",
        f"Authorization: Bearer {WORD}",
        f"authorization: {WORD}",
        f"bearer {WORD}",
        f"Bearer%20{ENCODED}",
        "Bearer abcdefghijklmnopqrst",
        f"Authorization: Basic {b64encode(WORD.encode()).decode()}",
        f"Basic {b64encode(WORD.encode()).decode()} refused",
        f"SharedKey account:{WORD}",
        f"x-api-key: {WORD}",
        f"Cookie: session={WORD}; other={WORD}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={WORD}==;EndpointSuffix=core.windows.net",
        f"Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey={WORD}",
        f"BlobEndpoint=https://x;SharedAccessSignature=sv=2024&sig={ENCODED}",
        f"sv=2024&sig={ENCODED}&se=1",
        f"host=db user=u password={WORD} dbname=d",
        f"host=db password = '{WORD} and \\' more {WORD}' dbname=d",
        f'client_secret = "{WORD} \\" {WORD}"',
        f"pwd={WORD}",
        f"PGPASSWORD={WORD}",
        f"AWS_SECRET_ACCESS_KEY={WORD}",
        f"aws_session_token={WORD}",
        f"grant=x&client_secret={WORD}",
        f"api-key={WORD}",
        json.dumps({"password": f'{WORD} " {WORD}', "user": "u"}),
        json.dumps(json.dumps({"password": f'{WORD} " {WORD}', "user": "u"})),
        json.dumps({"Authorization": f"Bearer {WORD}"}),
        json.dumps({"sig": WORD}),
        str({"secretKey": WORD, "apiKey": WORD}),
        '{"client_secret": 7777777777}',
        json.dumps({"password": [WORD, f"a {WORD}"], "user": "u"}),
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{WORD}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_carries_a_secret_is_cut_however_it_is_escaped(text: str) -> None:
    redacted = redact(f"told: {text}")
    assert MASK in redacted
    for secret in (WORD, ENCODED, ENCODED.lower(), "Hunter2", "7777", "abcdefgh", b64encode(WORD.encode()).decode()):
        assert secret not in redacted
    assert redacted.startswith("told: ")
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "session 8c5c1f63-9f6e-4a44 archived: 3 files, store_key bot=support/date=2026-01-01/s-1/recording/f-1.wav",
        "bots.support.client_secret_file: /run/secrets/kore: No such file or directory",
        "storage.s3.secret_access_key is missing; name it, or empty storage.s3.access_key_id",
        "the platform refuses the credentials of support (HTTP 401)",
        "a bearer of basic needs, a token, the signature: nothing",
        "Invalid JWT token",
        '{"status":"success","recording":[]}',
        '{"token": null, "password": false, "secret": {"found": 3}, "cookies": []}',
        "100% of 5 & 6; a\\b; C:\\temp",
        "connect to postgresql://archiver@localhost/archiver",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_known_secret_is_masked_however_its_letters_are_escaped() -> None:
    remember_secret("Known-S3cret/%41")
    for spelled in (
        "".join(f"%{ord(c):02x}" for c in "Known-S3cret/%41"),
        "".join(f"\\u{ord(c):04X}" for c in "Known-S3cret/%41"),
        "".join(f"&#{ord(c)};" for c in "Known-S3cret/%41"),
        "Known-S3cret&sol;%2541",
        "Known-S3cret\\/%41",
        "Known-S3cret\\\\\\/%41",
    ):
        assert redact(f"<{spelled}>") == f"<{MASK}>"


@pytest.mark.parametrize("before", range(0, 60, 7))
def test_a_long_text_is_cut_but_no_secret_in_two(before: int) -> None:
    """Whatever its place at the bound: its first part alone would be known to nobody."""
    secret = "Zebra" + "-correct-horse-battery-staple" * 4
    remember_secret(secret)
    for shape in (secret, quote(secret).replace("-", "%2D"), f"postgresql://u:{secret[::-1]}@h/d", f"/?s={secret[::-1]}"):
        filling = "x " * 50_000
        for place in (MAX_TEXT - before, MAX_TEXT - len(shape) // 2, MAX_TEXT - len(shape) + before):
            shown = redact(filling[:place] + shape + filling)
            assert len(shown) <= MAX_TEXT
            assert "Zeb" not in shown
            assert "elpats" not in shown
            assert len(shown) > MAX_TEXT // 2


def test_a_long_text_is_cut_where_no_secret_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", [])
    assert len(redact("x" * 2 * MAX_TEXT)) <= MAX_TEXT
    assert redact("x" * MAX_TEXT) == "x" * MAX_TEXT


def test_of_a_known_secret_that_is_repeated_nothing_stays() -> None:
    remember_secret("aXbaXbaXb")
    assert redact("<" + "aXb" * 5 + ">") == f"<{MASK}>"


def test_beside_the_name_of_a_secret_every_text_is_one() -> None:
    value = {
        "password": "any",
        "api_key": "thing",
        "token": None,
        "secret": ["", "one", 2],
        "tokens": "2",
        "store_key": "a/b",
        f"?s={SIGNATURE}": 1,
    }
    assert redact_value(value) == {
        "password": MASK,
        "api_key": MASK,
        "token": None,
        "secret": ["", MASK, 2],
        "tokens": "2",
        "store_key": "a/b",
        f"?s={MASK}": 1,
    }


@pytest.mark.parametrize(
    "planted",
    [f"password='{WORD}", f"x token = '{WORD}", f"-----BEGIN PRIVATE KEY-----{WORD}", f"secret={WORD}", f"Cookie: {WORD}"],
)
def test_one_value_hides_nothing_of_what_follows_it(planted: str) -> None:
    """A file's name, say, that opens a quotation and never ends it: what else an answer holds is evidence."""
    answer = {
        "status": "failed",
        "recording": [{"fileName": planted, "sha256": "9f86d081"}],
        "sessionId": "65e7133a",
    }
    shown = json.loads(redact(json.dumps(answer)))
    assert WORD not in str(shown)
    assert (shown["recording"][0]["sha256"], shown["sessionId"]) == ("9f86d081", "65e7133a")


def test_a_number_beside_the_name_of_a_secret_is_masked_once() -> None:
    assert redact('{"token": 17}') == '{"token": [redacted]}'


def test_what_is_nested_without_an_end_is_cut() -> None:
    nested: list[object] = []
    for number in range(10_000):
        nested = [nested] if number % 2 else [{"token": [nested]}]
    shown = json.dumps(redact_value({"metadata": nested, "user": f"?s={SIGNATURE}"}))
    assert "(nested too deep)" in shown
    assert f"?s={MASK}" in shown


ANSWER = json.dumps({"status": "success", "recording": [{"fileName": "f-1.wav", "fileUrl": f"{URL}&Key-Pair-Id=K1"}] * 3})


def test_an_answer_of_the_platform_costs_little_more_than_one_without_words_that_could_name_a_secret() -> None:
    """Each is redacted as it comes. One expression tried for every character of it cost five times as much as all others."""

    def cost(text: str) -> float:
        began = time.process_time()
        for _ in range(200):
            redact(text)
        return time.process_time() - began

    other = ANSWER.replace("Key", "Ket")
    assert min(cost(ANSWER) for _ in range(5)) < 2 * min(cost(other) for _ in range(5))


@pytest.mark.parametrize(
    "piece",
    [
        "a", "eyJ", "-eyJ", "eyJaaaa.", "a://", "a:b://", "postgres://", "postgres://a:", "a:\\/\\/", "\\", "&s=", "s=\\u002",
        "a://b:@", "%41", "%25", "&amp;", "\\u0026", "password=", 'password="', 'password="\\', "bearer ", "cookie:", "token ",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    """Redaction happens on the event loop. These took seconds to hours; half a second is generous."""
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 0.5


def test_what_is_kept_of_keys_is_short() -> None:
    key = "k" * 100_000
    held = sys.getrefcount(key)
    assert redact_value({key: "text"}) == redact_each([{key: "text"}])[0]
    gc.collect()
    assert sys.getrefcount(key) == held


def test_secrets_that_two_threads_learn_of_at_once_are_all_known() -> None:
    names = [[f"secret-{thread}-{number:03}" for number in range(40)] for thread in ("one", "two")]
    together = threading.Barrier(2)

    def learn(mine: list[str]) -> None:
        together.wait()
        for each in mine:
            remember_secret(each)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=learn, args=(mine,)) for mine in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not [each for mine in names for each in mine if each not in module._known]
    finally:
        sys.setswitchinterval(interval)
        for each in (*names[0], *names[1]):
            forget_secret(each)


def test_the_secret_of_a_receiver_is_cut_wherever_it_stands() -> None:
    assert redact("notify.secret_file: /etc/whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD: there is none") == (
        "notify.secret_file: /etc/whsec_[redacted]: there is none"
    )
