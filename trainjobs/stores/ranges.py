"""An object of a bucket in ranges, several of them on their way at a time.

A range is asked for by the version that the first one had (or the listing), so that an object that is replaced meanwhile is never mixed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from trainjobs.stores.bucket import Bucket, Piece
from trainjobs.stores.patience import Patience, Refused, ask
from trainjobs.stores.store import Missing

T = TypeVar("T")


def piece(bucket: Bucket, patience: Patience, key: str, path: str, start: int, length: int, version: str) -> Piece:
    """Bytes of an object, all that it has of them. Raises Missing, also when it was replaced, and StoreError."""

    def get() -> Piece:
        found = bucket.get(path, start, length, version)
        if len(found.data) != min(length, max(0, found.total - start)):
            raise ConnectionError(f"the answer ends after {len(found.data)} bytes")
        return found

    try:
        return ask(bucket, patience, "get", key, get)
    except Refused as error:
        raise Missing(key, "was replaced while it was read") from error


def blocks(ranges: Iterator[T], get: Callable[[T], bytes], workers: int) -> Iterator[bytes]:
    """What `get` makes of each range, in order, `workers` of them at a time; no more than that are in memory."""
    with Window(workers) as window:
        for each in ranges:
            if window.full:
                yield window.next()
            window.submit(get, each)
        while window.busy:
            yield window.next()


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
