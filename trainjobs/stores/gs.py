"""Google Cloud Storage, through google-cloud-storage.

Credentials are the library's business (application default credentials: a workload identity, the node's service account, a key file that
GOOGLE_APPLICATION_CREDENTIALS names, gcloud's); STORAGE_EMULATOR_HOST names another server. Each request carries a CRC32C of its body.

Parts are objects of their own, `.tmp-<nonce>-<number>` beside the one they make, and are composed: 32 at a time, and the results again.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from trainjobs.stores.bucket import ANSWER, CONNECT, Found, Page, Piece, Trouble, by_status, pooled
from trainjobs.stores.store import TEMPORARY

ACTIONS = {
    "get": "storage.objects.get",
    "list": "storage.objects.list",
    "sweep": "storage.objects.list",
    "delete": "storage.objects.delete",
}
COMPOSED = 32  # objects that one request composes
ONCE = {"timeout": (CONNECT, ANSWER), "retry": None}


class GoogleStorage:
    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix

    def __reduce__(self) -> tuple[Any, ...]:
        return (GoogleStorage, (self.bucket, self.prefix))

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"

    def put(self, path: str, data: bytes, *, absent: bool) -> None:
        condition = {"if_generation_match": 0} if absent else {}
        self._bucket.blob(path).upload_from_string(data, content_type="application/octet-stream", checksum="crc32c", **condition, **ONCE)

    def get(self, path: str, start: int, length: int, version: str) -> Piece:
        if version:
            generation, _, told = version.partition(" ")
            total = int(told)
        else:
            blob = self._bucket.blob(path)
            blob.reload(**ONCE)
            generation, total = str(blob.generation), int(blob.size)
        data = b""
        if total:
            blob = self._bucket.blob(path, generation=int(generation))
            data = blob.download_as_bytes(start=start, end=min(start + length, total) - 1, raw_download=True, checksum=None, **ONCE)
        return Piece(data, total, f"{generation} {total}")

    def list(self, prefix: str, token: str = "") -> Page:
        fields = "items(name,size,generation,md5Hash),nextPageToken"
        listing = self._client.list_blobs(self.bucket, prefix=prefix, page_token=token or None, fields=fields, **ONCE)
        page = next(listing.pages, ())
        found = tuple(
            Found(blob.name, int(blob.size), f"{blob.generation} {blob.size}", base64.b64decode(blob.md5_hash or "").hex()) for blob in page
        )
        return Page(found, listing.next_page_token or "")

    def folders(self, prefix: str) -> Iterator[str]:
        found = self._client.list_blobs(self.bucket, prefix=prefix, delimiter="/", **ONCE)
        for _ in found:  # the folders are known once the pages have been read
            pass
        yield from found.prefixes

    def delete(self, path: str) -> None:
        self._bucket.blob(path).delete(**ONCE)

    def begin(self, path: str) -> str:
        return secrets.token_hex(16)

    def part(self, path: str, upload: str, number: int, data: bytes) -> str:
        name = _part(path, upload, f"{number:08d}")
        self.put(name, data, absent=False)
        return name

    def finish(self, path: str, upload: str, parts: Sequence[str]) -> None:
        made, level = list(parts), 0
        while len(made) > COMPOSED:
            groups = [made[at : at + COMPOSED] for at in range(0, len(made), COMPOSED)]
            made = [self._compose(_part(path, upload, f"{level}-{number:08d}"), group) for number, group in enumerate(groups)]
            level += 1
        self._compose(path, made)
        with suppress(Exception):  # done is done; parts that stay go with their folder
            self.abort(path, upload)

    def abort(self, path: str, upload: str) -> None:
        for found in self.list(_part(path, upload, "")).objects:
            self.delete(found.path)

    def sweep(self, prefix: str) -> None:
        """Parts lie in the folder and went with it."""

    def action(self, verb: str) -> str:
        return ACTIONS.get(verb, "storage.objects.create")

    def identity(self) -> str:
        credentials = self._client._credentials  # the library offers no other way to them
        return str(getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or type(credentials).__name__)

    def trouble(self, error: Exception) -> Trouble | None:
        import google.api_core.exceptions
        import google.auth.exceptions
        from google.cloud.storage.exceptions import DataCorruption

        if isinstance(error, DataCorruption):  # on the way; what we hold is whole
            return Trouble("busy", str(error))
        if isinstance(error, google.api_core.exceptions.GoogleAPICallError):
            status, why = int(error.code or 0), f"HTTP {int(error.code or 0)} {error.message}"
            if status == 404 and "bucket" in error.message and "No such object" not in error.message:
                return Trouble("no bucket", f"there is no bucket {self.bucket}")
            return by_status(status, why)
        if isinstance(error, google.auth.exceptions.TransportError):
            return Trouble("busy", str(error))
        if isinstance(error, google.auth.exceptions.GoogleAuthError):
            return Trouble("credentials", str(error))
        return None  # requests' errors on the way are OSErrors

    def _compose(self, path: str, parts: Sequence[str]) -> str:
        self._bucket.blob(path).compose([self._bucket.blob(name) for name in parts], **ONCE)
        return path

    @cached_property
    def _client(self) -> Any:
        from google.cloud import storage

        client = storage.Client()
        pooled(client._http)  # the library offers no other way to its session
        return client

    @cached_property
    def _bucket(self) -> Any:
        return self._client.bucket(self.bucket)


def _part(path: str, upload: str, number: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{TEMPORARY}{upload}-{number}"
