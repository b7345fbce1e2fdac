"""Real store servers for tests: started on free ports of this machine, empty, and ended with the test session.

A `Service` also lets a test look at the objects and spoil them behind the back of the code under test, by the SDK or plain HTTP.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.stores.binaries import Unavailable, binary, where

NAMES = ("moto", "versitygw", "fake-gcs-server", "azurite")
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # every emulator's, published
BUCKET, ACCOUNT = "runs", "devstoreaccount1"


class Raw(Protocol):
    """A store as seen without the code under test. `prefix` and keys as in the bucket."""

    def versions(self, prefix: str) -> dict[str, str]:
        """What is there, in one listing; whatever replaces an object changes its version."""

    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def delete(self, *paths: str) -> None: ...


@dataclass
class Service:
    """A running server. `environ` leads an SDK to it; `through` leads it to another address, a proxy's, instead."""

    name: str
    scheme: str
    port: int
    raw: Raw
    folders: Iterator[str] = field(default_factory=lambda: iter(f"run-{secrets.token_hex(6)}" for _ in range(10**9)))

    def fresh(self) -> str:
        """The URI of a folder that nobody used."""
        account = f"{ACCOUNT}/" if self.scheme == "az" else ""
        return f"{self.scheme}://{account}{BUCKET}/{next(self.folders)}"

    def environ(self, port: int | None = None) -> dict[str, str]:
        address = f"http://127.0.0.1:{port or self.port}"
        if self.scheme == "s3":
            told = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing123"}
            return told | {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": address}
        return {
            "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint={address}/{ACCOUNT};"
        }

    def load(self, uri: str) -> dict[str, bytes]:
        """All objects below a URI, by key."""
        prefix = uri.rpartition("/")[2] + "/"
        return {path.removeprefix(prefix): self.raw.read(path) for path in self.raw.versions(prefix)}

    def keys(self, uri: str) -> list[str]:
        return [*self.versions(uri)]

    def versions(self, uri: str) -> dict[str, str]:
        prefix = uri.rpartition("/")[2] + "/"
        return {path.removeprefix(prefix): version for path, version in self.raw.versions(prefix).items()}

    def read(self, uri: str, key: str) -> bytes:
        return self.raw.read(f"{uri.rpartition('/')[2]}/{key}")

    def write(self, uri: str, key: str, data: bytes) -> None:
        self.raw.write(f"{uri.rpartition('/')[2]}/{key}", data)

    def delete(self, uri: str, *keys: str) -> None:
        self.raw.delete(*(f"{uri.rpartition('/')[2]}/{key}" for key in keys))


@contextmanager
def service(name: str, folder: Path) -> Iterator[Service]:
    """Start a server; `folder` takes its data and its log. Raises Unavailable."""
    port = free_port()
    command, environment, scheme = _command(name, folder, port)
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=folder)
    try:
        _wait(port, process, folder / f"{name}.log")
        raw: Raw = {"s3": RawS3, "gs": RawGoogle, "az": RawAzure}[scheme](port)
        yield Service(name, scheme, port, raw)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def why_not(name: str) -> str:
    """Why a server is not used here, or "". moto is always; the others when they are in the cache, or GENTRAIN_STORES=all makes them."""
    if name == "moto" or where(name).exists():
        return ""
    if os.environ.get("GENTRAIN_STORES") != "all":
        return f"{name} is not in the cache; GENTRAIN_STORES=all makes it (a minute or more, once)"
    try:
        binary(name, lambda line: print(line, file=sys.stderr))
    except Unavailable as error:
        return str(error)
    return ""


def _command(name: str, folder: Path, port: int) -> tuple[list[str], dict[str, str], str]:
    if name == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {"S3_UPLOAD_PART_MIN_SIZE": "1"}, "s3"
    path = str(binary(name))
    if name == "versitygw":
        data = folder / "versitygw"
        data.mkdir()
        command = [path, "--port", f"127.0.0.1:{port}", "--access", "testing", "--secret", "testing123", "--keep-alive"]
        return [*command, "posix", str(data)], {}, "s3"
    if name == "fake-gcs-server":
        address = f"http://127.0.0.1:{port}"
        command = [path, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", address]
        return [*command, "-log-level", "warn"], {}, "gs"
    command = ["node", path, "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    return command, {}, "az"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server does not listen: {log.read_text()[-2000:]}")


class RawS3:
    def __init__(self, port: int) -> None:
        import boto3

        given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing123", "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **given)
        self.client.create_bucket(Bucket=BUCKET)

    def versions(self, prefix: str) -> dict[str, str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {item["Key"]: f"{item['ETag']} {item['LastModified']}" for page in pages for item in page.get("Contents", [])}

    def read(self, path: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=path)["Body"].read())

    def write(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=path, Body=data)

    def delete(self, *paths: str) -> None:
        self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": path} for path in paths], "Quiet": True})


class RawGoogle:
    """The JSON API by hand."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self._ask("POST", "/storage/v1/b?project=test", json.dumps({"name": BUCKET}).encode())

    def versions(self, prefix: str) -> dict[str, str]:
        listed = json.loads(self._ask("GET", f"/storage/v1/b/{BUCKET}/o?prefix={urllib.parse.quote(prefix, safe='')}&maxResults=10000"))
        assert "nextPageToken" not in listed
        return {item["name"]: item["generation"] for item in listed.get("items", [])}

    def read(self, path: str) -> bytes:
        return self._ask("GET", f"{self._object(path)}?alt=media")

    def write(self, path: str, data: bytes) -> None:
        self._ask("POST", f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={urllib.parse.quote(path, safe='')}", data)

    def delete(self, *paths: str) -> None:
        for path in paths:
            self._ask("DELETE", self._object(path))

    def _object(self, path: str) -> str:
        return f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(path, safe='')}"

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.root + path, data=data, method=method, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


class RawAzure:
    def __init__(self, port: int) -> None:
        from azure.storage.blob import ContainerClient

        address = f"http://127.0.0.1:{port}/{ACCOUNT}"
        credential = {"account_name": ACCOUNT, "account_key": KEY}
        self.container: Any = ContainerClient(address, BUCKET, credential=credential)
        self.container.create_container()

    def versions(self, prefix: str) -> dict[str, str]:
        return {blob.name: blob.etag for blob in self.container.list_blobs(name_starts_with=prefix)}

    def read(self, path: str) -> bytes:
        return bytes(self.container.download_blob(path).readall())

    def write(self, path: str, data: bytes) -> None:
        self.container.upload_blob(path, data, overwrite=True)

    def delete(self, *paths: str) -> None:
        self.container.delete_blobs(*paths)


Start = Callable[[str], Service]
