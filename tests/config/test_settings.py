"""The configuration: what loads, and how each mistake is told."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import tomllib
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from archiver.config import (
    AzureSettings,
    BotSettings,
    DatabaseSettings,
    RateLimit,
    S3Settings,
    Settings,
    account_budgets,
    all_budgets,
    load,
    parse_duration,
    parse_size,
    secret_files,
    sessions_budgets,
)
from archiver.config.path_template import PathTemplate, path_part
from archiver.errors import ConfigError
from archiver.observe.redact import redact

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"
SECRET = "hunter2/Geheimnis+=="

BOT = f"""
[[bots]]
name = "a"
bot_id = "st-1"
client_id = "cs-1"
client_secret = "{SECRET}"
"""

Load = Callable[..., Settings]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Load this TOML as a file in a folder of the test's own, with this environment and no other."""

    def run(text: str, **environment: str) -> Settings:
        path = tmp_path / "archiver.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, environment)

    return run


def refused(loaded: Load, text: str, **environment: str) -> str:
    """The message of the one mistake in it: one line, exit code 2, with a next step, and no secret anywhere in it."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, **environment)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.facts)
    assert SECRET not in told
    assert error.exit_code == 2
    assert error.hint
    assert "\n" not in error.message
    return error.message


# --- the example


def sections(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of the configuration, with the section it is in."""
    for name, field in model.model_fields.items():
        if (*path, name) == ("source",):
            continue
        candidates = [field.annotation, *get_args(field.annotation)]
        below = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if below:
            yield from sections(below[0], (*path, name))
        else:
            yield path, name


def test_the_example_loads_as_it_is() -> None:
    settings = load(EXAMPLE, {})
    assert settings.bots[0].name == "support-us"
    assert settings.source == str(EXAMPLE)


def test_the_example_shows_every_key_of_every_section_and_no_other() -> None:
    shown: set[tuple[tuple[str, ...], str]] = set()
    section: tuple[str, ...] = ()
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[+([a-z0-9.]+)\]+", line):
            section = tuple(header[1].split("."))
        elif key := re.match(r"(?:# )?([a-z0-9_]+) = ", line):
            shown.add((section, key[1]))
    assert shown == set(sections())
    assert len(shown) > 30


def test_the_example_shows_the_defaults() -> None:
    data = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    settings = load(EXAMPLE, {})
    for name in ("worker", "transfer", "retry", "evidence", "log", "metrics"):
        assert getattr(settings, name) == type(getattr(settings, name))(), name
    assert settings.storage.s3 == S3Settings()
    assert settings.storage.azure == AzureSettings()
    assert settings.storage.path.text == PathTemplate(data["storage"]["path"]).text
    for key in ("host", "algorithm", "account_id", "rate_limits", "media_hosts"):
        assert getattr(settings.bots[0], key) == BotSettings.model_fields[key].default, key


def test_without_any_configuration_there_is_an_embedded_database_and_a_local_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    settings = load(None, {})
    assert settings.source == "defaults"
    assert settings.database.embedded_path is not None
    assert settings.storage.folder == tmp_path / "archive"
    assert settings.bots == ()


def test_an_account_without_a_home_has_to_say_where_the_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    nameless = next(uid for uid in range(1234, 65000) if uid not in taken)
    monkeypatch.setattr(os, "getuid", lambda: nameless)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no home folder") as caught:
        load(environment={})
    assert "database.url" in caught.value.hint
    assert load(environment={"ARCHIVER_DATABASE__URL": "postgresql://db/archiver"}).source == "environment"
    shutil.copy(EXAMPLE, "archiver.toml")
    assert load(environment={}).source == "archiver.toml"


def test_history_is_kept_for_ever_or_as_long_as_is_said(loaded: Load) -> None:
    assert load(EXAMPLE, {}).database.keep_history is None
    assert loaded(BOT).database.keep_history is None
    assert loaded(BOT + "[database]\nkeep_history = '730d'").database.keep_history == timedelta(days=730)
    assert loaded(BOT, ARCHIVER_DATABASE__KEEP_HISTORY="1d").database.keep_history == timedelta(days=1)


def test_how_long_the_platform_keeps_recordings_is_unknown_unless_it_is_said(loaded: Load) -> None:
    assert load(EXAMPLE, {}).bots[0].source_retention is None
    assert loaded(BOT + "source_retention = '90d'").bots[0].source_retention == timedelta(days=90)
    for text, message in (
        ("90m", 'must be at least "1d", or empty'),
        ("90", 'such as "90d"'),
        ("3 months", "write months and years in days"),
    ):
        with pytest.raises(ConfigError, match=rf"bots\[0\]\.source_retention = \"{text}\": .*{message}"):
            loaded(BOT + f"source_retention = '{text}'")


