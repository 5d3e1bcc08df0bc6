"""`python -m benchmarks.transfer.naive ORDER`: aiohttp and aiofiles as many examples put them together."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp


async def _main(told: dict[str, Any]) -> dict[str, Any]:
    target = Path(told["target"])
    slots = asyncio.Semaphore(told["concurrency"])
    began = time.perf_counter()
    async with aiohttp.ClientSession() as http:

        async def fetch(url: str, session: str, name: str) -> None:
            async with slots, http.get(url) as response:
                response.raise_for_status()
                async with aiofiles.open(target / session / "recording" / name, "wb") as file:
                    async for chunk in response.content.iter_chunked(65536):
                        await file.write(chunk)

        await asyncio.gather(*(fetch(*one) for one in told["files"]))
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    order = Path(sys.argv[1])
    order.with_name("result.json").write_text(json.dumps(asyncio.run(_main(json.loads(order.read_text())))))
