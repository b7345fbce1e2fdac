"""Any cloud's object store as a BlobStore: retries, parts, and many requests side by side.

Requests are repeated as patience.py says; every request of an upload has `Patience` for itself, so an upload goes on as long as it gets on,
and ends that long after the store went away.

Files larger than a part go up in parts and come down in ranges, `WORKERS` at a time; memory is bounded by as many parts. A file is read
once: what is hashed is what is sent, and the SDK's checksum of each part travels with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from trainjobs.stores.bucket import Bucket, Piece
from trainjobs.stores.patience import Patience as Patience
from trainjobs.stores.patience import Refused, ask, listing
from trainjobs.stores.ranges import Window, blocks, piece
from trainjobs.stores.store import TEMPORARY, Digest, Entry, Missing, Stored, StoreError, check_key

T = TypeVar("T")
PART = 16 << 20
MOST_PARTS = 9000  # S3 allows 10,000
WORKERS = 8


class ObjectStore:
    """Moves to another process with its addresses only: clients and credentials are found anew there."""

    def __init__(self, bucket: Bucket, patience: Patience | None = None, *, part: int = PART, workers: int = WORKERS) -> None:
        self._bucket, self._patience, self._part, self._workers = bucket, patience or Patience(), part, workers

    @property
    def uri(self) -> str:
        return self._bucket.uri

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """False may also mean that this very call was first, and its answer got lost: `create` finds out."""
        try:
            self._ask("put", key, lambda: self._bucket.put(self._path(key), data, absent=True))
        except Refused:
            return False
        return True

    def upload(self, files: Sequence[tuple[Path, str]]) -> list[Stored]:
        with Window(self._workers) as window:
            stored = [self._send(window, source, key) for source, key in files]
            window.drain()
        return stored

    def get(self, key: str) -> bytes:
        return b"".join(self.read(key))

    def read(self, key: str) -> Iterator[bytes]:
        first = self._piece(key, 0, "")
        yield first.data
        if len(first.data) == first.total:
            return
        starts = iter(range(len(first.data), first.total, self._part))
        yield from blocks(starts, lambda start: self._piece(key, start, first.version).data, self._workers)

    def entries(self, folder: str) -> list[Entry]:
        found = [Entry(key, size) for key, size in self._below(folder) if not key.rpartition("/")[2].startswith(TEMPORARY)]
        return sorted(found, key=lambda entry: entry.key)

    def folders(self, folder: str) -> list[str]:
        prefix = (self._path(folder) if folder else self._bucket.prefix) + "/"
        found = self._ask("list", folder, lambda: list(self._bucket.folders(prefix)))
        return sorted(self._key(path.rstrip("/")) for path in found)

    def clear(self, folder: str) -> None:
        with Window(self._workers) as window:
            for key, _ in self._below(folder):
                window.make_room()
                window.submit(self._delete, key)
            window.drain()
        self._ask("sweep", folder, lambda: self._bucket.sweep(self._path(folder) + "/"))

    def _send(self, window: Window, source: Path, key: str) -> Stored:
        """Store a file; of one that fits into a part, only begin to."""
        path, size, found = self._path(key), 0, Digest()
        parts: list[Future[str]] = []
        upload = ""
        try:
            for number, (data, last) in enumerate(_blocks(source, self._part)):
                size += len(data)
                found.update(data)
                window.make_room()
                if last and not number:
                    window.submit(self._ask, "put", key, partial(self._bucket.put, path, data, absent=False))
                    break
                upload = upload or self._ask("begin", key, partial(self._bucket.begin, path))
                parts.append(window.submit(self._ask, "part", key, partial(self._bucket.part, path, upload, number, data)))
            if upload:
                tokens = [part.result() for part in parts]
                self._ask("finish", key, partial(self._bucket.finish, path, upload, tokens))
        except Exception:
            if upload:
                with suppress(Exception):  # what is left is swept with the folder
                    self._bucket.abort(path, upload)
            raise
        return Stored(size, str(found))

    def _piece(self, key: str, start: int, version: str) -> Piece:
        return piece(self._bucket, self._patience, key, self._path(key), start, self._part, version)

    def _delete(self, key: str) -> None:
        with suppress(Missing):
            path = f"{self._bucket.prefix}/{key}"  # as it was listed: parts of uploads that were cut off go, too
            self._ask("delete", key, lambda: self._bucket.delete(path))

    def _below(self, folder: str) -> list[tuple[str, int]]:
        prefix = self._path(folder) + "/"
        found = listing(self._bucket, self._patience, prefix, folder)
        return [(self._key(each.path), each.size) for each in found if not each.path.endswith("/")]

    def _path(self, key: str) -> str:
        return f"{self._bucket.prefix}/{check_key(key)}"

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self._bucket.prefix}/")

    def _ask(self, verb: str, key: str, act: Callable[[], T]) -> T:
        return ask(self._bucket, self._patience, verb, key, act)


def _blocks(source: Path, part: int) -> Iterator[tuple[bytes, bool]]:
    """A file in parts, each with whether it is the last; at least one, and no more than a store takes."""
    try:
        with open(source, "rb") as file:
            size = source.stat().st_size
            part = max(part, -(-size // MOST_PARTS))
            data = file.read(part)
            while True:
                following = file.read(part)
                yield data, not following
                if not following:
                    return
                data = following
    except OSError as error:
        raise StoreError(str(source), error.strerror or str(error), "failed") from error