# --- mistakes in the file


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[worker]\nconcurency = 4", "unknown key worker.concurency; did you mean concurrency?"),
        ("[wroker]\nconcurrency = 4", "unknown key wroker; did you mean worker?"),
        (BOT + "client_secrets_file = 'x'", "unknown key bots[0].client_secrets_file; did you mean client_secret_file?"),
        ("[storage.s3]\nendpiont = 'x'", "unknown key storage.s3.endpiont; did you mean endpoint?"),
        ("source = 'x'", "unknown key source"),
        ("[worker]\nconcurrency = 'many'", 'worker.concurrency = "many": must be a whole number from 1 to 1000'),
        ("[worker]\nconcurrency = 0", "worker.concurrency = 0: must be a whole number from 1 to 1000"),
        ("[worker]\nlease_seconds = nan", "worker.lease_seconds = nan: "),
        ("worker = 3", "worker: must be a section of keys, not a plain value"),
        ("[bots]\nname = 'a'", "bots: must be a list, with a block [[bots]] for each bot"),
        (f"bots = ['{SECRET}']", "bots[0]: must be a section of keys"),
        (f"database = 'postgresql://u:{SECRET}@h/d'", "database: must be a section of keys"),
        (BOT.replace('"st-1"', "7"), "bots[0].bot_id = 7: must be the ID of the bot"),
        (BOT.replace('bot_id = "st-1"', ""), "bots[0].bot_id is missing"),
        (BOT.replace('"a"', '"a/b"'), 'bots[0].name = "a/b": '),
        (BOT.replace('"a"', '""'), 'bots[0].name = "": '),
        (BOT + BOT, 'two bots are called "a"'),
        (BOT + BOT.replace('"a"', '"A"'), 'two bots are called "a"'),
        (BOT + "algorithm = 'none'", 'bots[0].algorithm = "none": must be "HS256", "HS512", "RS256" or "RS512"'),
        (
            BOT + "algorithm = 'RS256'",
            "bots[0]: private_key_file is missing: must be the path of the key in PEM that algorithm RS256 signs with",
        ),
        (BOT.replace(SECRET, ""), "bots[0]: client_secret or client_secret_file is missing"),
        (BOT + "client_secret_file = 'x'", "bots[0]: client_secret and client_secret_file exclude each other"),
        (BOT.replace(f'"{SECRET}"', "12345678"), "bots[0].client_secret: must be text, in quotes"),
        ("[storage.s3]\nsecret_access_key = 12345678", "storage.s3.secret_access_key: must be text, in quotes"),
        ("[transfer]\nmax_buffer = 'plenty'", 'transfer.max_buffer = "plenty": must be a number and a unit of bytes'),
        ("[transfer]\nmax_buffer = '-1MiB'", 'transfer.max_buffer = "-1MiB": must be a number and a unit of bytes'),
        ("[transfer]\nmax_buffer = true", "transfer.max_buffer = true: must be a number and a unit of bytes"),
        ("[transfer]\nmax_buffer = '1MiB'", 'transfer.max_buffer = "1MiB": must be at least'),
        ("[transfer]\nmax_bandwidth = '10'", 'transfer.max_bandwidth = "10": must be bytes a second, at least'),
        ("[transfer]\nstall_timeout = '0s'", 'transfer.stall_timeout = "0s": must be longer than 0'),
        (
            "[transfer]\nmax_recording = '0'",
            'transfer.max_recording = "0": must be at least "1KiB": it is the most bytes that a recording may have',
        ),
        ("[transfer]\nmax_session = ''", 'transfer.max_session = "": must be a number and a unit of bytes'),
        (
            "[transfer]\nmax_session = '1'",
            'transfer.max_session = "1": must be at least "1KiB": it is the most bytes that all files of a session may have',
        ),
        ("[transfer]\nconnections_per_host = -1", "transfer.connections_per_host = -1: must be a whole number from 0 to 1000"),
        (BOT + "rate_limits = ['60 a minute']", 'bots[0].rate_limits[0] = "60 a minute": must be a number of calls and a time'),
        (BOT + "rate_limits = ['0/minute']", 'bots[0].rate_limits[0] = "0/minute": must be a number of calls and a time'),
        (BOT + "rate_limits = ['99999999999/minute']", "must be a number of calls and a time"),
        (BOT + "rate_limits = ['6/minute', '7/minute']", "bots[0].rate_limits: must not have one window twice"),
        (BOT + "media_hosts = ['https://x']", 'bots[0].media_hosts: "https://x" must be a host name'),
        (BOT + "media_hosts = ['x:443']", "must be a host name"),
        (BOT + "media_hosts = ['*.*.kore.ai']", "must be a host name"),
        (f"[database]\nurl = 'mysql://u:{SECRET}@h/d'", "database.url: must begin with"),
        ("[database]\nurl = 'embedded:'", 'database.url: must name a folder behind "embedded:"'),
        (
            f"[database]\nurl = 'postgresql://u:{SECRET}@h/d'",
            "database.url: must be a URL, with special characters",
        ),
        (
            "[database]\nurl = 'postgresql://u:p@ss@h/d'",
            "database.url: must be a URL, with special characters",
        ),
        (
            "[database]\nurl = 'postgresql://u:p#ss@h/d'",
            "database.url: must be a URL, with special characters",
        ),
        (
            "[database]\nurl = 'postgresql://u:p\u2100ss@h/d'",
            "database.url: must be a URL, with special characters",
        ),
        (f"[database]\nlisten_url = 'x{SECRET}'", "database.listen_url: must begin with"),
        (
            "[storage]\nurl = 'gs://bucket/prefix'",
            'storage.url = "gs://bucket/prefix": must be file:///a/folder, s3://',
        ),
        ("[storage]\nurl = 'az://audit'", "storage: azure.account or azure.endpoint is missing"),
        *(
            (f"[storage]\nurl = 'az:{container}'", f'storage.url = "az:{container}": must name a container')
            for container in ("calls/x", "//", "//Calls", "//-calls", "//ca--lls", "//calls.x", "//$root")
        ),
        ("[storage]\nurl = 'az://audit/a?sig=b'", "must not have a '?', a '#' or a control character"),
        *(
            (f"[storage]\nurl = 'az://audit'\n[storage.azure]\naccount = 'calls'\n{keys}", complaint)
            for keys, complaint in (
                (
                    "endpoint = 'azurite:10000'",
                    'azure.endpoint = "azurite:10000": must be the URL of the account\'s blobs',
                ),
                ("endpoint = 'https://h/?sig=abc'", "must be the URL of the account's blobs"),
                ("endpoint = 'http://calls.example'", "must not travel"),
                ("endpoint = 'HTTP://calls.example'", "must not travel"),
                (
                    "endpoint = 'http://calls.example'\naccount_key = 'Particular-9'",
                    'storage: azure.endpoint = "http://calls.example" must be https:// to another machine',
                ),
                ("account_key = 'Particular-9'\naccount_key_file = 'k'", "account_key and account_key_file exclude each other"),
                ("account_key = 'Particular-9'\nsas_token = 'sig=Particular-8'", "account_key and sas_token exclude each other"),
                ("account_key = 12345678", "storage.azure.account_key: must be text, in quotes"),
                ("part_size = '1KiB'", 'storage.azure.part_size = "1KiB": must be from "1MiB" to "4000MiB"'),
                ("part_size = '512MiB'", "storage.azure.part_size: must not be more than transfer.max_buffer"),
            )
        ),
        ("[storage]\nurl = 'az://audit'\n[storage.azure]\naccount = 'Calls'", 'azure.account = "Calls": must be the'),
        ("[storage.azure]\naccount = 'calls'", "storage: url must be az:// where azure.account is set"),
        (
            "[storage]\nurl = 'az://audit'\n[storage.azure]\naccount = 'calls'\nsas_token = 'sv=2'",
            "the SAS token must have a sig",
        ),
        *(
            (f"[storage]\nurl = 's3:{bucket}'", f'storage.url = "s3:{bucket}": must name a bucket')
            for bucket in (
                "bucket",
                "//",
                "///prefix",
                "//b",
                "//Bucket",
                "//a_bucket",
                "//a..b",
                "//-ab",
                "//10.0.0.1",
            )
        ),
        ("[storage]\nurl = 's3://bucket/a?b'", "must not have a '?', a '#' or a control character"),
        ("[storage]\nurl = 's3://bucket/a#b'", "must not have a '?', a '#' or a control character"),
        ("[storage]\nurl = 's3://bucket/a\\tb'".replace("\\t", "\t"), "must not have a '?', a '#' or a control character"),
        *(
            (f"[storage]\nurl = 's3://bucket/{prefix}'", "must not have a prefix with an empty part")
            for prefix in ("/", "a//b", "../a", "a/./b", "a\\b")
        ),
        *(
            (f"[storage]\nurl = 's3://bucket'\n[storage.s3]\n{keys}", complaint)
            for keys, complaint in (
                ("endpoint = 'minio:9000'", 'storage.s3.endpoint = "minio:9000": must be the server\'s URL'),
                ("endpoint = 'http://h:99999'", "must be the server's URL"),
                ("endpoint = 'http://u:p@h'", "must be the server's URL"),
                (
                    "endpoint = 'http://minio:9000'",
                    'storage: s3.endpoint = "http://minio:9000" must be https:// to another machine: recordings and credentials',
                ),
                ("endpoint = 'http://minio:9000'", "set storage.allow_http = true if you trust"),
                ("endpoint = 'HTTP://127.0.0.1.example'", "must be https:// to another machine"),
                ("endpoint = 'http://2130706433'", "must be https:// to another machine"),
                (
                    "access_key_id = 'AKIA'",
                    "storage.s3: access_key_id and secret_access_key (or secret_access_key_file) must be set both or neither",
                ),
                ("secret_access_key = 'Particular-9'", "must be set both or neither"),
                ("secret_access_key_file = 's3'", "must be set both or neither"),
                (
                    "access_key_id = 'AKIA'\nsecret_access_key = 'Particular-9'\nsecret_access_key_file = 's3'",
                    "secret_access_key and secret_access_key_file exclude each other",
                ),
                ("session_token = 'Particular-8'", "access_key_id is missing: must be the one that session_token belongs to"),
                (
                    "profile = 'audit'\naccess_key_id = 'AKIA'\nsecret_access_key = 'Particular-9'",
                    "profile and access_key_id exclude each other",
                ),
                ("kms_key_id = 'alias/x'", 'sse must be "aws:kms" where kms_key_id is set'),
                ("sse = 'AES-256'", 'storage.s3.sse = "AES-256": must be "", "AES256" or "aws:kms"'),
                ("storage_class = 'DEEP_ARCHIVE'", "without restoring them first"),
                ("storage_class = 'standard'", 'storage.s3.storage_class = "standard": must be a class of S3'),
                ("part_size = '4MiB'", 'storage.s3.part_size = "4MiB": must be from "5MiB" to "5GiB"'),
                ("part_size = '512MiB'", "storage.s3.part_size: must not be more than transfer.max_buffer"),
                ("parts_in_flight = 0", "storage.s3.parts_in_flight = 0"),
                ("tags = 'a=b,a=c'", 'storage.s3.tags = "a=b,a=c": must not have one name twice'),
                ("tags = 'a=b;c'", "must be names and values of letters"),
                ("tags = '=b'", "must be names and values of letters"),
                ("tags = 'aws:a=b'", "is reserved by S3 or archiver"),
                ("tags = 'archiver-sha256=b'", "is reserved by S3 or archiver"),
                ("tags = '" + ",".join(f"t{n}=1" for n in range(10)) + "'", "must be at most 9"),
                ("tags = ['a']", "must be names and values of letters"),
                ("region = 'eu central'", 'storage.s3.region = "eu central": must be the name of a region'),
            )
        ),
        ("[storage.s3]\nendpoint = 'http://127.0.0.1:9000'", "storage: url must be s3:// where s3.endpoint is set"),
        ("[storage]\nurl = '/var/lib'", 'storage.url = "/var/lib": must be a URL such as'),
        ("[storage]\nurl = 'file://server/share'", "must be a URL such as"),
        ("[storage]\nurl = 'file:///a?b'", "must not have a '?' or '#': write %3F"),
        ("[storage]\nurl = 'file:///a%00b'", "must not contain a NUL"),
        ("[retry]\nbackoff_base = '2 fortnights'", 'retry.backoff_base = "2 fortnights": must be a number and a unit of time'),
        ("[retry]\nbackoff_base = -1", "retry.backoff_base = -1: must be a number and a unit of time"),
        ("[retry]\nbackoff_base = true", "retry.backoff_base = true: must be a number and a unit of time"),
        ("[retry]\nbackoff_base = '1h'", "retry: backoff_base must not be longer than backoff_max"),
        ("[retry]\nnot_ready_give_up = '99999999d'", "must be at most 36525d"),
        ("[retry]\nnot_ready_delays = []", "retry.not_ready_delays: must have at least one delay"),
        ("[retry]\nrecheck_unavailable = ['1d', '1d']", "retry.recheck_unavailable: must have delays that are each longer"),
        ("[retry]\nrecheck_unavailable = ['0s']", "must have delays that are each longer than the one before"),
        ("[retry]\nnot_ready_delays = ['soon']", 'retry.not_ready_delays[0] = "soon": must be a number and a unit of time'),
        ("[log]\nlevel = 'loud'", 'log.level = "loud": must be "debug", "info"'),
        ("[log]\nlevel = 'a\\nb'".replace("'", '"'), r'log.level = "a\nb"'),
        ("[metrics]\nlisten = '9464'", 'metrics.listen = "9464": must be host:port, such as'),
        ("[metrics]\ntextfile = 'archiver.prom'", "must be an absolute path that ends in .prom, such as"),
        ("[metrics]\ntextfile = '/var/lib/archiver.txt'", "must be an absolute path that ends in .prom, such as"),
        ("[metrics]\nlisten = ':9464'", "must be host:port, such as"),
        ("[metrics]\nlisten = '127.0.0.1:65536'", "must be host:port, such as"),
        ("[metrics]\nlisten = 'http://127.0.0.1:9464'", "must be host:port, such as"),
        ("[evidence]\norigin = 'Archive'", 'evidence.origin = "Archive": must be a name of at most 100'),
        ("[evidence]\norigin = '-a'", "that begins with a letter or digit"),
        (f"[evidence]\norigin = '{'a' * 101}'", "must be a name of at most 100"),
        ('[evidence]\norigin = "a\\n"', r'evidence.origin = "a\n": must be a name'),
        ("[evidence]\norigin = 'a b'", "must be a name of at most 100"),
        ("[evidence]\ninterval = '999ms'", 'evidence.interval = "999ms": must be at least "1s"'),
        ("[evidence]\npatience = 'long'", 'evidence.patience = "long": must be a number and a unit of time'),
        ("[evidence]\nadopt_per_minute = -1", "evidence.adopt_per_minute = -1: must be a whole number from 0 to 1000000"),
        ("[evidence]\nadopt_per_minute = 1000001", "must be a whole number from 0 to 1000000"),
        (f"[evidence]\ntrusted = ['SHA256:{'a' * 42}']", "evidence.trusted: must be fingerprints as `ssh-keygen -l`"),
        (
            f"[evidence]\ntrusted = ['{'MD5:' + 'a' * 43}']",
            'must be fingerprints as `ssh-keygen -l` writes them, "SHA256:" and 43',
        ),
        ("[evidence]\nkey_files = ''", "unknown key evidence.key_files; did you mean key_file?"),
        ("x = ", "not valid TOML"),
        ("a = 1\na = 2", "not valid TOML"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_key_and_value(loaded: Load, text: str, told: str) -> None:
    assert told in refused(loaded, text)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("", None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        ("a.internal:80", ("a.internal", 80)),
    ],
)
def test_metrics_are_served_where_it_says(loaded: Load, listen: str, address: tuple[str, int] | None) -> None:
    assert loaded(f"[metrics]\nlisten = '{listen}'").metrics.address == address


