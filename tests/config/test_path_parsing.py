"""Keys, read as the template that makes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.config.path_template import PathFields, PathTemplate

TEMPLATES = (
    "bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}",
    "{kind}s/{date:%Y}/{date:%m}/{date:%d}/{bot}.{session_id}-{file_name}",
    "{bot}/{session_id}/{kind}-{session_id}_{file_name}",
    "{date}/{kind}/{session_id}/{file_name}.bin",
)
IDS = st.from_regex(r"[A-Za-z0-9._:-]{1,40}", fullmatch=True)
BOTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
NAMES = st.from_regex(r"[A-Za-z0-9_ .()\u00e9-]{1,30}", fullmatch=True).filter(lambda name: name not in (".", ".."))
DAYS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001  # given a zone below


@given(st.sampled_from(TEMPLATES), BOTS, DAYS, IDS, st.sampled_from(["recording", "voicemail"]), NAMES)
def test_what_was_rendered_is_read_again(text: str, bot: str, day: datetime, session_id: str, kind: str, name: str) -> None:
    template, day = PathTemplate(text), day.replace(tzinfo=UTC)
    key = template.render(bot=bot, date=day, session_id=session_id, kind=kind, file_name=name)
    found = template.parse(key)
    assert found is not None, key
    assert (found.session_id, found.kind, found.file_name) == (session_id, kind, name)
    assert found.bot == (bot if "{bot}" in text else None)
    again = template.render(bot=bot, date=found.date, session_id=session_id, kind=kind, file_name=name)
    assert again == key


@given(st.sampled_from(TEMPLATES), st.text(max_size=80))
def test_of_other_keys_nothing_is_read_that_would_not_give_them(text: str, key: str) -> None:
    template = PathTemplate(text)
    found = template.parse(key)
    if found is not None:
        fields = {name: getattr(found, name) for name in PathFields.__dataclass_fields__} | {"bot": found.bot or ""}
        assert template.render(**fields) == key


@pytest.mark.parametrize(
    "key",
    [
        "bot=b/date=2026-13-01/s/recording/a.wav",
        "bot=b/date=2026-03-01/s/recording/more/a.wav",
        "bot=b/date=2026-03-01//recording/a.wav",
        "bot=b/date=2026-03-01/%53/recording/a.wav",
        "bot=b/date=2026-3-1/s/recording/a.wav",
        "quarantine/date=2026-03-01/s/recording/a.wav",
    ],
)
def test_keys_that_no_session_gives(key: str) -> None:
    assert PathTemplate(TEMPLATES[0]).parse(key) is None


def test_folders_of_the_archivers_own_are_no_bots() -> None:
    template = PathTemplate("{bot}/{kind}/{session_id}/{file_name}")
    day = datetime(2026, 3, 1, tzinfo=UTC)
    for bot in ("quarantine", "Evidence"):
        key = template.render(bot=bot, date=day, session_id="s", kind="recording", file_name="a.wav")
        found = template.parse(key)
        assert found is not None
        assert found.bot == bot


DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}",
        "{session_id}_{kind}_{file_name}",
        "{bot}-{date:%Y-%m-%d}-{session_id}/{kind}-{file_name}",
        "{date:%Y/%m/%d}/{session_id}-{kind}.{file_name}.kept",
        "{bot}.{session_id}.{kind}.{file_name}",
        "{date:%d}{kind}{session_id}/{file_name}",
        "{date:%j-%m %y}/{session_id}-{kind}-{date:%d}-{file_name}",
    ],
)
def test_what_made_a_key_is_read_from_it(text: str) -> None:
    template = PathTemplate(text)
    for bot in ("b-o_t.x", "evidence"):
        for session_id in ("a_b", "a-b", "a.b:c", "x", ".a.", "quarantine", "con"):
            for name in ("a.wav", "a_b-c.d.wav", "recording_recording-.wav"):
                key = template.render(bot=bot, date=DAY, session_id=session_id, kind="recording", file_name=name)
                fields = template.parse(key)
                assert fields is not None, key
                assert (fields.session_id, fields.kind, fields.file_name) == (session_id, "recording", name)
                assert fields.bot == (bot if "{bot}" in text else None)


def test_the_last_of_february_is_read_without_its_year() -> None:
    template, day = PathTemplate("{date:%m-%d}/{kind}/{session_id}/{file_name}"), datetime(2024, 2, 29, tzinfo=UTC)
    fields = template.parse(template.render(bot="b", date=day, session_id="s", kind="recording", file_name="a.wav"))
    assert fields is not None
    assert (fields.date.month, fields.date.day) == (2, 29)


def test_a_key_that_could_be_of_several_sessions_is_of_none() -> None:
    template = PathTemplate("{kind}/{file_name}-{session_id}")
    assert template.parse("recording/a.wav-a-b") is None


def test_no_key_is_read_for_long() -> None:
    """Each was tried in so many ways that one took for ever."""
    template = PathTemplate("{bot}_{date:%Y-%m-%d}_{session_id}_{kind}_{file_name}")
    for _ in range(100):
        assert template.parse("_" * 1000 + "/x") is None
        assert template.parse("a_2026-03-01_" + "b_recording_" * 80 + "/x") is None
