"""What changes with progress, as pure functions of the step: so far, the learning rate."""

from __future__ import annotations

import math

from trainjobs.api.training import Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """The factor on the peak learning rate at optimizer step `step` of `steps` (counted from 0).

    Linear warm-up reaches 1 after `warmup_steps` updates, the first of which already moves: (step + 1) / warmup. After it the
    cosine (Loshchilov and Hutter, 2017) or linear decay ends at `final_ratio` on the last step.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return 1.0
    span = max(1, steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / span)
    shape = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1.0 - progress
    return schedule.final_ratio + (1.0 - schedule.final_ratio) * shape
