"""Keeps secrets, and characters that steer whoever reads, out of everything a person or a log can read.

Three layers, because each alone has holes: values known to be secret are replaced wherever they appear, shapes known to carry
secrets (signed query strings, tokens, passwords in URLs and beside their names) are cut by pattern, and settings keep secrets in
`SecretStr`, whose `repr` is masked. Both are looked for in the text as it is, and in what it means once the escapes of JSON, URLs
and HTML are undone.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "[redacted]"

MAX_TEXT = 32_768
"""Characters of one text that are shown. Redaction happens on the event loop: its time is bounded by this."""

MAX_DEPTH = 100
"""Levels of nesting that JSON from outside may have; Postgres and Python have their limits not far beyond."""

TOO_DEEP = "(nested too deep)"
"""Stands for what lies deeper."""

_CUT = " ... (cut)"
_DEPTH = 6
"""Escapes may be wrapped in escapes: so many times they are undone."""

_PASSES = 4

# Each pattern takes time in proportion to the text, however hostile: it is bounded; or what it looks through in vain holds
# nothing that it could begin at again; or it takes that along as an alternative without a secret. A test times them all.
_NAMES = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|(?<!-security-)token|(?<!-)credentials?|authorization|cookie"
    r"|(?:account|access|api|auth|private|secret|shared|signing|encryption)[_-]?(?:access[_-]?)?key"
    r"|shared[_-]?access[_-]?signature)"
)
_QUOTED = r"\"(?P<double>[^\"\\]*(?:\\.[^\"\\]*)*)|'(?P<single>[^'\\]*(?:\\.[^'\\]*)*)"
_BESIDE_A_NAME = re.compile(
    rf"{_NAMES}[\"']?\s{{0,9}}=\s{{0,9}}(?:{_QUOTED}|(?P<plain>[^\s\"'<>]+))"
    rf"|(?:{_NAMES}|sig|signature)[\"']\s{{0,9}}:\s{{0,9}}(?:{_QUOTED.replace('P<', 'P<json_')}"
    r"|\[(?!redacted\])(?P<list>[^\[\]]*)"
    r"|(?!(?:null|true|false)\b)(?P<number>[^\s\"'<>,\[\]{}]+))"
    r"|(?:authorization|x-api-key|x-auth-token|x-amz-security-token|cookie)\s{0,9}:\s{0,9}(?P<header>[^\s\"'][^\r\n\"']*)",
    re.IGNORECASE | re.DOTALL,
)
# Each is looked for only where one of its words stands, in small letters: nearly all texts are short and hold none.
_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    # A password that nobody encoded may hold anything: it ends at the last @.
    (("postgres",), re.compile(r"postgres(?:ql)?://(?:[^\s:@/]*:(?P<secret>\S*)@|\S*)", re.IGNORECASE)),
    (("://",), re.compile(r"://[^\s\"'<>/?#:@]*:(?P<secret>[^\s\"'<>/]*)@")),
    (("://",), re.compile(r"://[^\s\"'<>?#]*(?:[?#](?P<secret>[^\s\"'<>]+))?")),
    (
        ("eyj",),
        re.compile(r"(?<![A-Za-z0-9])(?P<secret>eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){1,4})|eyJ[A-Za-z0-9_-]*"),
    ),
    (
        ("s=", "sig=", "signature=", "credential=", "-token="),
        re.compile(
            r"(?<![a-z0-9_-])(?:s|sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token))="
            r"(?P<secret>[^\s&\"'<>]{4,})",
            re.IGNORECASE,
        ),
    ),
    # Long, or with more than small letters: "basic needs" are no secret.
    (
        ("bearer", "basic", "negotiate", "sharedkey"),
        re.compile(
            r"(?<![A-Za-z0-9])(?i:bearer|basic|negotiate|sharedkey|sharedkeylite)[ \t]{1,9}"
            r"(?P<secret>(?:[A-Za-z0-9._~+/:-]{16}|(?=[a-z._~:-]{0,16}[A-Z0-9+/=])[A-Za-z0-9._~+/:-]{6})[A-Za-z0-9._~+/:=-]*)"
        ),
    ),
    (("whsec_",), re.compile(r"(?<![A-Za-z0-9])whsec_(?P<secret>[A-Za-z0-9+/=_-]{6,})")),
    (("-----",), re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?P<secret>(?:(?!-----)[^\"'<>{}])*)")),
    (
        ("passw", "passphrase", "pwd", "secret", "token", "credential", "auth", "cookie", "key", 'sig"', "sig'", "signature"),
        _BESIDE_A_NAME,
    ),
)
_ENDS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials", "authorization", "cookie", "key",
    "access_signature", "access-signature", "accesssignature",
)  # fmt: skip
_ENDS_BEFORE = {"=": _ENDS, ":": (*_ENDS, "sig", "signature")}
"""What the names above end with, in small letters, by the sign that follows them."""

_QUOTES = {"double", "single", "json_double", "json_single"}
_PLAIN = re.compile(r"[^\s\"'<>]*")
"""What is hidden of a text in quotation marks that no other one ends, lest whoever writes one hides all that follows."""

_SIGN = re.compile("[=:]")
_REACH = 32
"""Characters before a sign: the longest of those ends, a quotation mark, and space."""

_SECRET_NAME = re.compile(rf"{_NAMES}\Z", re.IGNORECASE)

_ESCAPE = re.compile(
    r"\\(?:u(?P<u>[0-9a-f]{4})|x(?P<x>[0-9a-f]{2})|(?P<itself>[\\\"'/]))"
    r"|%(?:25)*(?P<percent>[0-9a-f]{2})"
    r"|&(?:amp;)*(?:#(?P<decimal>[0-9]{1,7})|#x(?P<hex>[0-9a-f]{1,6})|(?P<name>[a-z]{2,8}));",
    re.IGNORECASE,
)
_HTML = {
    "amp": "&", "quot": '"', "apos": "'", "lt": "<", "gt": ">", "equals": "=", "colon": ":", "sol": "/", "quest": "?", "num": "#",
    "commat": "@", "percnt": "%", "bsol": "\\", "lowbar": "_", "plus": "+", "semi": ";", "period": ".",
}  # fmt: skip

_known: list[str] = []
_knowing = threading.Lock()
"""Held by whoever changes that: a configuration is read again in a thread, while tokens are signed and replaced."""

_CLEAN_LENGTH, _CLEAN_TEXTS = 100, 4096
_clean: set[str] = set()
"""Short texts that hold no secret: names of bots, kinds and events come again with every line. Another set, empty, is put in its
place with each new secret.
"""


def remember_secret(value: str) -> None:
    """Have `value` masked in every later text, as it is and as URLs and JSON spell it. Shorter than 6 characters: no secret."""
    global _clean  # noqa: PLW0603  # another set, so that nobody adds to it what was looked at before
    if len(value) >= 6 and value not in MASK:
        spellings = _spellings(value)
        with _knowing:
            _known[:] = sorted(spellings.union(_known), key=lambda known: (-len(known), known))
            _clean = set()


def forget_secret(value: str) -> None:
    """Mask `value` no longer: it was good for hours and has been replaced, and every one remembered costs every text a look."""
    spellings = _spellings(value)
    with _knowing:
        _known[:] = [known for known in _known if known not in spellings]


def _spellings(value: str) -> set[str]:
    escaped = json.dumps(value)[1:-1]
    spellings = {value, quote(value), quote(value, safe=""), quote_plus(value), escaped, json.dumps(escaped)[1:-1]}
    spellings |= {spelling.replace("/", "\\/") for spelling in spellings}
    spellings |= {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), spelling) for spelling in spellings}
    # What looks like an escape in the value itself is undone in the texts, too.
    *_, (meant, _) = _readings(value)
    return spellings | ({meant} if len(meant) >= 6 else set())


def redact(text: str) -> str:
    """`text` without secrets. Of one longer than MAX_TEXT only its beginning: no secret is cut in two there, and its first part
    shown. Never raises; of what was redacted already, nothing changes.
    """
    clean = _clean
    if text in clean:
        return text
    given = text
    long = len(text) > MAX_TEXT
    text = text[:MAX_TEXT]
    for _ in range(_PASSES):
        masked = _masked(text)
        if masked == text:
            break
        text = masked
    if long:
        # A mask may be longer than what it stands for, but not three times as long as the piece of a secret at the end.
        longest = max(map(len, tuple(_known)), default=0)
        text = text[: max(len(text) - 3 * max(1024, longest), 0)] + _CUT
    if text == given and len(text) <= _CLEAN_LENGTH:
        if len(clean) >= _CLEAN_TEXTS:
            clean.clear()
        clean.add(text)
    return text


def _masked(text: str) -> str:
    if not (secrets := list(_secrets(text))):
        return text
    made: list[str] = []
    last = 0
    for start, end in _joined(secrets):
        made += (text[last:start], MASK)
        last = end
    return "".join(made) + text[last:] if last else text


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What lies within, overlaps or touches, as one."""
    start, end = -1, -1
    for first, last in sorted(spans):
        if first > end:
            if end > start:
                yield start, end
            start = first
        end = max(end, last)
    if end > start:
        yield start, end


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    """Where in `text` secrets stand."""
    for reading, at in _readings(text):
        for value in tuple(_known):  # other threads may learn of one meanwhile
            found = reading.find(value)
            while found >= 0:
                yield at[found], at[found + len(value)]
                found = reading.find(value, found + 1)
        small = reading.lower()
        for words, pattern in _PATTERNS:
            for word in words:
                if word in small:
                    break
            else:
                continue
            if pattern is not _BESIDE_A_NAME or _names_a_value(small):
                for match in pattern.finditer(reading):
                    if match.lastgroup is not None:
                        start, end = match.span(match.lastgroup)
                        if end == len(reading) and match.lastgroup in _QUOTES and (plain := _PLAIN.match(reading, start)):
                            end = plain.end()
                        yield at[start], at[end]


