"""A learning rate that falls when a metric no longer gets better: torch.optim.lr_scheduler.ReduceLROnPlateau's semantics, counted in
evaluations. With m the metric, for which lower is better, and `threshold` relative:

    better   m < best (1 - threshold)        (higher is better: m > best (1 + threshold))
    bad      evaluations running that were not better, none of them while it cools down
    ratio    max(factor ratio, minRatio) once bad > patience, and then it cools down for `cooldown` evaluations
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainjobs.api.training import Schedule


@dataclass
class Plateau:
    """`ratio` is what the rate of the schedule is multiplied by; higher is better where it `rises`. The state is in every commit."""

    schedule: Schedule
    rises: bool
    ratio: float = 1.0
    best: float | None = None
    bad: int = 0
    cooling: int = 0

    def told(self, value: float) -> bool:
        """The metric of an evaluation; whether the ratio falls."""
        if self._better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad <= self.schedule.patience:
            return False
        before, self.ratio = self.ratio, max(self.ratio * self.schedule.factor, self.schedule.min_ratio)
        self.bad, self.cooling = 0, self.schedule.cooldown
        return self.ratio < before

    def _better(self, value: float) -> bool:
        if self.best is None:
            return value == value  # not NaN
        margin = 1.0 + self.schedule.threshold if self.rises else 1.0 - self.schedule.threshold
        return value > self.best * margin if self.rises else value < self.best * margin

    def state(self) -> dict[str, Any]:
        return {"ratio": self.ratio, "best": self.best, "bad": self.bad, "cooling": self.cooling}

    def load_state(self, state: dict[str, Any]) -> None:
        self.ratio, self.best, self.bad, self.cooling = state["ratio"], state["best"], state["bad"], state["cooling"]