def test_every_mistake_is_told_at_once(loaded: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("[worker]\nconcurrency = 0\nnope = 1\n[log]\nlevel = 'loud'")
    lines = caught.value.message.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("  ") for line in lines[1:])


def test_an_enormous_value_is_told_in_part(loaded: Load) -> None:
    assert len(refused(loaded, f"[log]\nlevel = '{'x' * 100_000}'")) < 600


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load(tmp_path / "missing.toml", {})
    assert "archiver init" in caught.value.hint


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archiver.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        load(path, {})


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "archiver.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BOT.encode())
    assert load(path, {}).bots[0].name == "a"


@pytest.mark.parametrize(
    "host",
    [
        "http://platform.kore.ai",
        "http://127.0.0.1.nip.io",
        "http://2130706433",
        "platform.kore.ai",
        "ftp://platform.kore.ai",
        "https://",
        "https://u:p@platform.kore.ai",
        "https://:p@platform.kore.ai",
        "https://platform.kore.ai?",
        "https://platform.kore.ai?a=b",
        "https://platform.kore.ai/#",
        "https://platform.kore.ai:99999",
        "https://platform.kore.ai:port",
        "https://plat form.kore.ai",
        "https://platform.kore.ai\\n",
        "https://plätform.kore.ai",
        "https://platform..kore.ai",
        f"https://{'a' * 64}.kore.ai",
    ],
)
def test_a_host_that_is_no_safe_origin_is_refused(loaded: Load, host: str) -> None:
    assert "bots[0].host = " in refused(loaded, BOT + f'host = "{host}"')


