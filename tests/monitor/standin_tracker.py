"""A tracker that keeps what it is told in memory, and fails or hangs when asked to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from trainjobs.monitor import trackers
from trainjobs.monitor.trackers import Tracked


class Standin:
    """`hold`, cleared, lets calls wait; `broken` has calls that raise, `refusal` makes what they raise."""

    def __init__(self) -> None:
        self.started: list[Tracked] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: list[bool] = []
        self.broken = set[str]()
        self.hold, self.holding = threading.Event(), threading.Event()
        self.hold.set()
        self.called: dict[str, threading.Event] = {name: threading.Event() for name in ("start", "log", "finish")}
        self.by = set[int]()  # the threads that called
        self.refusal: Callable[[str], BaseException] = lambda name: ConnectionError(f"{name} is refused")

    def _call(self, name: str) -> None:
        self.by.add(threading.get_ident())
        self.called[name].set()
        if not self.hold.is_set():
            self.holding.set()
            self.hold.wait(20)
        if name in self.broken:
            raise self.refusal(name)

    def start(self, run: Tracked) -> None:
        self._call("start")
        self.started.append(run)

    def log(self, step: int, row: Mapping[str, float], time: float) -> None:
        self._call("log")
        self.rows.append((step, dict(row)))

    def finish(self, succeeded: bool) -> None:
        self._call("finish")
        self.ended.append(succeeded)


def in_place_of(monkeypatch: pytest.MonkeyPatch | None = None) -> Standin:
    """One stand-in for every tracker."""
    found = Standin()
    made: dict[str, Any] = dict.fromkeys(trackers.TRACKERS, lambda: found)
    if monkeypatch is None:
        trackers.TRACKERS.update(made)
    else:
        monkeypatch.setattr(trackers, "TRACKERS", made)
    return found
