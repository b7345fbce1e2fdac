"""What was decoded lately and may be wanted again: of a row group, or a packed file, one row is read at a time, and all of it decoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

LIMIT = 256 * 1024 * 1024  # bytes, of each process


class Recent:
    """Values by key, up to `limit` bytes in all; those used longest ago are dropped first. Threads that want the same wait for one of them
    to make it. A value larger than the limit is made and not kept."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """The value, which `make` gives with its size in bytes where it is not there."""
        with self._lock:
            if (found := self._there(key)) is not None:
                return found[0]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if (found := self._there(key)) is not None:
                    return found[0]
            try:
                value, size = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            with self._lock:
                self._keep(key, value, size)
            return value

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._values

    def _there(self, key: Hashable) -> tuple[Any, int] | None:
        if (found := self._values.get(key)) is not None:
            self._values.move_to_end(key)
        return found

    def _keep(self, key: Hashable, value: Any, size: int) -> None:
        if size > self.limit or key in self._values:
            return
        self._values[key] = value, size
        self.bytes += size
        while self.bytes > self.limit:
            _, (_, dropped) = self._values.popitem(last=False)
            self.bytes -= dropped


RECENT = Recent()
