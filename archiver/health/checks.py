"""The checks of `doctor` that concern this machine, its configuration and its database: each says what it found and, if something
is wrong, what to do.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
import time
from collections.abc import Mapping

from archiver.config import Settings, environment_names, secret_files
from archiver.errors import ArchiverError
from archiver.health.findings import Finding, of_error
from archiver.postgres.database import ISOLATION, Database
from archiver.postgres.schema import check_version
from archiver.queue.deadlines import HINT, read_deadlines
from archiver.queue.findings import NEXT_FOR_DAMAGED, Findings
from archiver.runtime.network import UNCHECKED, Network
from archiver.runtime.open_files import RAISE_FILES, files_allowed, files_needed, fitting_concurrency


def check_configuration(settings: Settings) -> list[Finding]:
    """What is valid and yet cannot be meant."""
    found = []
    if not settings.bots:
        found.append(Finding("configuration", "failure", "no bot is configured", "add a [[bots]] block; `archiver init` has one"))
    for bot in settings.bots:
        placeholders = [
            key
            for key, value in (
                ("bot_id", bot.bot_id),
                ("client_id", bot.client_id),
                ("client_secret", bot.client_secret.get_secret_value()),
            )
            if value.endswith("...")
        ]
        if placeholders:
            found.append(
                Finding(
                    "configuration",
                    "failure",
                    f"bot {bot.name} still has the example's {', '.join(placeholders)}",
                    "take them from the app's settings on the platform",
                )
            )
    return found or [Finding("configuration", "ok", f"{settings.source}, {len(settings.bots)} bot(s)")]


def check_secret_files(settings: Settings) -> list[Finding]:
    """Files with secrets that others than their owner can read. Orchestrators mount them so: never a failure."""
    found = []
    for what, file in secret_files(settings):
        try:
            seen, fixed = file.stat(), bool(os.statvfs(file).f_flag & os.ST_RDONLY)
        except OSError:
            continue  # whoever needs it says so
        readers = "everybody" if seen.st_mode & 0o004 else "its group" if seen.st_mode & 0o040 else ""
        if not readers:
            continue
        name = shlex.quote(str(file))
        if fixed:
            # Compose mounts the host's file as it is, and ignores `uid` and `mode`; Kubernetes gives it to root and the group.
            compose, kubernetes = f"chown {os.geteuid()} and chmod 400 it there", "`defaultMode: 0400` with the pod's `fsGroup`"
            hint = f"where it is mounted from: in Compose, {compose}; in Kubernetes, {kubernetes}"
        elif os.geteuid() in (0, seen.st_uid):
            hint = f"chmod 600 {name}"
        else:
            hint = f"as root: chown {os.geteuid()} {name} && chmod 400 {name}"
        found.append(Finding(f"secret file {file}", "warning", f"{readers} can read it ({what})", hint))
    return found


def check_host(settings: Settings) -> list[Finding]:
    """What this machine lets a process have: open files, and the encoding of what is printed."""
    found = []
    wanted, bots, allowed = settings.worker.concurrency, len(settings.bots), files_allowed()
    fitting, needed = fitting_concurrency(wanted, bots), files_needed(wanted, bots)
    if not fitting:
        message = f"a process may have {allowed} open, and a worker needs {files_needed(1, bots)} at least"
        found.append(Finding("open files", "failure", message, RAISE_FILES))
    elif fitting < wanted:
        message = f"a process may have {allowed} open, and worker.concurrency = {wanted} needs {needed}: it will be {fitting}"
        found.append(Finding("open files", "warning", message, RAISE_FILES))
    encoding = sys.stdout.encoding.lower()
    if encoding not in ("utf-8", "utf8"):
        message = f"what is printed is in {encoding}, and in escapes what that lacks; files have their names all the same"
        found.append(Finding("locale", "warning", message, "set LANG=C.UTF-8, or another locale of UTF-8"))
    return found


def check_network(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Proxy and certificate authorities, and each environment variable about them that is not used. Raises ConfigError."""
    proxy, bundle, found = Network.of(settings.network, environment).proxy, settings.network.ca_bundle, []
    if proxy is not None:
        message = f"connections go through {proxy.url} ({proxy.named_by}); {UNCHECKED}"
        if any_host := [bot.name for bot in settings.bots if "*" in bot.media_hosts]:
            hint = (
                f'name the hosts in media_hosts of {", ".join(any_host)}: with "*" the proxy resolves any name, internal ones too'
            )
            found.append(Finding("network: proxy", "warning", message, hint))
        else:
            found.append(Finding("network: proxy", "ok", message))
    if bundle is not None:
        found.append(Finding("network: authorities", "ok", f"the system's certificate authorities, and those in {bundle}"))
    unused = {"HTTP_PROXY": "HTTPS_PROXY", "ALL_PROXY": "HTTPS_PROXY"}
    if proxy is not None:
        unused = dict.fromkeys(unused, proxy.named_by)
    if proxy is not None and not proxy.from_environment:
        unused |= dict.fromkeys(("HTTPS_PROXY", "NO_PROXY"), "network.proxy, to which NO_PROXY does not apply")
    hint = "" if proxy is not None else "set network.proxy, or HTTPS_PROXY"
    for name in environment_names(*unused):
        if environment.get(name):
            message = f"is set but not used; what counts is {unused[name.upper()]}"
            found.append(Finding(f"environment: {name}", "warning" if hint else "ok", message, hint))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
        if environment.get(name):
            hint = "" if bundle is not None else "name the file in network.ca_bundle"
            but = ", except to fetch AWS credentials" if name.startswith("AWS") and bundle is None else ""
            message = f"is set but not used{but}; what counts is network.ca_bundle"
            found.append(Finding(f"environment: {name}", "warning" if hint else "ok", message, hint))
    return found


