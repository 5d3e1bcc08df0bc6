"""`python -m benchmarks.transfer.careful ORDER`: the loop of a careful person. Each file is hashed on its way, gets a temporary
name, and is made durable before it gets its own; then its folder is. It checks nothing of what came but the promised length.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiofiles
import aiofiles.os
import aiohttp


async def _main(told: dict[str, Any]) -> dict[str, Any]:
    target = Path(told["target"])
    slots = asyncio.Semaphore(told["concurrency"])
    hashes: dict[str, str] = {}
    began = time.perf_counter()
    async with aiohttp.ClientSession() as http:

        async def fetch(url: str, session: str, name: str) -> None:
            path = target / session / "recording" / name
            part = path.with_name(f".{name}.part")
            digest = hashlib.sha256()
            async with slots, http.get(url) as response:
                response.raise_for_status()
                async with aiofiles.open(part, "wb") as file:
                    async for chunk in response.content.iter_chunked(65536):
                        digest.update(chunk)
                        await file.write(chunk)
                    await file.flush()
                    await asyncio.to_thread(os.fsync, file.fileno())
                await aiofiles.os.rename(part, path)
                await asyncio.to_thread(_sync, path.parent)
            hashes[str(path)] = digest.hexdigest()

        await asyncio.gather(*(fetch(*one) for one in told["files"]))
    return {"seconds": time.perf_counter() - began, "hashes": hashes}


def _sync(folder: Path) -> None:
    """The new name is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    order = Path(sys.argv[1])
    order.with_name("result.json").write_text(json.dumps(asyncio.run(_main(json.loads(order.read_text())))))
