"""`aws s3 sync`, `rm` and `cp` for where that command is not installed, by the same library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config


def main(arguments: list[str]) -> None:
    session = botocore.session.Session()
    client: Any = session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        config=Config(s3={"addressing_style": "path"}),
    )
    match [argument for argument in arguments if argument != "--only-show-errors"]:
        case ["s3", "sync", folder, url]:
            bucket, prefix = _parts(url)
            for path in sorted(each for each in Path(folder).rglob("*") if each.is_file()):
                client.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
        case ["s3", "cp", file, url]:
            bucket, key = _parts(url)
            client.put_object(Bucket=bucket, Key=key, Body=sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
        case ["s3", "rm", url]:
            bucket, key = _parts(url)
            client.head_object(Bucket=bucket, Key=key)
            client.delete_object(Bucket=bucket, Key=key)
        case unknown:
            raise SystemExit(f"aws: {unknown}")


def _parts(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key.rstrip("/")


if __name__ == "__main__":
    main(sys.argv[1:])
