"""Azure Blob Storage, through azure-storage-blob.

az://<account>/<container>/<folder>. Whichever of these the environment has decides, the first first:

    AZURE_STORAGE_CONNECTION_STRING   endpoint and credentials in one; what emulators are addressed by
    AZURE_STORAGE_KEY                 the account's key
    AZURE_STORAGE_SAS_TOKEN           a shared access signature
    otherwise                         azure-identity's default chain: workload identity, managed identity, az login

AZURE_STORAGE_SERVICE_ENDPOINT names another address than https://<account>.blob.core.windows.net. Each request carries an MD5 of its body.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from trainjobs.stores.bucket import ANSWER, CONNECT, Found, Page, Piece, Trouble, by_status, pooled

ACTIONS = {"get": "blobs/read", "list": "blobs/read (List Blobs)", "sweep": "blobs/read (List Blobs)", "delete": "blobs/delete"}
MISSING_CONTAINER = {"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"}


class AzureBlobs:
    def __init__(self, account: str, container: str, prefix: str) -> None:
        self.account, self.container, self.prefix = account, container, prefix

    def __reduce__(self) -> tuple[Any, ...]:
        return (AzureBlobs, (self.account, self.container, self.prefix))

    @property
    def uri(self) -> str:
        return f"az://{self.account}/{self.container}/{self.prefix}"

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        self._blob(path).upload_blob(data, length=len(data), overwrite=not absent, validate_content=True)

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        condition: dict[str, Any] = {"etag": version, "match_condition": MatchConditions.IfNotModified} if version else {}
        try:
            found = self._blob(path).download_blob(offset=start, length=length, **condition)
        except HttpResponseError as error:
            if start == 0 and error.status_code == 416:  # an empty blob has no first byte
                return Piece(b"", 0, version)
            raise
        total = int(str(found.properties.content_range).rpartition("/")[2])  # "bytes 0-9/100"; properties.size is that of the range
        return Piece(found.readall(), total, found.properties.etag)

    def list(self, prefix: str, token: str = "") -> Page:
        pages = self._client.list_blobs(name_starts_with=prefix).by_page(token or None)
        found = tuple(
            Found(blob.name, blob.size, f'"{blob.etag.strip(chr(34))}"', bytes(blob.content_settings.content_md5 or b"").hex())
            for blob in next(pages, ())
        )
        return Page(found, pages.continuation_token or "")

    def folders(self, prefix: str) -> Iterator[str]:
        for found in self._client.walk_blobs(name_starts_with=prefix, delimiter="/"):
            if found.name.endswith("/"):
                yield found.name

    def delete(self, path: str) -> None:
        self._blob(path).delete_blob()

    def begin(self, path: str) -> str:
        return secrets.token_hex(16)

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        block = f"{upload}-{number:08d}"
        self._blob(path).stage_block(block, data, length=len(data), validate_content=True)
        return block

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        from azure.storage.blob import BlobBlock

        self._blob(path).commit_block_list([BlobBlock(block_id=part) for part in parts])

    def abort(self, path: str, upload: str) -> None:
        """Azure forgets blocks that nothing was made of after a week."""

    def sweep(self, prefix: str) -> None:
        """The same."""

    def action(self, verb: str) -> str:
        return f"Microsoft.Storage/.../{ACTIONS.get(verb, 'blobs/write')}"

    def identity(self) -> str:
        """What the token claims to be of, when there is one."""
        if os.environ.get("AZURE_STORAGE_CONNECTION_STRING") or os.environ.get("AZURE_STORAGE_KEY"):
            return f"the key of account {self.account}"
        if os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
            return "the shared access signature"
        token = self._credential.get_token("https://storage.azure.com/.default").token
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return str(claims.get("upn") or f"application {claims.get('appid')}, object {claims.get('oid')}")

    def trouble(self, error: Exception) -> Trouble | None:
        from azure.core import exceptions

        if isinstance(error, exceptions.ClientAuthenticationError):
            return Trouble("credentials", _told(error))
        if isinstance(error, exceptions.HttpResponseError):
            told = getattr(error, "error_code", None) or ""
            code = str(getattr(told, "value", told))  # an enumeration's member, or text
            if code in MISSING_CONTAINER:
                return Trouble("no bucket", f"there is no container {self.container} in account {self.account}")
            if code == "AuthenticationFailed":  # 403: a signature by another key
                return Trouble("credentials", _told(error))
            if code == "BlobAlreadyExists":
                return Trouble("condition", code)
            if code == "Md5Mismatch":  # damaged on the way; what we hold is whole
                return Trouble("busy", code)
            return by_status(error.status_code or 0, _told(error)) if error.status_code else Trouble("busy", _told(error))
        if isinstance(error, exceptions.AzureError):
            return Trouble("busy", _told(error))
        return None

    def _blob(self, path: str) -> Any:
        return self._client.get_blob_client(path)

    @cached_property
    def _credential(self) -> Any:
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential()

    @cached_property
    def _client(self) -> Any:
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import BlobServiceClient

        told = os.environ
        # A transport of our own is not told of the client's timeouts, and would wait for 300 s.
        transport = RequestsTransport(connection_timeout=CONNECT, read_timeout=ANSWER)
        settings: dict[str, Any] = {"retry_total": 0, "transport": transport}
        transport.open()
        pooled(transport.session)
        if connection := told.get("AZURE_STORAGE_CONNECTION_STRING"):
            service = BlobServiceClient.from_connection_string(connection, **settings)
        else:
            address = told.get("AZURE_STORAGE_SERVICE_ENDPOINT") or f"https://{self.account}.blob.core.windows.net"
            credential = told.get("AZURE_STORAGE_KEY") or told.get("AZURE_STORAGE_SAS_TOKEN") or self._credential
            service = BlobServiceClient(address, credential=credential, **settings)
        return service.get_container_client(self.container)


def _told(error: Exception) -> str:
    """The first line: the SDK appends the request's headers to it."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
