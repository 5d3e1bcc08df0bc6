"""Real S3 servers for tests, each shared by all processes of a run, and a view of their buckets that is not the archiver's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config

from archiver.config import S3Settings
from archiver.stores import MARKER
from tests.servers import ROOT, Ready, free_ports, joined

if TYPE_CHECKING:
    from botocore.client import BaseClient

ACCESS_KEY = "archiver-test"
SECRET_KEY = "Secret/of+the-tests=0123456789"
BUCKET = "archiver-tests"
DOMAIN = "s3.test"
"""What SeaweedFS answers to by the names of buckets below it, for whoever finds it by that name."""

LOCKED_BUCKET = "archiver-tests-locked"
"""With Object Lock: what is written there cannot be deleted for a day."""


@dataclass(frozen=True)
class S3Server:
    """A server that runs, with its buckets made."""

    name: str
    url: str

    @property
    def settings(self) -> S3Settings:
        """How a store gets there."""
        return S3Settings.model_validate(self.keys)

    @property
    def keys(self) -> dict[str, Any]:
        """The same as the section [storage.s3]."""
        return {"endpoint": self.url, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "path_style": True}

    @cached_property
    def client(self) -> Any:
        """AWS's own client for it."""
        session = botocore.session.Session()
        session.set_credentials(ACCESS_KEY, SECRET_KEY)
        client: BaseClient = session.create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.url,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3}, read_timeout=30),
        )
        return client

    def make_buckets(self) -> None:
        """The two that tests use."""
        self.client.create_bucket(Bucket=BUCKET)
        self.client.create_bucket(Bucket=LOCKED_BUCKET, ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        self.client.put_object_lock_configuration(
            Bucket=LOCKED_BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )


class Prefix:
    """A part of a bucket, seen by AWS's own client. Blocks, so that a look takes place between two steps of the event loop."""

    def __init__(self, server: S3Server, prefix: str, bucket: str = BUCKET) -> None:
        self.server = server
        self.prefix = prefix
        self.bucket = bucket

    def objects(self) -> set[str]:
        """The keys there, but for the one that says whose store it is, and those of uploads in parts that are neither completed
        nor aborted, marked as such.
        """
        listed = self.server.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix)
        keys = {found["Key"].removeprefix(self.prefix) for found in listed.get("Contents", [])}
        return keys - {MARKER} | {f"{key} (in parts)" for key in self.uploads()}

    def uploads(self) -> list[str]:
        """The keys of uploads in parts."""
        listed = self.server.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [found["Key"].removeprefix(self.prefix) for found in listed.get("Uploads", [])]

    def put(self, key: str, data: bytes) -> None:
        self.server.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def get(self, key: str) -> bytes:
        body: bytes = self.server.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        return body

    def head(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.server.client.head_object(Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED")
        return found

    def tags(self, key: str) -> dict[str, str]:
        found = self.server.client.get_object_tagging(Bucket=self.bucket, Key=self.prefix + key)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in found}

    def remove(self, key: str) -> None:
        self.server.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS: one binary, strict in all that matters here, signatures included."""
    weed = ROOT / ".venv-seaweedfs" / "bin" / "weed"

    def command(port: int) -> list[str]:
        master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3_rpc = free_ports(7)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        return [
            str(weed), "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
            f"-master.port={master}", f"-master.port.grpc={master_rpc}", "-master.telemetry=false",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_rpc}", "-volume.max=40", "-master.volumeSizeLimitMB=256",
            f"-filer.port={filer}", f"-filer.port.grpc={filer_rpc}", "-filer.localSocket=f.sock",
            f"-s3.port={port}", f"-s3.port.grpc={s3_rpc}", "-s3.localSocket=s.sock", "-s3.config=s3.json",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.domainName={DOMAIN}", "-s3.autoCreateBucket=false",
        ]  # fmt: skip

    with _joined(folder, "seaweedfs", weed, command, {}) as server:
        yield server


@contextmanager
def localstack(folder: Path) -> Iterator[S3Server]:
    """LocalStack's S3: another hand at it, in Python, with the error codes of AWS. It looks at no signature."""
    python = ROOT / ".venv-localstack" / "bin" / "python"
    environment = {
        "SERVICES": "s3",
        "LOCALSTACK_VOLUME_DIR": str(folder / "volume"),
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "LS_LOG": "error",
        "HOME": str(folder),
    }

    def command(port: int) -> list[str]:
        return ["env", f"GATEWAY_LISTEN=127.0.0.1:{port}", str(python), "-m", "localstack.runtime.main"]

    with _joined(folder, "localstack", python, command, environment) as server:
        yield server


@contextmanager
def _joined(
    folder: Path, name: str, binary: Path, command: Callable[[int], list[str]], environment: dict[str, str]
) -> Iterator[S3Server]:
    ready = Ready(answers={200, 403}, then=lambda url: S3Server(name, url).make_buckets())
    with joined(folder, name, binary, command, ready, environment) as url:
        yield S3Server(name, url)
