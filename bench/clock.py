"""When the steps of a run have ended, and what its process has used by then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.plain_loops import WARM


class Enough(Exception):
    """All steps have been clocked: a peer that cannot be told a number of steps is stopped by it."""


def peak() -> int:
    """Bytes that this process has had in memory at most. Not ru_maxrss, which begins with that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@dataclass
class Clock:
    """`ended` is told the number of every step that has ended, from 1."""

    total: int
    first: float = 0.0  # seconds since the epoch
    begun: tuple[float, float] = (0.0, 0.0)  # wall and processor, after WARM steps
    over: tuple[float, float] | None = None  # after the last
    memory: int = field(default=0)

    def ended(self, step: int) -> None:
        if step == 1:
            self.first = time.time()
        if step == WARM:
            self.begun = time.perf_counter(), time.process_time()
        if step == self.total and self.over is None:
            self.over = time.perf_counter(), time.process_time()
            self.memory = peak()

    def told(self, size: int, started: float) -> Mapping[str, float]:
        """Samples per second by the clock and by processor time, seconds to the first step, bytes; `size` samples a step."""
        assert self.over is not None, "not every step was clocked"
        wall, processor = self.over[0] - self.begun[0], self.over[1] - self.begun[1]
        samples = (self.total - WARM) * size
        return {
            "rate": samples / wall,
            "rate_processor": samples / processor,
            "first": self.first - started,
            "memory": self.memory,
        }
