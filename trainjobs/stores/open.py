"""Which store a URI names. Each platform's SDK is imported by the first request to it, and not before."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_path
from trainjobs.stores.az import AzureBlobs
from trainjobs.stores.bucket import Bucket
from trainjobs.stores.file import FileStore
from trainjobs.stores.gs import GoogleStorage
from trainjobs.stores.objects import ObjectStore, Patience
from trainjobs.stores.s3 import S3
from trainjobs.stores.store import BlobStore

SHAPES = {"s3": "s3://bucket/folder", "gs": "gs://bucket/folder", "az": "az://account/container/folder"}
PACKAGES = {"s3": "boto3", "gs": "google-cloud-storage", "az": "azure-storage-blob azure-identity"}  # by the names that pip knows
MODULES = {"s3": ("boto3",), "gs": ("google.cloud.storage",), "az": ("azure.storage.blob", "azure.identity")}


def open_store(uri: str, *, patience: Patience | None = None) -> BlobStore:
    """The store that `uri` names; nothing is asked of it yet. `patience` is for stores behind a network. JobError GTJ0107."""
    scheme, separator, rest = uri.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return FileStore(Path(file_path(uri)))
    if scheme == "file":
        raise JobError("GTJ0107", "a file URI needs an absolute path", where=uri, how=f"write file:///{rest}")
    if scheme not in SHAPES or not separator:
        raise JobError("GTJ0107", "not the URI of a checkpoint store", where=uri, how="use file:///folder, " + ", ".join(SHAPES.values()))
    clean(uri)
    shape, parts = SHAPES[scheme], rest.rstrip("/").split("/")
    if len(parts) < shape.count("/") - 1 or not all(parts):
        raise JobError("GTJ0107", "not a folder in a bucket", where=uri, how=f"write {shape}")
    return ObjectStore(open_bucket(uri), patience)


def open_bucket(uri: str) -> Bucket:
    """The bucket of an s3://, gs:// or az:// URI, and what follows it as the prefix; nothing is asked of it yet. JobError GTJ0107."""
    scheme, _, rest = uri.partition("://")
    parts = rest.rstrip("/").split("/")
    if len(parts) < (2 if scheme == "az" else 1) or not all(parts[:2]):
        shape = SHAPES[scheme].removesuffix("/folder")
        raise JobError("GTJ0107", "names no bucket" if scheme != "az" else "names no container", where=uri, how=f"write {shape}")
    _installed(scheme, uri)
    if scheme == "s3":
        return S3(parts[0], "/".join(parts[1:]))
    if scheme == "gs":
        return GoogleStorage(parts[0], "/".join(parts[1:]))
    return AzureBlobs(parts[0], parts[1], "/".join(parts[2:]))


def clean(uri: str) -> None:
    """See that a bucket's URI carries no credentials. JobError GTJ0107, which does not repeat them."""
    scheme, _, rest = uri.partition("://")
    if "@" in rest or "?" in rest or "#" in rest:
        how = "credentials come from the environment or the platform, see docs/how-to/object-stores.md"
        raise JobError("GTJ0107", "a URI carries no credentials", where=f"{scheme}://...", why="it has a user or a query", how=how)


def _installed(scheme: str, uri: str) -> None:
    for module in MODULES[scheme]:
        if not _there(module):
            why, how = f"{scheme}:// needs the package {module}", f"pip install {PACKAGES[scheme]}"
            raise JobError("GTJ0107", "a package is not installed", where=uri, why=why, how=how)


def _there(module: str) -> bool:
    """Without importing it, which takes a second."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package that would hold it
        return False
