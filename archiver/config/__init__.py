"""Settings: TOML, environment and secret files, validated once, every mistake reported together.

Precedence: environment over file over defaults. A key `worker.concurrency` is `ARCHIVER_WORKER__CONCURRENCY` in the
environment; a list is indexed (`ARCHIVER_BOTS__0__CLIENT_SECRET`), or given whole, comma-separated, for lists of strings.
Only names with `__` are read as keys, so that what Kubernetes injects for a service called "archiver" does no harm.
Relative paths are taken from the folder of the file that names them, else from the working directory.

`config.example.toml` shows every key with its default; a test holds both together.
"""

from archiver.config.bots import Algorithm, BotSettings
from archiver.config.budgets import Budget, account_budgets, all_budgets, sessions_budgets
from archiver.config.evidence import EvidenceSettings
from archiver.config.loading import ENVIRONMENT_PREFIX, FILE_NAME, Loaded, find_file, load, read, secret_files, unusable_files
from archiver.config.network import NetworkSettings, Proxy, environment_names
from archiver.config.notify import EVENTS, NotifySettings
from archiver.config.settings import (
    CALL_FACTS,
    DatabaseSettings,
    DiscoverySettings,
    LogSettings,
    MetricsSettings,
    RetrySettings,
    Settings,
    TransferSettings,
    WorkerSettings,
)
from archiver.config.storage import IN_THE_OPEN, AzureSettings, S3Settings, StorageSettings
from archiver.config.values import RateLimit, crosses_openly, is_loopback, parse_duration, parse_size

__all__ = [
    "CALL_FACTS", "ENVIRONMENT_PREFIX", "EVENTS", "FILE_NAME", "IN_THE_OPEN", "Algorithm", "AzureSettings", "BotSettings",
    "Budget", "DatabaseSettings", "DiscoverySettings", "EvidenceSettings", "Loaded", "LogSettings", "MetricsSettings",
    "NetworkSettings", "NotifySettings", "Proxy", "RateLimit", "RetrySettings", "S3Settings", "Settings", "StorageSettings",
    "TransferSettings", "WorkerSettings", "account_budgets", "all_budgets", "crosses_openly", "environment_names", "find_file",
    "is_loopback", "load", "parse_duration", "parse_size", "read", "secret_files", "sessions_budgets", "unusable_files",
]  # fmt: skip
