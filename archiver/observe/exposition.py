"""What a process tells whoever asks at `metrics.listen`: /livez, /readyz and /metrics. And metrics as a file. Needs the extra
`metrics`.

/livez and /readyz answer from memory alone, so they answer whatever is away: no answer means that the event loop does not turn.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from archiver.observe.listening import listening
from archiver.observe.logs import logger

log = logger(__name__)

Read = Callable[[], Iterable[Metric]]


async def nothing() -> None:
    """Nothing is to be awaited before metrics are read."""


@asynccontextmanager
async def served(
    host: str,
    port: int,
    *,
    metrics: Read,
    readiness: Callable[[], dict[str, Any]],
    before: Callable[[], Awaitable[None]] = nothing,
) -> AsyncIterator[None]:
    """Serve what `metrics` returns at /metrics, `before` having been awaited, and what `readiness` returns at /readyz: 200 if its
    `ready` is true, else 503. Port 0 is any free one. Raises OSError, such as for a port in use.
    """
    pages = _Pages(metrics, before)

    async def answer_metrics(request: web.Request) -> web.Response:
        body, content_type = await pages.page(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def answer_readiness(_: web.Request) -> web.Response:
        document = readiness()
        return web.json_response(document, status=200 if document["ready"] else 503)

    async def answer_liveness(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def close(_: web.Request, response: web.StreamResponse) -> None:
        response.force_close()  # one request for each connection, within its limits
        response.headers["Connection"] = "close"

    app = web.Application(middlewares=[_without_traceback])
    app.router.add_get("/metrics", answer_metrics)
    app.router.add_get("/livez", answer_liveness)
    app.router.add_get("/readyz", answer_readiness)
    app.on_response_prepare.append(close)
    # An open connection does not delay the end of the worker.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        assert runner.server is not None
        async with AsyncExitStack() as stack:
            try:
                bound_port = await stack.enter_async_context(listening(runner.server, host, port))
            except (OSError, UnicodeError) as error:
                number = getattr(error, "errno", None) or 0
                why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or "not a host name"
                raise OSError(number, why) from None
            log.info("metrics_server_started", host=host, port=bound_port, path="/metrics")
            yield
    finally:
        await runner.cleanup()


@web.middleware
async def _without_traceback(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        log.error("metrics_request_failed", path=request.path, error=type(error).__name__, exc_info=True)
        raise web.HTTPInternalServerError(text="the log says why\n") from None


class _Collector(Collector):
    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()

    def describe(self) -> Iterable[Metric]:
        return []  # registering it must not read


class _Pages:
    """The metrics in the formats that are asked for."""

    def __init__(self, read: Read, before: Callable[[], Awaitable[None]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(read))
        ProcessCollector(registry=self._registry)
        self._before = before
        self._made: dict[str, tuple[float, bytes]] = {}
        self._making = asyncio.Lock()

    async def page(self, accept: str) -> tuple[bytes, str]:
        """One of them, made after it was asked for, and its media type. All who have asked meanwhile get the same."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # noqa: BLE001  # whatever the library makes of nonsense: it is no format, and no line of the log
            encode, content_type = choose_encoder("")
        asked_at = time.monotonic()
        async with self._making:
            began_at, body = self._made.get(content_type, (float("-inf"), b""))
            if began_at < asked_at:
                began_at = time.monotonic()
                await self._before()
                body = encode(self._registry)
                if len(self._made) > 8:  # there are fewer formats
                    self._made.clear()
                self._made[content_type] = began_at, body
        return body, content_type


def write_file(path: Path, read: Read) -> None:
    """Write metrics for the textfile collector of node_exporter: whoever reads it sees all of it or the one before. What is a
    link there is replaced. Raises OSError.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(read))
    body = generate_latest(registry)
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    # Of a name that nobody foresees, and that the collector takes for no file of its own.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fchmod(descriptor, 0o644)  # it is read by another user, and has no secret
            os.fsync(descriptor)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
