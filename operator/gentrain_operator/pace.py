"""How often what a pod says is written: at most once in the time between two polls, whatever it says and however often it is asked.

A pod chooses what it reports, so it must not choose how much is written. What the cluster does (an attempt's beginning and end, its pods,
its suspension) is written at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gentrain_operator import polls
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key

# What a report alone can change.
SAID = {"progress", "summary", "message", "checkpoint", "plan", "cost", "activeSeconds", "activeUntil"}
SAID_CONDITIONS = {"Ready", "Running", "CheckpointReady"}
SAID_PHASES = {"Starting", "Running", "Recovering"}


def said_only(before: Object, after: Object) -> bool:
    """Whether two statuses differ in nothing but what the pod says."""
    return _rest(before) == _rest(after)


def _rest(status: Object) -> Object:
    out = {name: value for name, value in status.items() if name not in SAID}
    if out.get("phase") in SAID_PHASES:
        out["phase"] = "by report"
    shown = [one for one in status.get("conditions") or () if one["type"] not in SAID_CONDITIONS]
    out["conditions"] = [(one["type"], one["status"], one["reason"]) for one in shown]
    return out


class Pace:
    """Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._written: dict[Key, float] = {}

    def wait(self, key: Key, before: Object, after: Object) -> float:
        """Seconds for which the new status has to wait; 0: write it now."""
        if not said_only(before, after):
            return 0.0
        with self._lock:
            last = self._written.get(key)
        return max(0.0, last + polls.EVERY - self._clock()) if last is not None else 0.0

    def wrote(self, key: Key) -> None:
        with self._lock:
            self._written[key] = self._clock()

    def forget(self, key: Key) -> None:
        with self._lock:
            self._written.pop(key, None)
