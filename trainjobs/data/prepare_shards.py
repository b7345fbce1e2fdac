"""One shard of what is prepared ahead: made on this machine's disk, then stored. In threads of a process, or processes of a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainjobs.api.errors import JobError
from trainjobs.stores.store import BlobStore, Missing, StoreError

Entry = dict[str, Any]


class Writer(Protocol):
    """Makes a shard. The same instance is used by several threads."""

    def write(self, blocks: range, part: range | None, path: Path) -> Entry:
        """What these blocks of the data become, or of one block the rows `part`, in a new file; what is to be said of it in the manifest,
        but for its digest and size."""


@dataclass(frozen=True)
class Task:
    name: str
    blocks: range
    part: range | None = None  # rows of the one block, where it is several shards


@dataclass(frozen=True)
class Shards:
    """`scratch` is a folder for shards that are being made, which may not exist yet."""

    writer: Writer
    store: BlobStore
    scratch: Path

    def make(self, task: Task) -> Entry:
        """Its entry in the manifest, after the shard is stored. JobErrors of reading the data; GTJ0112 and GTJ0114 as of `written`."""
        path = self.scratch / task.name
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
            entry = self.writer.write(task.blocks, task.part, path)
            with path.open("rb") as file:
                entry |= {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
            with written(self.store, task.name):
                self.store.upload([(path, task.name)])
            return entry
        except OSError as error:
            raise unwritable("a shard", path, error) from error
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def written(store: BlobStore, key: str) -> Iterator[None]:
    """The store's errors as users read them: GTJ0114 for a folder, else GTJ0112."""
    try:
        yield
    except (StoreError, Missing) as error:
        code = "GTJ0114" if store.uri.startswith("file:") else "GTJ0112"
        reason = getattr(error, "reason", "failed")
        how = {"full": "free space there", "no bucket": "make the bucket, or name another with --out"}.get(
            reason, "grant the right to read, write and list there, or name another place with --out"
        )
        where = f"{store.uri}/{key}"
        raise JobError(code, "prepared data cannot be written", where=where, why=error.why, how=how) from error


def unwritable(what: str, path: Path, error: OSError) -> JobError:
    why, how = error.strerror or str(error), "free space there, or set TMPDIR to a folder on another disk"
    return JobError("GTJ0114", f"{what} cannot be written", where=str(path), why=why, how=how)
