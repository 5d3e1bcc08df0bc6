"""Where in the store a recording lies: the path template of the configuration, and what it makes of a session."""

from __future__ import annotations

import itertools
import re
import string
from dataclasses import dataclass
from datetime import UTC, datetime

DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever the suffix."""


def path_part(text: str) -> str:
    """A session ID or bot name as one part of a path: `:` becomes `~`; a leading or trailing dot and the first letter of a
    Windows device name are percent-encoded. One to one, as `~` and `%` are in neither, and never too long for a file system.
    """
    text = text.replace(":", "~")
    if text.endswith("."):
        text = text[:-1] + "%2E"
    if text.startswith(".") or DEVICE_NAME.match(text):
        text = f"%{ord(text[0]):02X}{text[1:]}"
    return text


_A_DAY = datetime(2024, 2, 29, tzinfo=UTC)
_SAYS_YEAR = re.compile("%[YyGDFcx]")
_ESCAPED = re.compile("%([0-9A-F]{2})")


def _unpart(part: str) -> str:
    """What `path_part` made this of, if it did."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), part.replace("~", ":"))


QUARANTINE = "quarantine"
"""The folder of what was no recording, and may be the only copy."""

EVIDENCE = "evidence"
"""The folder of the ledger."""

RESERVED = (QUARANTINE, EVIDENCE)
"""Folders of the archiver's own."""


@dataclass(frozen=True, slots=True)
class PathFields:
    """What a key says of a file."""

    bot: str | None
    date: datetime
    session_id: str
    kind: str
    file_name: str


