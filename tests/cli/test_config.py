"""`archiver config check` and `config show`."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from archiver.cli.app import cli
from archiver.config import read
from archiver.config.changes import differing
from archiver.config.showing import as_toml, masked_url, show
from archiver.evidence.keys import SealingKey
from archiver.observe.redact import MASK

ROOT = Path(__file__).parents[2]
SECRET = "a-secret-that-nobody-may-see-0123456789"
BOT = f"""
[[bots]]
name = "support"
bot_id = "st-1"
client_id = "cs-1"
client_secret = "{SECRET}"
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("ARCHIVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.toml"
    path.touch(mode=0o600)
    return path


def archiver(path: Path, *arguments: str, environment: Mapping[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(cli, ["--config", str(path), *arguments], env=environment)


def shown(path: Path, environment: Mapping[str, str] | None = None) -> str:
    return "\n".join(as_toml(show(read(path, environment or {}))))


def test_a_good_configuration_has_no_mistake(written: Path) -> None:
    written.write_text(BOT)
    result = archiver(written, "config", "check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{written}: no mistake, 1 bot(s)\n", "")
    document = json.loads(archiver(written, "config", "check", "--json").stdout)
    assert document == {"ok": True, "source": str(written), "mistakes": [], "warnings": []}


def test_every_mistake_of_the_keys_is_told_at_once(written: Path) -> None:
    written.write_text(f'{BOT}\n[worker]\nconcurrency = 0\n[log]\nlevel = "loud"\n[retri]\nmax_attempts = 3\n')
    result = archiver(written, "config", "check", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert not document["ok"]
    assert [f"{written}: " in each["message"] for each in document["mistakes"]] == [True] * 3
    assert {word for word in ("worker.concurrency", "log.level", "retri") if word in result.stdout} == {
        "worker.concurrency", "log.level", "retri",
    }  # fmt: skip
    told = archiver(written, "config", "check")
    assert (told.exit_code, told.stdout, told.stderr.count("error: ")) == (2, "", 3)


def test_what_can_be_no_path_is_a_mistake(written: Path) -> None:
    written.write_text(BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "a\\u0000b"'))
    result = archiver(written, "config", "check")
    assert result.exit_code == 2
    assert "bots[0].client_secret_file: must be a text file" in result.stderr


@pytest.mark.parametrize("key", ["account_key_file", "sas_token_file"])
def test_a_missing_file_of_the_store_is_one_mistake_among_others(written: Path, key: str) -> None:
    other = BOT.replace("support", "other").replace(f'client_secret = "{SECRET}"', 'client_secret_file = "missing"')
    written.write_text(f'{BOT}{other}\n[storage]\nurl = "az://container"\n[storage.azure]\naccount = "account"\n{key} = "gone"\n')
    result = archiver(written, "config", "check", "--json")
    assert result.exit_code == 2
    told = [each["message"] for each in json.loads(result.stdout)["mistakes"]]
    assert len(told) == 2
    assert any(key in each for each in told)


def test_every_file_that_is_missing_or_no_key_is_told_at_once(written: Path) -> None:
    (written.parent / "other").write_text("no key")
    written.write_text(
        BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "missing"')
        + BOT.replace("support", "sales").replace(f'client_secret = "{SECRET}"', 'algorithm = "RS256"\nprivate_key_file = "gone"')
        + '[network]\nca_bundle = "nowhere.pem"\n[evidence]\nkey_file = "other"\n'
    )
    mistakes = json.loads(archiver(written, "config", "check", "--json").stdout)["mistakes"]
    keys = ("bots.support.client_secret_file", "bots.sales.private_key_file", "network.ca_bundle", "evidence.key_file")
    assert len(mistakes) == len(keys)
    assert all(key in each["message"] and each["hint"] for key, each in zip(keys, mistakes, strict=True))


def test_a_key_that_cannot_sign_is_a_mistake(written: Path) -> None:
    (written.parent / "key").write_text("not a key in PEM")
    written.write_text(BOT.replace(f'client_secret = "{SECRET}"', 'algorithm = "RS256"\nprivate_key_file = "key"'))
    result = archiver(written, "config", "check")
    assert result.exit_code == 2
    assert "bots.support: no RS256 token can be signed" in result.stderr
    assert "not a key in PEM" not in result.stderr


def test_a_file_with_secrets_that_others_can_read_is_a_warning(written: Path) -> None:
    written.write_text(BOT)
    written.chmod(0o644)
    result = archiver(written, "config", "check")
    assert result.exit_code == 0
    assert "everybody can read it (client_secret)" in result.stdout
    assert f"chmod 600 {written}" in result.stdout


def test_a_night_that_would_leave_no_metrics_is_a_warning(written: Path, tmp_path: Path) -> None:
    written.write_text(f'{BOT}\n[metrics]\ntextfile = "{tmp_path}/away/a.prom"\n')
    result = archiver(written, "config", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f'metrics.textfile = "{tmp_path}/away/a.prom": its folder is not there' in result.stdout
    (tmp_path / "away").mkdir()
    assert "textfile" not in archiver(written, "config", "check").stdout


def test_the_examples_placeholders_are_mistakes(written: Path) -> None:
    written.write_text((ROOT / "config.example.toml").read_text())
    assert "still has the example's bot_id, client_id, client_secret" in archiver(written, "config", "check").stderr


def test_what_is_shown_can_be_read_back_and_means_the_same(written: Path) -> None:
    written.write_text(
        f'{BOT}rate_limits = ["60/minute", "1800/hour"]\nsource_retention = "90d"\nlength_tolerance = "1500ms"\n'
        '[transfer]\nmax_buffer = "96MiB"\nmax_bandwidth = 1000001\n[database]\nkeep_history = "36h"\n'
        '[storage]\nurl = "s3://bucket/prefix"\n[storage.s3]\npart_size = "9MiB"\n'
        '[storage.s3.tags]\nteam = "a:b"\n[retry]\nnot_ready_delays = ["90s", "1h"]\n'
    )
    text = shown(written)
    assert SECRET not in text
    again = written.with_name("again.toml")
    again.write_text(text.replace(MASK, SECRET))
    assert list(differing(read(written, {}).settings, read(again, {}).settings)) == []
    assert 'part_size = "9MiB"' in text
    assert 'length_tolerance = "1500ms"' in text


def test_each_key_says_where_it_comes_from(written: Path) -> None:
    written.write_text(f"{BOT}\n[worker]\nconcurrency = 3\nlease_seconds = 30\n")
    document = json.loads(
        archiver(written, "config", "show", "--json", environment={"ARCHIVER_WORKER__CONCURRENCY": "5",
                 "ARCHIVER_BOTS__0__CLIENT_SECRET": f"{SECRET}-2"}).stdout
    )  # fmt: skip
    keys: dict[str, dict[str, Any]] = document["keys"]
    assert keys["worker.concurrency"] == {"value": 5, "source": "ARCHIVER_WORKER__CONCURRENCY"}
    assert keys["worker.lease_seconds"] == {"value": 30.0, "source": f"{written}:10"}
    assert keys["bots[0].client_secret"] == {"value": MASK, "source": "ARCHIVER_BOTS__0__CLIENT_SECRET"}
    assert keys["bots[0].name"] == {"value": "support", "source": f"{written}:3"}
    assert keys["retry.max_attempts"] == {"value": 8, "source": "default"}


def test_a_text_over_several_lines_makes_no_line_a_lie(written: Path) -> None:
    written.write_text(
        f'[evidence]\norigin = """\\\n[worker]\\\nconcurrency = 1\\\n"""\n{BOT}'.replace("[worker]\\\nconcurrency = 1\\\n", "")
    )
    assert f'name = "support"  # {written}\n' in shown(written)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@host/db",
        f"postgresql://user@host/db?password={SECRET}",
        f"postgresql://user@host/db?sslmode=require&pass%77ord={SECRET}&application_name=x",
        f"postgresql://user@host/db?sslpassword={SECRET}",
        f"postgresql://user@host/db?whatever={SECRET}",
        "postgresql://user:pw@host/db?password=abc",
    ],
)
def test_no_password_of_a_url_is_shown(url: str, written: Path) -> None:
    shown_url = masked_url(url)
    for secret in (SECRET, ":pw@", "=abc"):
        assert secret not in shown_url
    assert "host/db" in shown_url
    written.write_text(f'[database]\nurl = "{url}"\nlisten_url = "{url}"\n{BOT}')
    for form in ([], ["--json"]):
        printed = archiver(written, "config", "show", *form)
        assert printed.exit_code == 0
        for secret in (SECRET, ":pw@", "=abc"):
            assert secret not in printed.output


def test_no_secret_of_the_receiver_of_messages_is_shown(written: Path) -> None:
    key = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="
    written.write_text(f'[notify]\nurl = "https://hooks.example/T1/{SECRET}/s"\nsecret = "{key}"\n{BOT}')
    for form in ([], ["--json"]):
        printed = archiver(written, "config", "show", *form)
        assert "https://hooks.example/" in printed.output
        for secret in (SECRET, "T1", key):
            assert secret not in printed.output


def test_a_secret_in_place_of_its_files_name_is_not_shown(written: Path) -> None:
    written.write_text(BOT.replace("client_secret =", "client_secret_file ="))
    for form in ([], ["--json"]):
        assert SECRET not in archiver(written, "config", "show", *form).output
    assert SECRET not in archiver(written, "config", "check").output


def test_what_is_shown_steers_no_terminal(written: Path) -> None:
    written.write_text('[storage]\nurl = "file:///a/b"\npath = "\\u202e{session_id}/{kind}/{file_name}"\n')
    text = shown(written)
    assert "\u202e" not in text
    assert tomllib.loads(text)["storage"]["path"].startswith("\u202e")


def test_a_sealing_key_is_no_mistake(written: Path) -> None:
    SealingKey.make(written.parent / "evidence.key", "mine")
    written.write_text(f'{BOT}\n[evidence]\nkey_file = "evidence.key"\n')
    assert archiver(written, "config", "check").exit_code == 0
