"""What rank 0 says aloud while it trains: lines of its log, or of its pod's, for `gtj logs --rank 0`.

The files of the run folder hold the same and more; a log is where people look first, also when the folder is on another machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from trainjobs.api.metrics import WAIT
from trainjobs.run.numbers import short, waiting

EVERY = 10.0  # seconds between lines about steps


def stamp(now: float) -> str:
    """Local time, as Python's logging writes it: `gtj logs --since` reads it."""
    return datetime.fromtimestamp(now).strftime("%Y-%m-%d %H:%M:%S")


def aloud(line: str) -> None:
    """To this process's output, at once. A log on a full disk ends no training."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


class Diary:
    """Writes lines by `say`: every event, and a line about the steps every ten seconds, the first and the last among them."""

    def __init__(self, steps: int, say: Callable[[str], None], now: Callable[[], float] = time.time) -> None:
        """`steps` of the whole run."""
        self._steps, self._say, self._now = steps, say, now
        self._due = now()

    def event(self, kind: str, step: int | None = None, message: str = "") -> None:
        at = "" if step is None else f" at step {step}"
        self._line(f"{kind}{at}" + (f": {message}" if message else ""))

    def stepped(self, step: int, metrics: Mapping[str, float], rate: str) -> None:
        """`rate` in words, such as "1264 samples/s"."""
        now = self._now()
        if now < self._due and step < self._steps:
            return
        self._due = now + EVERY
        shown = [f"{name} {short(value)}" for name, value in metrics.items() if not name.startswith("lr/") and name != WAIT]
        parts = [f"step {step}/{self._steps}", *shown, rate, waiting(metrics.get(WAIT))]
        self._line(", ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._say(f"{stamp(self._now())} {text}")