def _names_a_value(small: str) -> bool:
    """Whether a sign stands behind what ends like the name of a secret. Nearly all texts hold the words only, as in
    `storeKey` or `Key-Pair-Id`, and the pattern tries every character of theirs.
    """
    for sign in _SIGN.finditer(small):
        end = sign.start()
        if small[max(end - _REACH, 0) : end].rstrip().rstrip("\"'").endswith(_ENDS_BEFORE[sign[0]]):
            return True
    return False


def _readings(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """`text`, and what it means once its escapes are undone, again and again; each with the places of its characters, and of its
    end, in `text`.
    """
    at: Sequence[int] = range(len(text) + 1)
    yield text, at
    for _ in range(_DEPTH):
        if "\\" not in text and "%" not in text and "&" not in text:
            return
        made: list[str] = []
        where: list[int] = []
        last = 0
        for found in _ESCAPE.finditer(text):
            start = found.start()
            made += (text[last:start], _meaning(found))
            where += at[last : start + 1]
            last = found.end()
        if not last:
            return
        text, at = "".join(made) + text[last:], [*where, *at[last:]]
        yield text, at


def _meaning(escape: re.Match[str]) -> str:
    """The one character that an escape stands for."""
    kind, value = escape.lastgroup, escape[escape.lastgroup or 0]
    match kind:
        case "itself":
            return value
        case "name":
            return _HTML.get(value.lower(), "\ufffd")
        case _:
            code = int(value, 10 if kind == "decimal" else 16)
            return chr(code) if code <= 0x10FFFF else "\ufffd"


SEPARATOR = "\x1f"
"""Stands between texts that are looked at together. It is white space, which no secret goes across, and no text may hold it as it
is.
"""


def hold_no_secret(texts: Sequence[str]) -> bool:
    """Whether `redact` would change none of them: one look at all, a tenth of the work of a look at each. May say no of
    texts that hold none, such as a name at the end of one and a sign at the beginning of the next.
    """
    if max(map(len, texts), default=0) > MAX_TEXT:
        return False
    return next(_secrets(SEPARATOR.join(texts)), None) is None


def redact_each(values: Sequence[Any]) -> Sequence[Any]:
    """`redact_value` of each; they are looked at together first, for nearly always there is nothing to hide."""
    texts: set[str] = set()
    if all(_gather(value, texts, 0) for value in values) and hold_no_secret(tuple(texts)):
        return values
    return [redact_value(value) for value in values]


def _gather(value: Any, texts: set[str], depth: int) -> bool:
    """Add every text in `value`; False where one lies too deep, or stands beside the name of a secret."""
    if isinstance(value, str):
        texts.add(value)
    elif isinstance(value, dict):
        if depth >= MAX_DEPTH:
            return False
        for key, item in value.items():
            if type(item) is str:
                if isinstance(key, str) and _is_secret_name(key[-100:]):
                    return False
                texts.add(item)
            elif isinstance(item, dict | list | tuple | str):
                if isinstance(key, str) and _is_secret_name(key[-100:]):
                    return False
                if not _gather(item, texts, depth + 1):
                    return False
            if isinstance(key, str):
                texts.add(key)
    elif isinstance(value, list | tuple):
        return depth < MAX_DEPTH and all(_gather(item, texts, depth + 1) for item in value)
    return True


@lru_cache(1024)
def _is_secret_name(end: str) -> bool:
    """Whether a key that ends so is one. It is given no more than that, as what is given stays in memory."""
    return _SECRET_NAME.search(end) is not None


def redact_value(value: Any, *, depth: int = 0) -> Any:
    """`redact` for whatever JSON can hold: strings anywhere inside, keys too. Beside the name of a secret every text is one. What
    lies too deep is left out.
    """
    match value:
        case str():
            return redact(value)
        case dict() | list() | tuple() if depth >= MAX_DEPTH:
            return TOO_DEEP
        case dict():
            return {
                redact(key) if isinstance(key, str) else key: _hidden(item, depth + 1)
                if isinstance(item, str | list) and isinstance(key, str) and _is_secret_name(key[-100:])
                else redact_value(item, depth=depth + 1)
                for key, item in value.items()
            }
        case list() | tuple():
            return [redact_value(item, depth=depth + 1) for item in value]
        case _:
            return value


def _hidden(item: str | list[Any], depth: int) -> Any:
    """A text, or each in a list, beside the name of a secret."""
    if isinstance(item, str):
        return MASK if item else item
    return [_hidden(one, depth) if isinstance(one, str) else redact_value(one, depth=depth + 1) for one in item]


def harmless(text: str, *, keep: str = "") -> str:
    """`text` with every character spelled out that shows nothing but acts: controls but those to `keep`, what turns the direction
    of writing or has no width, breaks of lines, halves of characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _shows(c) else c.encode("unicode_escape").decode() for c in text)


def _shows(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")
