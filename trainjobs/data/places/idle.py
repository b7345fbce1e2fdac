"""What lies in a cache and is held by nobody, in the order in which it is dropped."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

SOON = 3600.0  # seconds for which what was fetched ahead is spared by others that are fetched ahead

GRAIN = 2.0  # seconds: no file system tells times less finely


@dataclass(frozen=True, order=True)
class Idle:
    """`time` of its last use, in nanoseconds since 1970; in the future of what was fetched ahead."""

    time: int
    key: str
    size: int


class Queue:
    """What has been used comes before what was fetched ahead. Of other processes' objects it knows what the last `fill` told."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, Idle] = OrderedDict()  # from the front of a dict many cannot be taken one by one
        self._soon: OrderedDict[str, Idle] = OrderedDict()

    def fill(self, found: Iterable[Idle], now: float) -> None:
        self._used.clear()
        self._soon.clear()
        for each in sorted(found):
            self._queue(each, now)[each.key] = each

    def add(self, key: str, path: str, now: float) -> None:
        with suppress(FileNotFoundError):  # somebody cleared the folder
            status = os.stat(path)
            self.discard(key)
            idle = Idle(status.st_mtime_ns, key, status.st_size)
            self._queue(idle, now)[key] = idle

    def discard(self, key: str) -> None:
        self._used.pop(key, None)
        self._soon.pop(key, None)

    def _queue(self, idle: Idle, now: float) -> OrderedDict[str, Idle]:
        return self._used if idle.time <= (now + GRAIN) * 1e9 else self._soon

    def next(self, *, spare: bool) -> Idle | None:
        """Taken out. `spare`: not what was fetched ahead."""
        for queue in (self._used,) if spare else (self._used, self._soon):
            if queue:
                return queue.popitem(last=False)[1]
        return None