@pytest.mark.parametrize(
    "host", ["https://platform.kore.ai", "https://h:8443/kore/", "http://localhost:1", "http://[::1]:80", "http://127.0.0.9"]
)
def test_an_origin_is_kept_without_its_last_slash(loaded: Load, host: str) -> None:
    assert loaded(BOT + f'host = "{host}"').bots[0].host == host.rstrip("/")


@pytest.mark.parametrize("section", ["s3", "azure"])
def test_a_bucket_may_be_reached_over_plain_http_here_or_where_somebody_says_so(loaded: Load, section: str) -> None:
    more = "account = 'calls'\naccount_key = 'Particular-9'" if section == "azure" else ""
    for allowed, endpoint in (("true", "http://minio:9000"), ("false", "http://127.0.0.1:9000"), ("false", "http://[::1]:9000")):
        text = (
            f"[storage]\nurl = '{section[:2]}://bucket'\nallow_http = {allowed}\n[storage.{section}]\nendpoint = '{endpoint}'\n"
        )
        assert getattr(loaded(BOT + text + more).storage, section).endpoint == endpoint


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("2KB", 2000),
        ("2KiB", 2048),
        ("1.5MiB", 1572864),
        (" 3 GB ", 3 * 10**9),
        ("1GiB", 2**30),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_limits_that_are_empty_or_zero_are_none(loaded: Load) -> None:
    for none in ('""', "0", '"0MiB"'):
        terms = loaded(f"[transfer]\nmax_bandwidth = {none}\nmin_rate = {none}").transfer
        assert (terms.max_bandwidth, terms.min_rate) == (None, None)


