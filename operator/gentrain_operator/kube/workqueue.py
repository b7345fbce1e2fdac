"""The work queue: which keys want to be reconciled, with client-go's semantics.

What must hold:

- a key is handed to at most one worker at a time;
- a key added while it waits is handed out once, one added while it is worked on is handed out again afterwards, so that nothing
  that happened since the worker looked is lost;
- of several delays of one key the earliest counts.

Hence three places for a key: `dirty` (wants work), `processing` (is worked on) and the queue itself (dirty and not processing).
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Safe to use from many threads. Backoff of a key doubles from `base` to `limit` seconds until it is forgotten."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, base: float = 0.005, limit: float = 300.0) -> None:
        self._clock, self._base, self._limit = clock, base, limit
        self._changed = threading.Condition()
        self._queue: deque[K] = deque()
        self._dirty: dict[K, float] = {}  # since when
        self._processing: dict[K, float] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # entries that no longer agree with _due are skipped
        self._order = 0
        self._failures: dict[K, int] = {}
        self._closed = False

    def add(self, key: K) -> None:
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Adds the key in `seconds`, unless it is due earlier already."""
        if seconds <= 0:
            return self.add(key)
        with self._changed:
            due = self._clock() + seconds
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                self._order += 1
                heapq.heappush(self._heap, (due, self._order, key))
                self._changed.notify()

    def add_failed(self, key: K, at_least: float = 0.0) -> float:
        """Adds the key after its backoff, or after what the server asked for if that is longer, never later than `limit`; returns the
        delay."""
        with self._changed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
        delay = min(self._limit, max(at_least, self._base * 2.0 ** min(failures, 64)))
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure backs off from the start."""
        with self._changed:
            self._failures.pop(key, None)

    def take(self) -> K | None:
        """The next key, now to be followed by `done`; None when nothing is ready. Does not block."""
        with self._changed:
            return self._take()

    def get(self) -> K | None:
        """The next key, waiting for it; None when the queue is closed."""
        with self._changed:
            while not self._closed:
                key = self._take()
                if key is not None:
                    return key
                self._changed.wait(self._heap[0][0] - self._clock() if self._heap else None)
            return None

    def done(self, key: K) -> None:
        with self._changed:
            self._processing.pop(key, None)
            if key in self._dirty:
                self._queue.append(key)
                self._changed.notify()

    def close(self) -> None:
        """Every `get`, blocked or to come, returns None. What is worked on is finished by its worker."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._queue)

    def age(self) -> float:
        """For how many seconds the key that has waited longest has waited."""
        with self._changed:
            return max((self._clock() - self._dirty[key] for key in self._queue), default=0.0)

    def longest_work(self) -> float:
        """For how many seconds the slowest worker has been at its key."""
        with self._changed:
            return max((self._clock() - since for since in self._processing.values()), default=0.0)

    def _add(self, key: K) -> None:
        if self._closed or key in self._dirty:
            return
        self._dirty[key] = self._clock()
        if key not in self._processing:
            self._queue.append(key)
            self._changed.notify()

    def _take(self) -> K | None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)
        if not self._queue:
            return None
        key = self._queue.popleft()
        del self._dirty[key]
        self._processing[key] = now
        return key
