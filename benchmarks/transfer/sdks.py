"""`python -m benchmarks.transfer.sdks NAME ORDER`: uploads by an SDK for Python, keys from the environment."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

REGION = "us-east-1"
HUGE = 4 * 1024**3
SMALL = 16 * 1024**2


async def _obstore(told: dict[str, Any]) -> None:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        told["bucket"],
        endpoint=told["endpoint"],
        region=REGION,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    slots = asyncio.Semaphore(told["concurrency"])
    multipart = {} if told["multipart"] else {"use_multipart": False}

    async def put(path: str, key: str) -> None:
        async with slots:
            await obstore.put_async(store, key, Path(path), **multipart)

    await asyncio.gather(*(put(*one) for one in told["files"]))


async def _aiobotocore(told: dict[str, Any]) -> None:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=told["concurrency"], s3={"addressing_style": "path"})
    slots = asyncio.Semaphore(told["concurrency"])
    async with get_session().create_client("s3", endpoint_url=told["endpoint"], region_name=REGION, config=config) as client:

        async def put(path: str, key: str) -> None:
            async with slots:
                # Small ones from memory: given a file, its HTTP client sends it in pieces of 64 KB, each through a thread.
                file = await asyncio.to_thread(Path(path).open, "rb")
                with file:
                    small = Path(path).stat().st_size <= SMALL  # noqa: ASYNC240  # as fast as asking a thread
                    body = await asyncio.to_thread(file.read) if small else file
                    await client.put_object(Bucket=told["bucket"], Key=key, Body=body)

        await asyncio.gather(*(put(*one) for one in told["files"]))


def _boto3(told: dict[str, Any]) -> None:
    import boto3
    from boto3.s3.transfer import TransferConfig, create_transfer_manager
    from botocore.config import Config

    config = Config(max_pool_connections=told["concurrency"], s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=told["endpoint"], region_name=REGION, config=config)
    whole = {} if told["multipart"] else {"multipart_threshold": HUGE}
    with create_transfer_manager(client, TransferConfig(max_concurrency=told["concurrency"], **whole)) as manager:
        for future in [manager.upload(path, told["bucket"], key) for path, key in told["files"]]:
            future.result()


def main() -> None:
    """Do as the order says."""
    told = json.loads(Path(sys.argv[2]).read_text())
    match sys.argv[1]:
        case "obstore":
            asyncio.run(_obstore(told))
        case "aiobotocore":
            asyncio.run(_aiobotocore(told))
        case "boto3":
            _boto3(told)
        case name:
            raise SystemExit(f"unknown SDK {name!r}")


if __name__ == "__main__":
    main()
