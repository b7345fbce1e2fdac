"""What follows from a metric of the evaluations: a learning rate that falls on a plateau, and a run that ends before its last step.

Both are told the scores of every evaluation, which are the same on every rank, and count in evaluations; what they count is in every
commit, so a run that was killed falls and ends where the undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.follows import rises
from trainjobs.api.training import EarlyStopping, Training
from trainjobs.optim.plateau import Plateau
from trainjobs.state import Stateful


@dataclass
class Stopping:
    """Early stopping: `stale` evaluations running have not been better than the `best` by more than minDelta (Prechelt, "Early stopping,
    but when?", 1998, section 2.2, the third class)."""

    settings: EarlyStopping
    best: float | None = None
    stale: int = 0

    @property
    def over(self) -> bool:
        return self.stale >= self.settings.patience

    @property
    def why(self) -> str:
        metric, patience = self.settings.metric, self.settings.patience
        known = "a number" if self.best is None else f"better than {self.best:.6g}"
        delta = f" by more than {self.settings.min_delta:g}" if self.settings.min_delta else ""
        return f"stopped early: {metric} was not {known}{delta} in {patience} evaluation{'s' if patience > 1 else ''}"

    def told(self, value: float) -> None:
        delta = self.settings.min_delta
        if self.best is None:
            better = value == value  # not NaN
        elif rises(self.settings):
            better = value > self.best + delta
        else:
            better = value < self.best - delta
        self.best, self.stale = (value, 0) if better else (self.best, self.stale + 1)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale}

    def load_state(self, state: dict[str, Any]) -> None:
        self.best, self.stale = state["best"], state["stale"]


@dataclass
class Followed:
    """Of a job, whichever of the two it has."""

    training: Training
    plateau: Plateau | None = field(init=False)
    stopping: Stopping | None = field(init=False)

    def __post_init__(self) -> None:
        schedule, early = self.training.schedule, self.training.early_stopping
        self.plateau = Plateau(schedule, rises(schedule)) if schedule.name == "plateau" else None
        self.stopping = Stopping(early) if early else None

    @property
    def keeps(self) -> dict[str, Stateful]:
        """What a commit keeps, by name."""
        return {name: kept for name, kept in (("plateau", self.plateau), ("stopping", self.stopping)) if kept is not None}

    @property
    def ratio(self) -> float:
        """What the rate of the schedule is multiplied by."""
        return self.plateau.ratio if self.plateau else 1.0

    @property
    def over(self) -> bool:
        return self.stopping is not None and self.stopping.over

    @property
    def why(self) -> str:
        """Why the run ends before its last step; "" when it does not."""
        return self.stopping.why if self.stopping and self.stopping.over else ""

    def told(self, scores: Mapping[str, float]) -> str:
        """The scores of an evaluation; what is to be told of it, mostly nothing. GTJ0102 for a metric that nobody measures, which of a
        custom objective only its first evaluation says."""
        words = []
        if self.plateau:
            schedule = self.training.schedule
            if self.plateau.told(_of(scores, schedule.metric, "spec.training.schedule.metric")):
                words.append(f"{schedule.metric} is on a plateau: learning rates are {self.plateau.ratio:.3g} of their peak from here on")
        if self.stopping:
            self.stopping.told(_of(scores, self.stopping.settings.metric, "spec.training.earlyStopping.metric"))
            words += [self.why] if self.over else []
        return "; ".join(words)


def _of(scores: Mapping[str, float], metric: str, where: str) -> float:
    if metric in scores:
        return scores[metric]
    known = ", ".join(sorted(scores)) or "nothing"
    raise JobError("GTJ0102", f'"{metric}" is not measured', where=where, why=f"the evaluation measured {known}", how="name one of these")
