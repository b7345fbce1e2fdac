"""Any cloud's object store as a BlobStore: retries, parts, and many requests side by side.

A request that gets no answer, or one that says "later" (408, 429, 5xx, a connection that breaks or stays silent), is repeated after a
growing random pause until `Patience` is at an end; every request of an upload has that much for itself, so an upload goes on as long as it
gets on, and ends that long after the store went away. Refusals are not repeated. Timeouts are bucket.CONNECT and bucket.ANSWER.

Files larger than a part go up in parts and come down in ranges, `WORKERS` at a time; memory is bounded by as many parts. A file is read
once: what is hashed is what is sent, and the SDK's checksum of each part travels with it. A range is asked for by the version that the
first one had, so that a file that is replaced meanwhile is never mixed.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from trainjobs.stores.bucket import Bucket, Piece, Trouble
from trainjobs.stores.store import TEMPORARY, Digest, Entry, Missing, Reason, Stored, StoreError, check_key

T = TypeVar("T")
PART = 16 << 20
MOST_PARTS = 9000  # S3 allows 10,000
WORKERS = 8


@dataclass(frozen=True)
class Patience:
    """How long a request is repeated: `seconds` in all, with pauses of up to 0.1, 0.2, 0.4 ... 8 s. `chance` gives numbers in [0, 1)."""

    seconds: float = 120.0
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def delay(self, tries: int) -> float:
        return float(min(8.0, 0.1 * 2 ** (tries - 1)) * (0.5 + 0.5 * self.chance()))


class Refused(Exception):
    """The condition of a request did not hold."""


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
        with Window(self._workers) as window:
            for start in range(len(first.data), first.total, self._part):
                if window.full:
                    yield window.next().data
                window.submit(self._piece, key, start, first.version)
            while window.busy:
                yield window.next().data

    def entries(self, folder: str) -> list[Entry]:
        found = [Entry(key, size) for key, size in self._below(folder) if not key.rpartition("/")[2].startswith(TEMPORARY)]
        return sorted(found, key=lambda entry: entry.key)

    def folders(self, folder: str) -> list[str]:
        prefix = self._path(folder) + "/"
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
        def get() -> Piece:
            piece = self._bucket.get(self._path(key), start, self._part, version)
            if len(piece.data) != min(self._part, max(0, piece.total - start)):
                raise ConnectionError(f"the answer ends after {len(piece.data)} bytes")
            return piece

        try:
            return self._ask("get", key, get)
        except Refused as error:
            raise Missing(key, "was replaced while it was read") from error

    def _delete(self, key: str) -> None:
        with suppress(Missing):
            path = f"{self._bucket.prefix}/{key}"  # as it was listed: parts of uploads that were cut off go, too
            self._ask("delete", key, lambda: self._bucket.delete(path))

    def _below(self, folder: str) -> list[tuple[str, int]]:
        prefix = self._path(folder) + "/"
        found = self._ask("list", folder, lambda: list(self._bucket.list(prefix)))
        return [(self._key(path), size) for path, size in found if not path.endswith("/")]

    def _path(self, key: str) -> str:
        return f"{self._bucket.prefix}/{check_key(key)}"

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self._bucket.prefix}/")

    def _ask(self, verb: str, key: str, act: Callable[[], T]) -> T:
        """The answer to a request. Raises Missing, Refused, StoreError."""
        patience, tries = self._patience, 0
        began = patience.now()
        while True:
            tries += 1
            try:
                return act()
            except Exception as error:
                trouble = self._bucket.trouble(error)
                if trouble is None and _on_the_way(error):
                    trouble = Trouble("busy", str(error) or type(error).__name__)
                if trouble is None:
                    raise
                if trouble.kind == "missing":
                    raise Missing(key) from error
                if trouble.kind == "condition":
                    raise Refused(key) from error
                action = self._bucket.action(verb)
                if trouble.kind != "busy":
                    raise self._refusal(key, action, trouble) from error
                delay = patience.delay(tries)
                spent = patience.now() - began
                if spent + delay > patience.seconds:
                    why = f"{action} failed {tries} times in {spent:.0f} s, the last time with: {trouble.why}"
                    raise StoreError(key, why) from error
                patience.pause(delay)

    def _refusal(self, key: str, action: str, trouble: Trouble) -> StoreError:
        reasons: dict[str, Reason] = {"denied": "denied", "credentials": "credentials", "full": "full", "no bucket": "no bucket"}
        whom = ""
        if trouble.kind in ("denied", "credentials"):
            with suppress(Exception):
                whom = self._bucket.identity()
        why = f"{action} was refused{f' to {whom}' if whom else ''}: {trouble.why}"
        return StoreError(key, why, reasons.get(trouble.kind, "failed"))


class Window:
    """At most `workers` requests at a time, their answers in the order of asking. The first error ends the others that have not begun."""

    def __init__(self, workers: int) -> None:
        self._workers, self._pool = workers, ThreadPoolExecutor(workers, thread_name_prefix="store")
        self._asked: deque[Future[Any]] = deque()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def full(self) -> bool:
        return len(self._asked) >= self._workers

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def submit(self, act: Callable[..., T], *arguments: Any) -> Future[T]:
        future = self._pool.submit(act, *arguments)
        self._asked.append(future)
        return future

    def next(self) -> Any:
        return self._asked.popleft().result()

    def make_room(self) -> None:
        while self.full:
            self.next()

    def drain(self) -> None:
        while self.busy:
            self.next()


def _on_the_way(error: Exception) -> bool:
    """Whether it is a connection that failed. What reads an answer's body lets errors of the layers below through."""
    return isinstance(error, (OSError, HTTPException)) or type(error).__module__.startswith("urllib3.")


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
