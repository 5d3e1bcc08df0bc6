"""`python -m benchmarks.fixity.readers NAME ORDER`: reads every object by an SDK for Python, and prints how many bytes came.
Keys come from the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REGION = "us-east-1"
BLOCK = 1024 * 1024


async def _obstore(told: dict[str, Any], *, hashed: bool) -> int:
    from obstore.store import S3Store

    store = S3Store(
        told["bucket"],
        endpoint=told["endpoint"],
        region=REGION,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def read(key: str) -> int:
        found, length, digest = await store.get_async(key), 0, hashlib.sha256()
        async for block in found.stream(min_chunk_size=BLOCK):
            length += len(block)
            if hashed:  # its own threads read on meanwhile
                digest.update(block)
        return length

    return await _all(told, read)


async def _aiobotocore(told: dict[str, Any]) -> int:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(
        max_pool_connections=told["concurrency"], s3={"addressing_style": "path"}, response_checksum_validation="when_required"
    )
    async with get_session().create_client("s3", endpoint_url=told["endpoint"], region_name=REGION, config=config) as client:

        async def read(key: str) -> int:
            answer = await client.get_object(Bucket=told["bucket"], Key=key)
            length = 0
            async with answer["Body"] as body:
                async for block in body.iter_chunks(BLOCK):
                    length += len(block)
            return length

        return await _all(told, read)


async def _all(told: dict[str, Any], read: Any) -> int:
    waiting = iter(told["keys"])

    async def reader() -> int:
        return sum([await read(key) for key in waiting])

    return sum(await asyncio.gather(*(reader() for _ in range(told["concurrency"]))))


def _boto3(told: dict[str, Any]) -> int:
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=told["concurrency"], s3={"addressing_style": "path"}, response_checksum_validation="when_required"
    )
    client = boto3.client("s3", endpoint_url=told["endpoint"], region_name=REGION, config=config)

    def read(key: str) -> int:
        body = client.get_object(Bucket=told["bucket"], Key=key)["Body"]
        return sum(len(block) for block in body.iter_chunks(BLOCK))

    with ThreadPoolExecutor(told["concurrency"]) as pool:
        return sum(pool.map(read, told["keys"]))


def main() -> None:
    """Do as the order says."""
    told = json.loads(Path(sys.argv[2]).read_text())
    match sys.argv[1]:
        case "obstore" | "obstore+sha256":
            print(asyncio.run(_obstore(told, hashed=sys.argv[1] != "obstore")), flush=True)
            os._exit(0)  # all is done: some runs abort in what its threads do while the interpreter ends
        case "aiobotocore":
            print(asyncio.run(_aiobotocore(told)))
        case "boto3":
            print(_boto3(told))
        case name:
            raise SystemExit(f"unknown SDK {name!r}")


if __name__ == "__main__":
    main()
