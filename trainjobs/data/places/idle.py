"""What lies in a cache and is held by nobody, in the order in which it is dropped."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KEY = re.compile("[0-9a-f]{32}")
SOON = 3600.0  # seconds for which what was fetched ahead is spared by others that are fetched ahead, also if nobody says that he wants it
PASSED = SOON / 2  # the same of what a process has passed, and another has yet to read
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

    def spared(self, key: str) -> bool:
        return key in self._soon

    def passed(self, now: float) -> list[str]:
        """Those that somebody has passed."""
        return [each.key for each in self._soon.values() if each.time < (now + PASSED) * 1e9]

    def discard(self, key: str) -> None:
        self._used.pop(key, None)
        self._soon.pop(key, None)

    def _queue(self, idle: Idle, now: float) -> OrderedDict[str, Idle]:
        return self._used if idle.time <= (now + GRAIN) * 1e9 else self._soon

    def used(self) -> Idle | None:
        """The one that was used longest ago, taken out."""
        return self._used.popitem(last=False)[1] if self._used else None

    def ahead(self) -> Idle | None:
        """The one that was fetched ahead last, as it is needed last, taken out."""
        return self._soon.pop(max(self._soon.values()).key) if self._soon else None


def found_in(folder: Path) -> tuple[list[Idle], set[str], dict[str, int]]:
    """What lies in a cache: objects that are whole, held or not; keys of those on their way; and the room that is claimed, by keys."""
    whole, partial, claims = list[Idle](), set[str](), dict[str, int]()
    for entry in os.scandir(folder):
        key, _, rest = entry.name.partition(".")
        if not KEY.fullmatch(key):  # somebody else's
            continue
        if rest == "partial":
            partial.add(key)
        elif rest.removesuffix(".claim").isdigit():
            claims[key] = int(rest.removesuffix(".claim"))
        elif not rest:
            status = entry.stat()
            whole.append(Idle(status.st_mtime_ns, key, status.st_size))
    return whole, partial, claims
