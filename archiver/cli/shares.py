"""How many processes a command works in, and what each of them gets of its limits."""

from __future__ import annotations

from collections.abc import Mapping

import click

from archiver.cli.compose import F
from archiver.config import Settings
from archiver.errors import ConfigError
from archiver.observe.logs import logger
from archiver.runtime.open_files import RAISE_FILES, files_allowed, files_needed, fitting_concurrency
from archiver.runtime.processors import usable_processors

log = logger(__name__)

MAX_PROCESSES = 256

AUTO = -1

SHARED = ("worker.concurrency", "transfer.max_buffer", "transfer.max_bandwidth", "transfer.connections_per_host")
"""Keys whose values are shared out, where there is a limit."""

MIN_BUFFER = 16 * 2**20
"""What `transfer.max_buffer` has to be at least, for each of them."""


class _Count(click.ParamType[int]):
    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto" or value == AUTO:
            return AUTO
        try:
            count = int(str(value))
        except ValueError:
            count = 0
        if not 1 <= count <= MAX_PROCESSES:
            self.fail(f'"{value}" must be a number from 1 to {MAX_PROCESSES}, or auto', param, ctx)
        return count


def processes_option(command: F) -> F:
    """`--processes`, as a parameter of that name: a number, or AUTO."""
    option = click.option(
        "--processes",
        type=_Count(),
        default=1,
        show_default=True,
        help="Work in so many processes; auto: as many as there are processors. All limits are shared out among them.",
    )
    return option(command)


def process_count(settings: Settings, wanted: int) -> int:
    """How many processes it is to be. Raises ConfigError where the limits are too small to be shared out."""
    transfer = settings.transfer
    most = {
        "worker.concurrency": settings.worker.concurrency,
        "transfer.max_buffer": transfer.max_buffer // max(MIN_BUFFER, settings.storage.part_size),
        **({"transfer.connections_per_host": transfer.connections_per_host} if transfer.connections_per_host else {}),
        **({"transfer.max_bandwidth": transfer.max_bandwidth // 2**10} if transfer.max_bandwidth else {}),
    }
    if wanted == AUTO:
        processors = usable_processors()
        key, fitting = min(most.items(), key=lambda limit: limit[1])
        if 1 <= fitting < processors:
            log.warning("processes_lowered", processors=processors, processes=fitting, because=key, hint=f"raise {key}")
        return max(1, min(processors, MAX_PROCESSES, fitting))
    for key, fitting in most.items():
        if wanted > fitting:
            value = _told(settings, key)
            raise ConfigError(
                f"--processes {wanted}: {key} = {value} cannot be shared out among so many",
                hint=f"raise {key}, or use at most --processes {fitting}",
            )
    return wanted


def _told(settings: Settings, key: str) -> str:
    section, name = key.split(".")
    value: int = getattr(getattr(settings, section), name)
    return f'"{value // 2**20}MiB"' if name == "max_buffer" else str(value)


def share_of(settings: Settings, number: int, count: int) -> dict[str, int]:
    """What process `number`, from 1 on, gets of the limits, by their keys. Together they get all, and no more."""

    def part(whole: int) -> int:
        return whole // count + (number <= whole % count)

    transfer = settings.transfer
    shares = {"worker.concurrency": part(settings.worker.concurrency), "transfer.max_buffer": part(transfer.max_buffer)}
    if transfer.max_bandwidth is not None:
        shares["transfer.max_bandwidth"] = part(transfer.max_bandwidth)
    if transfer.connections_per_host:
        shares["transfer.connections_per_host"] = part(transfer.connections_per_host)
    return shares


def with_share(settings: Settings, shares: Mapping[str, int]) -> Settings:
    """The settings of one process."""
    for key, value in shares.items():
        section, name = key.split(".")
        changed = getattr(settings, section).model_copy(update={name: value})
        settings = settings.model_copy(update={section: changed})
    return settings


def fitted(settings: Settings) -> Settings:
    """The settings, with as many sessions at once as the files allow that this process may have open. Raises ConfigError if they
    allow none.
    """
    wanted, bots = settings.worker.concurrency, len(settings.bots)
    fitting = fitting_concurrency(wanted, bots)
    if not fitting:
        raise ConfigError(
            f"this process may have {files_allowed()} files open, and a worker needs {files_needed(1, bots)} at least",
            hint=RAISE_FILES,
        )
    if fitting < wanted:
        needed = files_needed(wanted, bots)
        log.warning(
            "concurrency_lowered", wanted=wanted, concurrency=fitting, files=files_allowed(), needed=needed, hint=RAISE_FILES
        )
    worker = settings.worker.model_copy(update={"concurrency": fitting})
    return settings.model_copy(update={"worker": worker})
