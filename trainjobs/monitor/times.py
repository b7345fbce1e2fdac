"""Where a run's time goes, to steps, evaluations and saves; and how much is still to come of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from trainjobs.plan.beside import Beside, dues
from trainjobs.run.numbers import number
from trainjobs.run.progress import Rate

Kind = Literal["scores", "drawings", "saves"]  # evaluations without samples, and with them, and checkpoints
PARTS = ("steps", "evaluations", "saves")


@dataclass
class Took:
    """So many of a kind, in this attempt; `past` is the step up to which they are done."""

    past: int
    seconds: float = 0.0
    count: int = 0


@dataclass
class Times:
    """Of a run of `steps` steps. `before` is the time spent by earlier attempts, as `spent` says it; `begin` says where this one starts."""

    steps: int
    plan: Beside
    minutes: float | None = None  # between saves, where the clock decides
    before: Mapping[str, object] = field(default_factory=dict)
    now: Callable[[], float] = time.monotonic
    per_second: float = 0.0  # steps, smoothed; 0 while it cannot be told
    _took: dict[Kind, Took] = field(default_factory=dict)
    _under_way: tuple[Kind, float] | None = None

    def __post_init__(self) -> None:
        self._rate = Rate(self.now)

    def begin(self, step: int) -> None:
        """The run goes on from `step`: it starts, or has gone back."""
        self._rate.start(step)
        for kind in ("scores", "drawings", "saves"):
            took = self._took.setdefault(kind, Took(step))
            took.past = step

    def look(self, step: int) -> float:
        """Steps per second since the last look."""
        rate = self._rate.look(step)
        self.per_second = rate if self.per_second == 0 else 0.7 * self.per_second + 0.3 * rate
        return rate

    @contextmanager
    def aside(self, kind: Kind, step: int) -> Iterator[None]:
        """Time in the block is not time of steps."""
        began = self.now()
        self._under_way = kind, began
        try:
            yield
        finally:
            took, seconds = self._took[kind], self.now() - began
            self._under_way = None
            self._rate.away(seconds)
            took.past, took.seconds, took.count = step, took.seconds + seconds, took.count + 1

    def left(self, step: int) -> float | None:
        """Seconds to the end of the run, `step` steps being done. What is still to come takes as long as it took so far in this attempt;
        the first evaluation, as many steps as it is counted for."""
        if not self.per_second:
            return None
        left = (self.steps - step) / self.per_second
        each = {kind: self._mean(kind) for kind in self._took}
        left += sum(self._to_come(kind, step) * seconds for kind, seconds in each.items())
        if self.minutes:
            left *= 1 + each["saves"] / (60 * self.minutes)
        if self._under_way is not None:
            kind, began = self._under_way
            left -= min(each[kind], self.now() - began)
        return max(0.0, left)

    def spent(self) -> dict[str, float]:
        """Seconds, over all attempts: {"steps": ..., "evaluations": ..., "saves": ...}."""
        took = {kind: took.seconds for kind, took in self._took.items()}
        here = {
            "steps": self._rate.seconds,
            "evaluations": took.get("scores", 0.0) + took.get("drawings", 0.0),
            "saves": took.get("saves", 0.0),
        }
        return {part: round((number(self.before.get(part)) or 0.0) + here[part], 3) for part in PARTS}

    def _mean(self, kind: Kind) -> float:
        """Seconds of one."""
        took = self._took[kind]
        if took.count:
            return took.seconds / took.count
        counted = {"scores": self.plan.score, "drawings": self.plan.score + self.plan.draw, "saves": 0.0}
        return counted[kind] / self.per_second if self.per_second else 0.0

    def _to_come(self, kind: Kind, step: int) -> int:
        """How many, with one that is due at `step` and not yet done."""
        if kind == "saves":
            return dues(self._behind(step, "saves"), self.steps, self.plan.save)
        looks = dues(self._behind(step, "scores", "drawings"), self.steps, self.plan.every)
        drawings = looks if self.plan.each else min(1, looks)
        return drawings if kind == "drawings" else looks - drawings

    def _behind(self, step: int, *kinds: Kind) -> int:
        return step if any(self._took[kind].past == step for kind in kinds) else step - 1
