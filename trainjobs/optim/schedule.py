"""What changes with progress, as pure functions of the step: the learning rate, and how much a moving average keeps."""

from __future__ import annotations

import math

from trainjobs.api.training import Ema, Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """The factor on the peak learning rate at optimizer step `step` of `steps` (counted from 0).

    Linear warm-up reaches 1 after `warmup_steps` updates, the first of which already moves: (step + 1) / warmup. After it the
    cosine (Loshchilov and Hutter, 2017) or linear decay ends at `final_ratio` on the last step. What a plateau takes is not a function of
    the step, and a factor beside this one (plateau.py).
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.name in ("constant", "plateau"):
        return 1.0
    span = max(1, steps - 1 - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps) / span)
    shape = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1.0 - progress
    return schedule.final_ratio + (1.0 - schedule.final_ratio) * shape


def kept(ema: Ema, step: int, batch: int) -> float:
    """The share of the moving average that the update after optimizer step `step` (counted from 0) keeps; `batch` is the
    samples of a step.

    While it warms up that is at most (1 + t) / (10 + t), and nothing after the first step, as in diffusers' EMAModel and in
    tf.train.ExponentialMovingAverage with num_updates: the average is then of about the last tenth of what has been trained, and holds
    nothing of the random weights that a run starts with. A function of the step alone, so a resumed run needs no counter of its own.
    """
    decay = ema.decays(batch)
    if not ema.warmup:
        return decay
    return min(decay, (1 + step) / (10 + step)) if step > 0 else 0.0