class PathTemplate:
    """Where in the store a recording lies. Each of `{session_id}`, `{kind}` and `{file_name}` must occur, so that two
    files never meet in one key; `{file_name}` in the last part, so that a session's folder is known before its files are.

    Where something else follows a session ID or a bot's name in one part of the path, as in `{session_id}-{file_name}`, the
    character between them is percent-encoded in the former: "a-b" and "c" must not give what "a" and "b-c" give.
    """

    FIELDS = ("bot", "date", "session_id", "kind", "file_name")

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError:
            raise ValueError("must close every { that begins a field with a }, and double those that begin none") from None
        fields = [name for _, name, _, _ in self._parts if name is not None]
        for _, name, spec, conversion in self._parts:
            if name is None:
                continue
            if name not in self.FIELDS:
                raise ValueError(f"must have no field but {', '.join('{' + f + '}' for f in self.FIELDS)}; {{{name}}} is none")
            if conversion or (spec and (name != "date" or "{" in spec)):
                raise ValueError(f"must give {{{name}}} no format (only {{date:%Y-%m-%d}} takes one)")
        for needed in ("session_id", "kind", "file_name"):
            if needed not in fields:
                raise ValueError(f"must contain {{{needed}}}: without it two files could meet in one key")
        self._ends = self._separators()
        head, _, tail = text.rpartition("/")
        if "{file_name}" not in tail or "{file_name}" in head:
            raise ValueError("must have {file_name} in the last part of the path, and only there")
        sample = self.render(bot="b", date=datetime(2024, 2, 29, tzinfo=UTC), session_id="s", kind="k", file_name="f.wav")
        segments = sample.split("/")
        if text.startswith("/") or any(part in ("", ".", "..") for part in segments):
            raise ValueError("must be relative to storage.url: no leading '/', no empty part, no '.' or '..'")
        if any(re.search(r'[\x00-\x1f\\<>:"|?*]|[ .]$', part) or DEVICE_NAME.match(part) for part in segments):
            raise ValueError("must have no part with a name or characters that some file systems refuse")
        if text.split("/", maxsplit=1)[0].casefold() in RESERVED or any(part.startswith(".") for part in segments):
            raise ValueError(
                "must have no part that begins with '.', nor begin with quarantine/ or evidence/: the archiver keeps its own "
                "files there"
            )

    def _separators(self) -> dict[str, str]:
        """The character that ends a bot's name or a session ID, where another field follows in the same part of the path."""
        found = {}
        for (_, name, _, _), (literal, following, _, _) in itertools.pairwise(self._parts):
            if name in ("bot", "session_id") and following is not None and "/" not in literal:
                if not literal or literal[0] in "%0123456789ABCDEF":
                    raise ValueError(f"must have a character between {{{name}}} and {{{following}}}, neither % nor 0-9 A-F")
                found[str(name)] = literal[0]
        return found

    def render(self, *, bot: str, date: datetime, session_id: str, kind: str, file_name: str) -> str:
        """The store key of one file. `file_name` is clean already; the rest is made safe here."""
        values = {"bot": path_part(bot), "session_id": path_part(session_id), "kind": kind, "file_name": file_name}
        for field, end in self._ends.items():
            values[field] = values[field].replace(end, f"%{ord(end):02X}")
        made: list[str] = []
        for literal, name, spec, _ in self._parts:
            made.append(literal)
            if name == "date":
                made.append(date.astimezone(UTC).strftime(spec or "%Y-%m-%d"))
            elif name is not None:
                made.append(values[name])
        key = "".join(made)
        # A session or a bot may be called so; the folder is the archiver's own, also where a file system knows no case.
        return f"%{ord(key[0]):02X}{key[1:]}" if key.split("/")[0].casefold() in RESERVED else key

    def parse(self, key: str) -> PathFields | None:
        """What gives this key when it is rendered; None for a key that is none of this template's, or of one whose parts nobody
        can tell apart again. `bot` is None, and `date` the first moment that there could be, where the template says neither.
        """
        given, folder = key, key.partition("/")[0]
        if folder.startswith("%") and _unpart(folder).casefold() in RESERVED:
            key = _unpart(folder) + key.removeprefix(folder)
        texts = self._split(key)
        if texts is None:
            return None
        dates = {spec: text for name, spec, text in texts if name == "date"}
        said = {name: text for name, _, text in texts}
        if dates and not _SAYS_YEAR.search("".join(dates)):
            dates = {
                "%Y": "2000",
                **dates,
            }  # any year that has every day: without one, Python would not read the last of February
        try:
            # A separator that is in no format, so that no part reads what is another's.
            date = datetime.strptime("\n".join(dates.values()), "\n".join(dates)).replace(tzinfo=UTC)
            fields = PathFields(
                bot=_unpart(said["bot"]) if "bot" in said else None,
                date=date,
                session_id=_unpart(said["session_id"]),
                kind=said["kind"],
                file_name=said["file_name"],
            )
            again = self.render(
                bot=fields.bot or "", date=date, session_id=fields.session_id, kind=fields.kind, file_name=fields.file_name
            )
        except (ValueError, OverflowError):
            return None
        return fields if again == given else None

    def _split(self, key: str) -> list[tuple[str, str, str]] | None:
        """Each field with its format and its text. A file's name is what is left at the end."""
        found, at = list[tuple[str, str, str]](), 0
        for place, (literal, name, spec, _) in enumerate(self._parts):
            if not key.startswith(literal, at):
                return None
            at += len(literal)
            if name is None:
                continue
            form = (spec or "%Y-%m-%d") if name == "date" else ""
            match name:
                case "file_name":
                    after = self._parts[place + 1 :]
                    tail = after[0][0] if after else ""
                    if len(after) > 1 or (after and after[0][1] is not None) or not key.endswith(tail) or "/" in key[at:]:
                        return None
                    end = len(key) - len(tail)
                case "date":  # of the same length whatever the day
                    end = at + len(_A_DAY.strftime(form))
                case "kind":
                    end = at + len(next((kind for kind in ("recording", "voicemail") if key.startswith(kind, at)), ""))
                case _:
                    ends = [key.find(sign, at) for sign in ("/", self._ends.get(name, "/"))]
                    end = min((each for each in ends if each >= 0), default=len(key))
            if end <= at or end > len(key):
                return None
            found.append((name, form, key[at:end]))
            at = end
        return found if at == len(key) else None

    def __repr__(self) -> str:
        return f"PathTemplate({self.text!r})"