# --- secrets


def test_a_secret_file_is_read_without_its_line_end_or_byte_order_mark(loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "kore").write_bytes(b"\xef\xbb\xbfs3cret-of-file\r\n")
    bot = loaded(BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "kore"')).bots[0]
    assert bot.signing_key() == "s3cret-of-file"
    assert "s3cret" not in redact("said s3cret-of-file")


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "must be a text file")]
)
@pytest.mark.parametrize("key", ["client_secret_file", "private_key_file"])
def test_a_secret_file_that_holds_no_secret_is_named(
    loaded: Load, tmp_path: Path, key: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "kore").write_bytes(content)
    algorithm = "RS256" if key == "private_key_file" else "HS256"
    text = BOT.replace(f'client_secret = "{SECRET}"', f'{key} = "kore"\nalgorithm = "{algorithm}"')
    message = refused(loaded, text)
    assert message.startswith(f"bots.a.{key}: ")
    assert str(tmp_path if content is None else tmp_path / "kore") in message
    assert told in message


def test_a_secret_file_with_nul_in_its_name_is_refused(loaded: Load) -> None:
    assert "must be a text file" in refused(
        loaded, BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "a\\u0000b"')
    )


def test_no_secret_is_in_any_representation_of_the_settings(loaded: Load) -> None:
    settings = loaded(
        BOT + f'[database]\nurl = "postgresql://u:{quote(SECRET, safe="")}@h/d"\n[storage]\nurl = "s3://bucket"\n'
        f'[storage.s3]\naccess_key_id = "AKIA"\nsecret_access_key = "{SECRET}"\nsession_token = "{SECRET}"'
    )
    azure = loaded(f'[storage]\nurl = "az://audit"\n[storage.azure]\naccount = "calls"\nsas_token = "sig={SECRET}"')
    assert azure.storage.azure.sas() == f"sig={SECRET}"
    for text in (repr(settings), str(settings), f"{settings.bots}", repr(settings.database), repr(azure)):
        assert SECRET not in text
        assert quote(SECRET, safe="") not in text
    assert settings.bots[0].client_secret == SecretStr(SECRET)


def test_a_loaded_secret_is_masked_from_then_on(loaded: Load) -> None:
    loaded(
        BOT.replace(SECRET, "quite-particular-1")
        + '[database]\nurl = "postgresql://u:partic%40lar-2@h/d?sslpassword=particular3"'
    )
    for secret in ("quite-particular-1", "partic@lar-2", "partic%40lar-2", "particular3"):
        assert redact(f"<{secret}>") == "<[redacted]>"


def test_no_secret_is_in_pydantics_own_error() -> None:
    with pytest.raises(ValueError) as caught:
        DatabaseSettings(url=SecretStr(f"mysql://u:{SECRET}@h"))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


# --- the environment


def test_the_environment_overrides_the_file(loaded: Load) -> None:
    settings = loaded(
        BOT + "[worker]\nconcurrency = 2",
        ARCHIVER_WORKER__CONCURRENCY="32",
        ARCHIVER_BOTS__0__CLIENT_ID="cs-9",
        ARCHIVER_BOTS__0__RATE_LIMITS="5/second, 9/hour",
        ARCHIVER_BOTS__0__MEDIA_HOSTS__0="media.example",
        ARCHIVER_STORAGE__URL="s3://recordings/of calls/",
        ARCHIVER_STORAGE__S3__PATH_STYLE="true",
        ARCHIVER_STORAGE__S3__TAGS="team=audit, kind=call",
        ARCHIVER_STORAGE__S3__PART_SIZE="16MiB",
        ARCHIVER_RETRY__NOT_READY_DELAYS="1s,2m",
    )
    bot = settings.bots[0]
    assert settings.worker.concurrency == 32
    assert (bot.client_id, bot.media_hosts) == ("cs-9", ("media.example",))
    assert bot.rate_limits == (RateLimit(timedelta(seconds=1), 5), RateLimit(timedelta(hours=1), 9))
    assert (settings.storage.bucket, settings.storage.prefix) == ("recordings", "of calls/")
    assert settings.storage.s3.path_style is True
    assert settings.storage.s3.tags == (("team", "audit"), ("kind", "call"))
    assert settings.storage.s3.part_size == 16 * 2**20
    assert settings.retry.not_ready_delays == (timedelta(seconds=1), timedelta(minutes=2))


def test_more_than_ten_bots_can_come_from_the_environment_alone(loaded: Load) -> None:
    keys = {"NAME": "bot-{}", "BOT_ID": "st-{}", "CLIENT_ID": "cs-{}", "CLIENT_SECRET": "secret-number-{}"}
    environment = {f"ARCHIVER_BOTS__{n}__{key}": value.format(n) for n in range(12) for key, value in keys.items()}
    settings = loaded("", **environment)
    assert [bot.name for bot in settings.bots] == [f"bot-{n}" for n in range(12)]


