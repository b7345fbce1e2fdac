"""Which objects a process will hold soon, as all processes of the machine see it: of each a byte that all who want it share.

So one that has passed an object does not give away what another, whose samples lie a little behind, has yet to read. Whoever is killed
wants nothing any more. Asked and changed only among `Locks.alone`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trainjobs.data.places.locks import Locks


class Wants:
    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._mine: Counter[str] = Counter()  # by how many of this process's shelves

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            if not self._mine[key]:
                self._locks.want(key)
            self._mine[key] += 1

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._mine[key] -= 1
            if self._mine[key] <= 0:
                del self._mine[key]
                self._locks.want_no_more(key)

    def __contains__(self, key: str) -> bool:
        """Whether any process wants it."""
        return key in self._mine or self._locks.wanted(key)
