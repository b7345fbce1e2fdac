"""Which jobs hold a part of their pods, as each one's last look found it.

Nothing that matters is lost with it: a job in that state is looked at every few seconds, so that after a restart the list is whole again
before anybody acts on it, and a job that is missing from it makes the others wait, no more.
"""

from __future__ import annotations

import threading

from gentrain_operator.gang import Holding
from gentrain_operator.kube.store import Key

MOST = 32  # of the oldest and of the youngest: who comes between does not decide


class Rivals:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Key, Holding] = {}

    def told(self, key: Key, mine: Holding | None) -> tuple[Holding, ...]:
        """Keeps what a job holds, None for nothing or all; answers with the others, from the oldest, when it holds a part itself."""
        with self._lock:
            if mine is None:
                self._held.pop(key, None)
                return ()
            self._held[key] = mine
            others = sorted((one for where, one in self._held.items() if where != key), key=lambda one: one.age)
        return tuple(others) if len(others) <= 2 * MOST else (*others[:MOST], *others[-MOST:])