def test_an_empty_variable_takes_a_secret_file_away(loaded: Load) -> None:
    bot = loaded(
        BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "/run/secrets/none"'),
        ARCHIVER_BOTS__0__CLIENT_SECRET_FILE="",
        ARCHIVER_BOTS__0__CLIENT_SECRET="from-outside",
    ).bots[0]
    assert bot.signing_key() == "from-outside"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("ARCHIVER_WORKER__CONCURENCY", "unknown key worker.concurency (from {}); did you mean concurrency?"),
        ("ARCHIVER_WROKER__CONCURRENCY", "unknown key wroker (from {}); did you mean worker?"),
        ("ARCHIVER___X", "(from {})"),
        ("ARCHIVER_WORKER__", "(from {})"),
        ("ARCHIVER_WORKER__CONCURRENCY", 'worker.concurrency = "" (from {}): must be a whole number from 1 to 1000'),
        ("ARCHIVER_WORKER__LEASE_SECONDS__X", "{}: must name a key; worker.lease_seconds.x is below one that has a plain value"),
        ("ARCHIVER_BOTS__X__NAME", '{}: must have a number from 0 to 1 in place of "X"'),
        ("ARCHIVER_BOTS__²__NAME", "{}: must have a number from 0 to 1"),
        ("ARCHIVER_BOTS__7__NAME", "{}: must have a number from 0 to 1"),
        ("ARCHIVER_BOTS__0__CLIENT_SECRET__X", "{}: must name a key; bots.0.client_secret.x is below one that has a plain value"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(loaded: Load, variable: str, told: str) -> None:
    text = BOT + "[worker]\nlease_seconds = 60"
    assert told.format(variable) in refused(loaded, text, **{variable: ""})


def test_a_wrong_secret_from_the_environment_is_not_told(loaded: Load) -> None:
    message = refused(loaded, "", ARCHIVER_DATABASE__URL=f"mysql://u:{SECRET}@h/d")
    assert "database.url (from ARCHIVER_DATABASE__URL): " in message


def test_names_without_two_underscores_are_not_ours(loaded: Load) -> None:
    settings = loaded(
        BOT, ARCHIVER_PORT="tcp://10.0.0.1:80", ARCHIVER_SERVICE_HOST="10.0.0.1", ARCHIVER_WORKER="x", OTHER__KEY="x"
    )
    assert settings == loaded(BOT)


def test_the_configuration_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.toml"
    path.write_text(BOT, encoding="utf-8")
    assert load(None, {"ARCHIVER_CONFIG": str(path)}).source == str(path)


# --- the ledger's key


def test_the_key_that_seals_is_no_part_of_the_configuration(loaded: Load, tmp_path: Path) -> None:
    """It may be missing, or be no key: archiving goes on."""
    settings = loaded(BOT + "[evidence]\nkey_file = 'evidence.key'\ninterval = '1s'")
    assert settings.evidence.key_file == tmp_path / "evidence.key"
    assert settings.evidence.interval == timedelta(seconds=1)
    assert list(secret_files(settings)).count(("key_file", tmp_path / "evidence.key")) == 1
    assert loaded(BOT, ARCHIVER_EVIDENCE__KEY_FILE="/run/secrets/key").evidence.key_file == Path("/run/secrets/key")
    none = loaded("[evidence]\nkey_file = 'evidence.key'", ARCHIVER_EVIDENCE__KEY_FILE="")
    assert none.evidence.key_file is None
    assert "key_file" not in [key for key, _ in secret_files(none)]
    refused(loaded, f"[evidence]\nkey_file = ['{SECRET}']")


def test_trusted_keys_are_a_list(loaded: Load) -> None:
    one, other = f"SHA256:{'a' * 42}A", f"SHA256:{'+/' * 21}8"
    assert loaded(f"[evidence]\ntrusted = ['{one}', '{other}']").evidence.trusted == (one, other)
    assert loaded("", ARCHIVER_EVIDENCE__TRUSTED=f"{one}, {other}").evidence.trusted == (one, other)


# --- paths


def test_relative_paths_are_taken_from_the_file_that_names_them(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "kore").write_text("of the file", encoding="utf-8")
    (here / "kore").write_text("of the environment", encoding="utf-8")
    text = BOT.replace(f'client_secret = "{SECRET}"', 'client_secret_file = "kore"')
    text += '[database]\nurl = "embedded:pg"\n[storage]\nurl = "s3://bucket"\n[storage.s3]\naccess_key_id = "AKIA"\n'
    text += 'secret_access_key_file = "s3"\ntags = {team = "audit"}'
    (tmp_path / "s3").write_text("of the S3 file\n")
    settings = loaded(text)
    assert settings.bots[0].signing_key() == "of the file"
    assert settings.database.embedded_path == tmp_path / "pg"
    assert settings.storage.s3.secret_access_key_file == tmp_path / "s3"
    assert settings.storage.s3.secret_key() == "of the S3 file"
    assert redact("<of the S3 file>") == "<[redacted]>"
    assert (settings.storage.bucket, settings.storage.prefix) == ("bucket", "")
    assert settings.storage.s3.tags == (("team", "audit"),)
    (tmp_path / "az").write_text("?sig=of%20the%20SAS%20file\n")
    azure = loaded('[storage]\nurl = "az://audit/x"\n[storage.azure]\naccount = "calls"\nsas_token_file = "az"').storage
    assert azure.azure.sas() == "sig=of%20the%20SAS%20file"
    assert redact("<of the SAS file>") == "<[redacted]>"
    assert (azure.bucket, azure.prefix, azure.azure.blobs) == ("audit", "x/", "https://calls.blob.core.windows.net")
    other = loaded(text, ARCHIVER_BOTS__0__CLIENT_SECRET_FILE="kore", ARCHIVER_DATABASE__URL="embedded:pg")
    assert other.bots[0].signing_key() == "of the environment"
    assert other.database.embedded_path == here / "pg"


def test_the_home_of_nobody_is_a_path_like_any_other(loaded: Load, tmp_path: Path) -> None:
    settings = loaded('[database]\nurl = "embedded:~no-such-user/pg"')
    assert settings.database.embedded_path == tmp_path / "~no-such-user/pg"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "{session_id}/{kind}",
        "{session_id}/{file_name}",
        "{kind}/{file_name}",
        "{file_name}/{session_id}/{kind}",
        "{session_id}/{kind}/{file_name}/{file_name}",
        "/{session_id}/{kind}/{file_name}",
        "../{session_id}/{kind}/{file_name}",
        "a/../{session_id}/{kind}/{file_name}",
        "./{session_id}/{kind}/{file_name}",
        "a//{session_id}/{kind}/{file_name}",
        "{session_id}/{kind}/{file_name}/",
        ".hidden/{session_id}/{kind}/{file_name}",
        "quarantine/{session_id}/{kind}/{file_name}",
        "Quarantine/{session_id}/{kind}/{file_name}",
        "evidence/{session_id}/{kind}/{file_name}",
        "EVIDENCE/{session_id}/{kind}/{file_name}",
        "CON/{session_id}/{kind}/{file_name}",
        "aux.d/{session_id}/{kind}/{file_name}",
        "a:b/{session_id}/{kind}/{file_name}",
        "a\\b/{session_id}/{kind}/{file_name}",
        "a./{session_id}/{kind}/{file_name}",
        "{date:%H:%M}/{session_id}/{kind}/{file_name}",
        "{date:../%Y}/{session_id}/{kind}/{file_name}",
        "{session_id}/{kind}/{{file_name}}",
        "{session_id!r}/{kind}/{file_name}",
        "{session_id:>400}/{kind}/{file_name}",
        "{session_id.x}/{kind}/{file_name}",
        "{session_id[0]}/{kind}/{file_name}",
        "{date:{bot}}/{session_id}/{kind}/{file_name}",
        "{}/{session_id}/{kind}/{file_name}",
        "{tenant}/{session_id}/{kind}/{file_name}",
        "{session_id}/{kind}/{file_name",
    ],
)
def test_a_path_under_which_files_could_meet_or_escape_is_refused(loaded: Load, path: str) -> None:
    assert f"storage.path = {json.dumps(path)}: must " in refused(loaded, f"[storage]\npath = '{path}'")


