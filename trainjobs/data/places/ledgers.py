"""The ledger of a cache folder: one in a process, whichever threads ask."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from trainjobs.data.places.ledger import Ledger

_OPEN: WeakValueDictionary[tuple[int, Path], Ledger] = WeakValueDictionary()
_OPENING = Lock()


def _forked() -> None:
    """In a child: whoever had the lock is not there, and would keep it for ever."""
    global _OPENING
    _OPENING = Lock()


os.register_at_fork(after_in_child=_forked)


def ledger(folder: Path) -> Ledger:
    """The one of a folder that this process has."""
    with _OPENING:
        folder.mkdir(parents=True, exist_ok=True)
        name = (os.getpid(), folder.resolve())
        found = _OPEN.get(name)
        if found is None:
            _OPEN[name] = found = Ledger(name[1])
        return found
