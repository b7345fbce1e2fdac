"""Locks of the operating system that die with whoever has them, as many as there are keys, in one file; and a number that it keeps.

They are POSIX's (fcntl): bytes of a file, which belong to a process. So a process opens the file once, its threads agree in memory, and a
process that is killed has none. One that is shared becomes one's own, and back, in a single step.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Lock

DIGITS = 20  # of the number, at the file's beginning
FIRST = 1024  # the byte that is locked for the first key; byte 0 is for all
WANTED = FIRST + 16**15  # the same of those that are wanted


class Locks:
    """Keys are hexadecimal digits, of which 15 count. Raises OSError, ENOLCK where the file system has no locks."""

    def __init__(self, path: Path) -> None:
        self.changed = Condition(Lock())  # of this process: has its lock whoever is `alone`
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._file)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Among all threads of all processes."""
        with self.changed:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def share(self, key: str) -> bool:
        """With other processes; False when one of them has it for itself."""
        return self._lock(key, fcntl.LOCK_SH)

    def own(self, key: str) -> bool:
        """Among processes; False when another has it in any way."""
        return self._lock(key, fcntl.LOCK_EX)

    def free(self, key: str) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(key))

    def want(self, key: str) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _byte(key, WANTED))

    def want_no_more(self, key: str) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(key, WANTED))

    def wanted(self, key: str) -> bool:
        """By another process; asked of what this one does not want itself."""
        if not self._lock(key, fcntl.LOCK_EX, WANTED):
            return True
        self.want_no_more(key)
        return False

    @property
    def number(self) -> int:
        return int(os.pread(self._file, DIGITS, 0) or b"0")

    @number.setter
    def number(self, value: int) -> None:
        os.pwrite(self._file, f"{value:0{DIGITS}d}".encode(), 0)

    def _lock(self, key: str, how: int, first: int = FIRST) -> bool:
        try:
            fcntl.lockf(self._file, how | fcntl.LOCK_NB, 1, _byte(key, first))
        except (BlockingIOError, PermissionError):
            return False
        return True


def _byte(key: str, first: int = FIRST) -> int:
    return first + int(key[:15], 16)