def test_several_bots_need_the_bot_in_the_path(loaded: Load) -> None:
    path = "[storage]\npath = '{session_id}/{kind}/{file_name}'"
    assert loaded(BOT + path).storage.path.text
    assert "must contain {bot} with several bots" in refused(loaded, BOT + BOT.replace('"a"', '"b"') + path)


def test_two_sessions_never_meet_in_one_key_whatever_the_template() -> None:
    date = datetime(2024, 5, 3, tzinfo=UTC)
    parts = ["a", "a-b", "a-recording", "b", "a-b-recording", "a_b", "a.b", "-", "recording"]
    for text in ("{session_id}-{kind}-{file_name}", "{bot}-{session_id}/{kind}/{file_name}", "{kind}_{session_id}_{file_name}"):
        template = PathTemplate(text)
        keys = {
            template.render(bot=bot, date=date, session_id=session_id, kind=kind, file_name=f"{name}.wav")
            for bot in (["x", "x-a", "x-a-b"] if "{bot}" in text else ["x"])
            for session_id in parts
            for kind in ("recording", "voicemail")
            for name in parts
        }
        assert len(keys) == (3 if "{bot}" in text else 1) * len(parts) * 2 * len(parts), text
    usual = PathTemplate("{kind}_{session_id}_{file_name}").render(
        bot="x", date=date, session_id="65e7133a3242653c58d70001", kind="recording", file_name="f.wav"
    )
    assert usual == "recording_65e7133a3242653c58d70001_f.wav"


def test_a_session_id_needs_an_end() -> None:
    for text in ("{session_id}{kind}/{file_name}", "{session_id}0{kind}/{file_name}"):
        with pytest.raises(ValueError, match="must have a character between"):
            PathTemplate(text)


@pytest.mark.parametrize("session_id", ["..", ".", "CON", "nul.x", "com1", "a:b", "a.", "a..", ".a", ":", "-", "_", "a" * 200])
def test_a_session_id_is_one_safe_part_of_a_path(session_id: str) -> None:
    template = PathTemplate("{date}/{bot}/{session_id}/{kind}/{file_name}")
    date = datetime(2024, 5, 3, 23, 30, tzinfo=UTC)
    key = template.render(bot="b", date=date, session_id=session_id, kind="recording", file_name="f.wav")
    parts = key.split("/")
    assert (parts[:2], parts[3:]) == (["2024-05-03", "b"], ["recording", "f.wav"])
    assert parts[2] not in ("", ".", "..")
    assert re.fullmatch(r"[A-Za-z0-9_%~-][A-Za-z0-9._%~-]*", parts[2])
    assert not parts[2].endswith(".")
    assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", parts[2])


@pytest.mark.parametrize(
    "name",
    ["quarantine", "Quarantine", "evidence", "Evidence", ".quarantine", "..", ".session-1.worker-2.epoch-3.part", "-", "~"],
)
@pytest.mark.parametrize("text", ["{session_id}/{kind}/{file_name}", "{bot}/{session_id}/{kind}/{file_name}"])
def test_no_name_of_a_bot_or_a_session_takes_the_archivers_own_places(text: str, name: str) -> None:
    date = datetime(2024, 5, 3, tzinfo=UTC)
    key = PathTemplate(text).render(bot=name, date=date, session_id=name, kind="recording", file_name="f.wav")
    parts = key.split("/")
    assert parts[0].casefold() not in ("quarantine", "evidence")
    assert not any(part.startswith(".") for part in parts)


