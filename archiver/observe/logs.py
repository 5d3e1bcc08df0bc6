"""Structured logs on standard error: for people on a terminal, JSON lines elsewhere.

One name for each event, with session, bot and attempt bound to it (`bind_subject`, for the length of an attempt). The last steps
before rendering redact every string, whoever logged it, and escape what would control a terminal or forge a line.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO, cast

from archiver.observe.patient_handler import PatientHandler
from archiver.observe.redact import harmless, redact, redact_value

if TYPE_CHECKING:
    # Imported when the first line is written: it brings rich along, and most commands that people wait for write none.
    from structlog.stdlib import BoundLogger, ProcessorFormatter

    Logger = BoundLogger

TALKATIVE = ("asyncio", "azure", "boto3", "botocore", "msal", "msal_extensions", "s3transfer", "urllib3")
"""Libraries whose loggers start at warning, whatever the level. At debug they log what they sign, send and receive, keys and
tokens included, before these are known as secrets. asyncio's debug lines only name selectors.
"""

_process: int | None = None

_subject: ContextVar[Callable[[], dict[str, Any]]] = ContextVar("subject", default=dict)


def bind_subject(facts: Callable[[], dict[str, Any]]) -> None:
    """Add what `facts` returns to every line that this task logs. Called only when a line is written."""
    _subject.set(facts)


def number_process(number: int) -> None:
    """Say in every line which of several processes of one command wrote it."""
    global _process  # noqa: PLW0603  # it holds for the process
    _process = number


def add_subject(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the bound subject, and the process if there are several; keys of the line itself win."""
    for key, value in _subject.get()().items():
        event.setdefault(key, value)
    if _process is not None:
        event.setdefault("process", _process)
    return event


def _redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key in ("_record", "_from_structlog", "level", "timestamp"):
            continue
        if isinstance(value, str | dict | list | tuple):
            event[key] = redact_value(value)
        elif not isinstance(value, bool | int | float | None):
            event[key] = redact(str(value))
    return event


def _harmless(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters from outside (a file name, an answer). In JSON lines too: they end on terminals as well."""
    for key, value in event.items():
        # A traceback keeps its line breaks.
        event[key] = _escaped(value, "\n" if key in ("exception", "stack") else "")
    return event


def _escaped(value: Any, keep: str = "") -> Any:
    match value:
        case str():
            return harmless(value, keep=keep)
        case dict():
            return {_escaped(key): _escaped(item) for key, item in value.items()}
        case list():
            return [_escaped(item) for item in value]
        case _:
            return value


def configure(*, level: str, form: str, stream: TextIO | None = None) -> None:
    """Send our logs and those of libraries to `stream`, by default standard error. Call it before anything is logged.

    `level` is debug, info, warning or error; `form` is console, json, or auto: console on a terminal.
    """
    stream = stream or sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    handler = _handler(stream)
    handler.setFormatter(_Formatter(console=console, colors=stream.isatty()))
    logging.getLogger().handlers = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Write the lines of this level and of those above it from now on."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for tree in TALKATIVE:
        logging.getLogger(tree).setLevel(max(logging.WARNING, root.level))
    # asyncpg's pool logs tracebacks about an unreachable server, which we log in one line.
    logging.getLogger("asyncpg").setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


def _handler(stream: TextIO) -> logging.Handler:
    """A file takes every line; whatever else it is may have a reader that stops."""
    try:
        descriptor = stream.fileno()
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return PatientHandler(descriptor, stream.encoding or "utf-8")
    except (OSError, ValueError):
        pass  # it has no descriptor
    return logging.StreamHandler(stream)


def flush() -> None:
    """Wait, a moment at most, until what was logged is written: what is printed next comes after it."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _Formatter(logging.Formatter):
    """Renders the lines, and configures structlog when there is a first one."""

    def __init__(self, *, console: bool, colors: bool) -> None:
        super().__init__()
        self._console = console
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        return self.ready.format(record)

    @cached_property
    def ready(self) -> ProcessorFormatter:
        import structlog

        first: list[Any] = [add_subject, structlog.stdlib.add_log_level]
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if self._console else "iso", utc=not self._console)
        renderer: Any = (
            structlog.dev.ConsoleRenderer(colors=self._colors, exception_formatter=structlog.dev.plain_traceback)
            if self._console
            else structlog.processors.JSONRenderer(ensure_ascii=False)
        )
        structlog.configure(
            processors=[structlog.stdlib.filter_by_level, *first, stamp, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=True,
        )
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*first, structlog.stdlib.ExtraAdder(), stamp],
            processors=[
                structlog.processors.format_exc_info,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact,
                _harmless,
                renderer,
            ],
        )


def _formatter() -> _Formatter | None:
    formatters = (handler.formatter for handler in logging.getLogger().handlers)
    return next((formatter for formatter in formatters if isinstance(formatter, _Formatter)), None)


def is_debugging() -> bool:
    """Whether lines of the level debug are written: what is said with each request asks first, as to say it costs as much as a
    part of the request itself.
    """
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def is_configured() -> bool:
    """Whether `configure` was called: before, lines would go to standard output, unredacted."""
    return _formatter() is not None


class _Logger:
    """A module's logger, which is structlog's from its first line on."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if formatter := _formatter():
            formatter.ready  # noqa: B018  # configures structlog
        return getattr(self._logger, attribute)

    @cached_property
    def _logger(self) -> Any:
        import structlog

        return structlog.stdlib.get_logger(self._name)


def logger(name: str) -> Logger:
    """The logger of a module."""
    return cast("Logger", _Logger(name))
