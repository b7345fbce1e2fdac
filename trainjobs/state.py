"""Where a run stands: two counters, and the moving average of the weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class State:
    """All progress of a run. Order of data, noise, rates and averages follow from it, so resuming restores nothing else.

    `step` counts optimizer steps (of a GAN: of the generator), `samples` positions in the stream of training data.
    """

    step: int = 0
    samples: int = 0