IDS = st.text("abCcOoNnUuLl019.:_-", min_size=1, max_size=12)


@given(IDS, IDS)
@example("a:", "a.")
@example("CON", "con")
def test_two_session_ids_are_never_one_part(one: str, other: str) -> None:
    assert (path_part(one) == path_part(other)) == (one == other)


# --- values


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), (" 1.5 m ", 90), ("24h", 86400), ("7d", 604800), (3, 3), (0.25, 0.25)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "1 w", "1e9s", "-1s", "9" * 400 + "s", "1m30s", None, []])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match=r"must be (a number and a unit|at most)"):
        parse_duration(text)


def test_rate_limits_are_kept_shortest_window_first(loaded: Load) -> None:
    limits = loaded(BOT + "rate_limits = ['9000/day', '1800/hour', '5/second']").bots[0].rate_limits or ()
    assert [limit.calls for limit in limits] == [5, 1800, 9000]


# --- budgets


def of_bots(loaded: Load, *changes: dict[str, Any]) -> tuple[BotSettings, ...]:
    """Bots "a", "b" and so on, with these keys besides."""
    blocks = []
    for name, change in zip("abc", changes, strict=False):
        keys = {"name": name, "bot_id": f"st-{name}", "client_id": "cs-1", "client_secret": SECRET} | change
        blocks.append("[[bots]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
    return loaded("\n".join(blocks)).bots


A = {"account_id": "a-1"}


@pytest.mark.parametrize(
    ("changes", "key", "limits", "source"),
    [
        ([{}], "st-a", ["60/minute"], "default"),
        ([A, A], "account a-1", ["60/minute"], "default"),
        ([{"rate_limits": ["9/minute", "99/hour"]}], "st-a", ["9/minute", "99/hour"], "rate_limits of bot a"),
        ([{"account_rate_limits": ["600/minute"]}], "st-a|recordings", ["600/minute"], "account_rate_limits of bot a"),
        (
            [A | {"rate_limits": ["9/second", "99/hour"]}, A, A | {"rate_limits": ["7/day", "100/hour"]}],
            "account a-1",
            ["9/second", "99/hour", "7/day"],
            "the tightest rate_limits of bots a, c",
        ),
        (
            [A | {"rate_limits": ["5/minute"]}, A | {"account_rate_limits": ["600/minute"]}],
            "account a-1",
            ["600/minute"],
            "account_rate_limits of bot b",
        ),
        (
            [A | {"account_rate_limits": ["70/hour", "7/minute"]}, A | {"account_rate_limits": ["7/minute", "70/hour"]}],
            "account a-1",
            ["7/minute", "70/hour"],
            "account_rate_limits of bots a, b",
        ),
        ([A | {"account_rate_limits": []}], "account a-1", [], "account_rate_limits of bot a"),
    ],
)
def test_what_an_account_may_follows_from_what_its_bots_write(
    loaded: Load, changes: list[dict[str, Any]], key: str, limits: list[str], source: str
) -> None:
    budget = account_budgets(of_bots(loaded, *changes))["a"]
    assert (budget.key, budget.written_limits, budget.source) == (f"https://platform.kore.ai|{key}", limits, source)
    assert budget.bots == tuple("abc"[: len(changes)])


def test_bots_share_an_accounts_budget_on_one_host_and_have_the_sessions_history_for_themselves(loaded: Load) -> None:
    bots = of_bots(loaded, A | {"host": "https://PLATFORM.kore.ai"}, A, A | {"host": "https://eu.kore.ai"})
    found = account_budgets(bots)
    assert found["a"] == found["b"] != found["c"]
    assert [budget.written_limits for budget in sessions_budgets(bots).values()] == [["60/minute", "1800/hour"]] * 3
    assert [budget.key for budget in sessions_budgets(bots).values()] == [bot.budget_key for bot in bots]
    assert [budget.bots for budget in all_budgets(bots)] == [("a", "b"), ("c",), ("a",), ("b",), ("c",)]


@pytest.mark.parametrize("one", [A, {"bot_id": "st-same"}], ids=["account", "bot"])
def test_bots_of_one_account_that_contradict_each_other_are_refused(loaded: Load, one: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        of_bots(
            loaded,
            one,
            one | {"account_rate_limits": ["60/minute"]},
            one | {"account_rate_limits": ["60/minute", "1800/hour"], "host": "https://Platform.kore.ai"},
        )
    message = caught.value.message
    for word in ('"b"', '"c"', *one.values(), "account_rate_limits", '["60/minute"]', '["60/minute", "1800/hour"]'):
        assert word in message


@pytest.mark.parametrize("other", [{}, {"account_id": "a-2"}], ids=["none", "another"])
def test_one_bot_is_not_of_two_accounts(loaded: Load, other: dict[str, Any]) -> None:
    """Each would have a budget, and the platform counts both together."""
    with pytest.raises(ConfigError) as caught:
        of_bots(loaded, A | {"bot_id": "st-same"}, {"bot_id": "st-same"} | other)
    for word in ('"a"', '"b"', "st-same", "account_id", '"a-1"'):
        assert word in caught.value.message


def test_limits_can_be_taken_away_by_the_environment(loaded: Load) -> None:
    written = BOT + "rate_limits = ['5/minute']\naccount_rate_limits = ['6/minute']"
    keys = {"ARCHIVER_BOTS__0__RATE_LIMITS": "", "ARCHIVER_BOTS__0__ACCOUNT_RATE_LIMITS": ""}
    assert [budget.source for budget in all_budgets(loaded(written, **keys).bots)] == ["default", "default"]


def test_an_unknown_bot_is_told_with_those_there_are(loaded: Load) -> None:
    with pytest.raises(ConfigError, match='unknown bot "z"') as caught:
        loaded(BOT).bot("z")
    assert "a" in caught.value.hint
