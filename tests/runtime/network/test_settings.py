"""The section [network], and what `doctor` says of it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from archiver.config import Settings, load, secret_files
from archiver.errors import ConfigError
from archiver.health.checks import check_network
from archiver.health.findings import Finding
from archiver.observe.redact import redact
from archiver.runtime.network import Network
from tests.runtime.network.conftest import Authority

PASSWORD = "Open-Sesame-77"

BOT = '[[bots]]\nname = "a"\nbot_id = "st-1"\nclient_id = "cs-1"\nclient_secret = "the-secret-of-this-app"\n'


def loaded(folder: Path, text: str, **environment: str) -> Settings:
    path = folder / "archiver.toml"
    path.write_text(f"[network]\n{text}\n{BOT}")
    return load(path, environment)


@pytest.mark.parametrize(
    "url",
    [
        "proxy.test:3128",
        "http://proxy.test",
        "http://proxy.test:0",
        "http://proxy.test:65536",
        "http://proxy..test:3128",
        "socks5://proxy.test:1080",
        f"http://user:{PASSWORD}@proxy.test",
        f"http://user:{PASSWORD}/x@proxy.test:3128",
        f"http://user:{PASSWORD}@proxy.test:3128/path",
        f"http://user:{PASSWORD}@@proxy.test:3128",
        f"user:{PASSWORD}@proxy.test:3128",
    ],
)
@pytest.mark.parametrize("variable", ["", "ARCHIVER_NETWORK__PROXY", "HTTPS_PROXY"])
def test_what_is_no_proxys_url_is_refused_and_its_password_not_told(tmp_path: Path, url: str, variable: str) -> None:
    if variable == "HTTPS_PROXY" and "://" not in url:
        return  # there it is taken for http, as all others take it
    environment = {variable: url} if variable else {}
    with pytest.raises(ConfigError) as caught:
        Network.of(loaded(tmp_path, "" if variable else f'proxy = "{url}"', **environment).network, environment)
    told = "".join(traceback.format_exception(caught.value)) + repr((caught.value, caught.value.facts))
    assert PASSWORD not in told
    assert (variable or "network.proxy") in caught.value.message
    assert 'a host and a port, such as "http://proxy.example:3128"' in caught.value.message
    assert "[redacted]" not in redact(caught.value.message), "its example is shown as it is to be written"
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_bundle_that_is_none_is_a_mistake_of_configuration(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'ca_bundle = "ca.pem"')
    assert caught.value.message.startswith(f'network.ca_bundle = "{file}": must ')
    assert "PEM" in caught.value.hint


def test_a_bundle_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"network\.ca_bundle = .*: must be a file"):
        loaded(tmp_path, 'ca_bundle = "ca.pem"')


def test_a_bundle_lies_beside_the_file_that_names_it(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.file.read_bytes())
    assert loaded(tmp_path, 'ca_bundle = "ca.pem"').network.ca_bundle == tmp_path / "ca.pem"
    assert loaded(tmp_path, 'ca_bundle = "ca.pem"', ARCHIVER_NETWORK__CA_BUNDLE="").network.ca_bundle is None


def test_a_file_with_the_proxys_password_holds_a_secret(tmp_path: Path) -> None:
    settings = loaded(tmp_path, f'proxy = "http://user:{PASSWORD}@proxy.test:3128"')
    assert next(iter(secret_files(settings)))[0] == "proxy, client_secret"
    assert PASSWORD not in repr(settings)


def found(folder: Path, text: str, environment: dict[str, str], hosts: str = "") -> dict[str, Finding]:
    settings = loaded(folder, text, ARCHIVER_BOTS__0__MEDIA_HOSTS=hosts or "*.kore.ai")
    return {finding.check: finding for finding in check_network(settings, environment)}


def test_doctor_says_which_way_out_there_is_and_what_cannot_be_checked_there(tmp_path: Path, authority: Authority) -> None:
    assert found(tmp_path, "", {}) == {}
    keys = f'proxy = "http://user:{PASSWORD}@proxy.test:3128"\nca_bundle = "{authority.file}"'
    of_keys = found(tmp_path, keys, {"HTTPS_PROXY": "http://other.test:1", "no_proxy": "x", "HTTP_PROXY": "http://other.test:1"})
    assert {check: finding.verdict for check, finding in of_keys.items()} == {
        "network: proxy": "ok",
        "network: authorities": "ok",
        "environment: HTTPS_PROXY": "ok",
        "environment: no_proxy": "ok",
        "environment: HTTP_PROXY": "ok",
    }
    message = of_keys["network: proxy"].message
    assert message.startswith("connections go through http://proxy.test:3128 (network.proxy); ")
    assert "addresses of media hosts cannot be checked" in message
    assert str(authority.file) in of_keys["network: authorities"].message
    assert all("is set but not used" in finding.message for check, finding in of_keys.items() if check.startswith("env"))
    (of_any,) = found(tmp_path, "", {"https_proxy": "http://proxy.test:3128"}, hosts="*").values()
    assert of_any.verdict == "warning"
    assert "(https_proxy)" in of_any.message
    assert "media_hosts of a" in of_any.hint


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("HTTP_PROXY", "HTTPS_PROXY"),
        ("all_proxy", "HTTPS_PROXY"),
        ("REQUESTS_CA_BUNDLE", "network.ca_bundle"),
        ("AWS_CA_BUNDLE", "network.ca_bundle"),
    ],
)
def test_doctor_warns_of_what_the_environment_names_in_vain(tmp_path: Path, name: str, word: str) -> None:
    (finding,) = found(tmp_path, "", {name: "http://proxy.test:3128"}).values()
    assert (finding.check, finding.verdict) == (f"environment: {name}", "warning")
    assert word in finding.message
    assert word in finding.hint
