"""[notify]: which receivers and secrets are taken, and that neither is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archiver.config import EVENTS, Settings, load, read, secret_files
from archiver.config.notify import parse_key
from archiver.config.showing import show
from archiver.errors import ConfigError
from archiver.observe.redact import MASK, redact
from tests.webhooks import KEY, SECRET

URL = "https://hooks.example/archiver"


def loaded(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "archiver.toml"
    path.write_text(f"[notify]\n{text}\n")
    return load(path, environment or {})


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert caught.value.hint
    return caught.value.message


def test_nothing_is_told_unless_there_is_a_receiver(tmp_path: Path) -> None:
    assert not loaded(tmp_path, "").notify.on
    assert not loaded(tmp_path, f'secret = "{SECRET}"').notify.on
    assert not loaded(tmp_path, f'url = "{URL}"\nsecret = "{SECRET}"\nevents = []').notify.on
    notify = loaded(tmp_path, f'url = "{URL}"\nsecret = "{SECRET}"').notify
    assert (notify.on, notify.events, notify.key(), notify.receiver) == (True, EVENTS, KEY, "https://hooks.example")
    environment = {
        "ARCHIVER_NOTIFY__EVENTS": "hold,night",
        "ARCHIVER_NOTIFY__URL": "http://[::1]:8000",
        "ARCHIVER_NOTIFY__SECRET": SECRET,
    }
    notify = loaded(tmp_path, "", environment).notify
    assert (notify.on, notify.events, notify.receiver) == (True, ("night", "hold"), "http://[::1]:8000")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('url = "http://hooks.example/x"', "nobody else's business"),
        ('url = "http://10.0.0.7/x"', "nobody else's business"),
        ('url = "http://127.0.0.1.example/x"', "nobody else's business"),
        ('url = "https://user:Wisteria-77@hooks.example/x"', "without user and password"),
        ('url = "https://Wisteria-77@hooks.example/x"', "without user and password"),
        ('url = "ftp://hooks.example/Wisteria-77"', "must be https://"),
        ('url = "https://hooks.example/Wisteria-77#part"', "must be https://"),
        ('url = "https://hooks.example:99999/Wisteria-77"', "must be https://"),
        ('url = "https://hooks.example/Wisteria-77"', "secret or secret_file is missing"),
        ('secret = "Wisteria-77"', 'must be "whsec_"'),
        ('secret = "whsec_V2lzdGVyaWEtNzc="', 'must be "whsec_"'),
        ('secret = "whsec_Wisteria-77"', 'must be "whsec_"'),
        ('events = ["nights"]', "there is no nights"),
    ],
)
def test_each_mistake_is_told_and_no_secret(tmp_path: Path, text: str, told: str) -> None:
    message = refused(tmp_path, text)
    assert told in message
    assert "Wisteria" not in message
    assert "V2lzdGVyaWEtNzc" not in message


def test_the_secret_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "whsec").write_text(f"{SECRET}\n")
    settings = loaded(tmp_path, f'url = "{URL}"\nsecret_file = "whsec"')
    assert settings.notify.key() == KEY
    assert ("secret_file", tmp_path / "whsec") in list(secret_files(settings))
    both = f'url = "{URL}"\nsecret_file = "whsec"\nsecret = "{SECRET}"'
    assert "exclude each other" in refused(tmp_path, both)
    (tmp_path / "whsec").write_text("Wisteria-77")
    message = refused(tmp_path, f'url = "{URL}"\nsecret_file = "whsec"')
    assert ("notify.secret_file" in message, "Wisteria" in message) == (True, False)
    assert "No such file" in refused(tmp_path, f'url = "{URL}"\nsecret_file = "gone"')


def test_neither_the_secret_nor_a_path_that_is_one_is_shown(tmp_path: Path) -> None:
    token = "T01Hibiscus99Xylophone"
    settings = loaded(tmp_path, f'url = "https://hooks.example/services/{token}"\nsecret = "{SECRET}"')
    shown: Any = repr(settings), str(settings.model_dump()), redact(f"POST /services/{token} {SECRET}")
    for text in shown:
        assert token not in text
        assert SECRET not in text
    assert "/services/" in shown[2], "a word is none"


def test_of_the_url_no_more_than_its_host_is_shown(tmp_path: Path) -> None:
    for url, written in (
        ("https://hooks.example/T1/short", f"https://hooks.example/{MASK}"),
        ("https://hooks.example:8443/", f"https://hooks.example:8443/{MASK}"),
        ("", ""),
    ):
        path = tmp_path / "archiver.toml"
        path.write_text(f'[notify]\nurl = "{url}"\nsecret = "{SECRET}"\n')
        shown = {each.key: each.value for each in show(read(path, {}))}
        assert (shown["notify.url"], shown["notify.secret"]) == (written, MASK)


def test_a_key_has_a_length_that_protects() -> None:
    assert len(parse_key("whsec_" + "A" * 32)) == 24
    for text in ("whsec_", "whsec_" + "A" * 28, "A" * 32, "whsec_" + "A" * 31):
        with pytest.raises(ValueError, match="whsec_"):
            parse_key(text)
