"""Loss spikes: a loss far above what it has been, by its exponentially weighted mean and variance.

With x_n the loss of step n, and a_n = max(1/n, 1/window), so that the first `window` steps are averaged plainly:

    z_n    = (x_n - m_(n-1)) / max(sqrt(v_(n-1)), FLOOR |m_(n-1)|)
    d      = x_n - m_(n-1)
    m_n    = m_(n-1) + a_n d
    v_n    = (1 - a_n) (v_(n-1) + a_n d^2)

(West, "Updating mean and variance estimates", 1979; Finch, "Incremental calculation of weighted mean and variance", 2009.) Step n is a
spike when z_n exceeds the threshold and `window` steps came before it. Only a rise counts: a loss that falls is what training is for. A
spike enters the averages as the value at the threshold, so one of them hardly moves what is normal, and a loss that has risen for good
becomes normal in some tens of steps.

The state is three numbers a loss, and depends on nothing but the losses before it, each the mean over the ranks in their order: a run
that goes on from a commit with the state it had there finds the spikes that the undisturbed run finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FLOOR = 0.01  # of the mean: a loss that hardly moves is not said to spike when it moves by less than this times the threshold


@dataclass(frozen=True)
class Average:
    """What a loss has been over the last `count` steps or the last `window`, whichever is less."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation, or the floor."""
        return max(math.sqrt(self.variance), FLOOR * abs(self.mean))

    def rises(self, value: float) -> float:
        """By how many standard deviations `value` is above the mean; 0 where a loss has been exactly 0, and its scale is unknown."""
        return (value - self.mean) / self.deviation if self.deviation else 0.0

    def after(self, value: float, window: int) -> Average:
        share = max(1 / (self.count + 1), 1 / window)
        rise = value - self.mean
        return Average(self.count + 1, self.mean + share * rise, (1 - share) * (self.variance + share * rise * rise))


@dataclass(frozen=True)
class Spike:
    """Loss `name` was `value` where `mean` is usual, `z` standard deviations too high."""

    name: str
    value: float
    mean: float
    z: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}, {self.z:.1f} standard deviations above its mean of {self.mean:.4g}"


@dataclass(frozen=True)
class LossAverages:
    """What every loss has been, and which of them were too high at the last step."""

    averages: Mapping[str, Average]
    high: frozenset[str] = frozenset()

    def after(self, losses: Mapping[str, float], window: int, threshold: float) -> tuple[LossAverages, list[Spike]]:
        """One step further, and the spikes that begin at it. A loss that is absent from a step, or not finite, is as it was."""
        averages, begun, high = dict(self.averages), [], set(self.high)
        for name, value in sorted(losses.items()):
            if not math.isfinite(value):
                continue
            known = averages.get(name, Average())
            z = known.rises(value) if known.count >= window else 0.0
            if z > threshold:
                if name not in high:
                    begun.append(Spike(name, value, known.mean, z))
                high.add(name)
                value = known.mean + threshold * known.deviation
            else:
                high.discard(name)
            averages[name] = known.after(value, window)
        return LossAverages(averages, frozenset(high)), begun

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON, which keeps every bit of a float: [count, mean, variance, 1 while too high] by name."""
        return {name: [known.count, known.mean, known.variance, float(name in self.high)] for name, known in self.averages.items()}

    @classmethod
    def from_dict(cls, told: Mapping[str, list[float]]) -> LossAverages:
        averages = {name: Average(int(count), mean, variance) for name, (count, mean, variance, _) in told.items()}
        return cls(averages, frozenset(name for name, row in told.items() if row[3]))


NOTHING = LossAverages({})
