"""Objects that a process keeps held between two batches that read them, so that not every batch locks, stamps and frees every shard: those
are system calls by the hundred, at each of which a thread waits for the interpreter anew.

Only what will be held soon anyway is kept so, and for two beats at most: another process that needs the room waits no longer than that for
one that reads nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from threading import Thread

BEAT = 0.5  # seconds


class Grips:
    """Asked and changed only among `Locks.alone`. `beat` is called in a thread as long as it says that there is more to come."""

    def __init__(self, beat: Callable[[], bool], pause: Callable[[float], None] = time.sleep) -> None:
        self._beat, self._pause = beat, pause
        self._fresh: dict[str, bool] = {}  # whether no beat has passed yet
        self._beating = False

    def add(self, key: str) -> None:
        self._fresh[key] = True
        if not self._beating:
            self._beating = True
            Thread(target=self._until_still, name="grips", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        return iter(self._fresh)

    def __len__(self) -> int:
        return len(self._fresh)

    def taken(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that were kept; they are no more."""
        return [key for key in keys if self._fresh.pop(key, None) is not None]

    def aged(self) -> list[str]:
        """Those that were kept when this was last asked; they are no more."""
        old = [key for key, fresh in self._fresh.items() if not fresh]
        self._fresh = dict.fromkeys((key for key, fresh in self._fresh.items() if fresh), False)
        if not self._fresh:
            self._beating = False
        return old

    def _until_still(self) -> None:
        more = True
        while more:
            self._pause(BEAT)
            more = self._beat()