def check_embedded(settings: Settings) -> list[Finding]:
    """Folders above the embedded database in which somebody else could put another one in its place."""
    path, found = settings.database.embedded_path, []
    for folder in path.resolve().parents if path is not None else ():
        seen, name = folder.stat(), shlex.quote(str(folder))
        if seen.st_mode & 0o002 and not seen.st_mode & stat.S_ISVTX:
            who, hint = "everybody can write to it", f"chmod o-w {name}"
        elif os.geteuid() == 0 != seen.st_uid:
            who, hint = (
                f"it belongs to uid {seen.st_uid}",
                "run archiver as that account, or let database.url name a folder whose parents all belong to root",
            )
        else:
            continue
        message = f"{who}, so others could replace the database in {path}"
        found.append(Finding(f"folder {folder}", "warning", message, hint))
    return found


async def check_database(database: Database) -> Finding:
    """Reachable, and migrated to this version; and what protects the way there."""
    try:
        started = time.perf_counter()
        schema = await check_version(database)
        took = f"{(time.perf_counter() - started) * 1000:.0f} ms"
        return Finding("database", "ok", f"migration {schema.version}, answers in {took}, {await database.protection()}")
    except ArchiverError as error:
        return of_error("database", error)


async def check_schema(database: Database) -> list[Finding]:
    """Whether this program and the database, with which it works, are of two versions."""
    schema = await check_version(database)
    return [Finding("database: version", "warning", schema.notice, schema.hint)] if schema.notice else []


async def check_database_settings(database: Database) -> list[Finding]:
    """Settings of the server, database or role under which work is lost, or goes on for ever."""
    found = []
    async with database.connection() as connection:
        fsync = await connection.fetchval("SELECT current_setting('fsync')")
        isolation = await connection.fetchval("SELECT current_setting('default_transaction_isolation')")
    if fsync != "on":
        message = "fsync is off: a power cut can take the whole queue and ledger"
        found.append(Finding("database: fsync", "warning", message, "set fsync = on in postgresql.conf"))
    if isolation != ISOLATION:
        message = f'default_transaction_isolation is "{isolation}": workers would get into each other\'s way'
        hint = f"set it to '{ISOLATION}' for the archiver's role: ALTER ROLE ... SET default_transaction_isolation"
        found.append(Finding("database: isolation", "warning", message, hint))
    return found


async def check_damage(database: Database) -> list[Finding]:
    """Whether what verify found wrong waits to be mended, or accepted."""
    damaged = await Findings(database).damaged()
    return [Finding("verify", "warning", damaged.told, NEXT_FOR_DAMAGED)] if damaged.open else []


async def check_deadlines(settings: Settings, database: Database) -> list[Finding]:
    """Of each bot whose recordings the platform deletes after a time: whether what waits can be archived before."""
    return [
        Finding(f"bot {each.bot}: source_retention", "warning", each.warning, HINT)
        if each.warning
        else Finding(f"bot {each.bot}: source_retention", "ok", f"{each.days:g}d; all waiting sessions can be archived in time")
        for each in await read_deadlines(database, settings.bots)
    ]
