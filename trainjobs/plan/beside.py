"""What a run does beside its steps, and when: held-out scores, samples, checkpoints.

What a manifest names is done as named. What it leaves out is chosen so that evaluations take a tenth of the run at most. Time is not
looked at: the choice is counted in passes of networks, so it is the same on every worker, after every restart and on every machine.

The unit is the step: three forward passes over the global batch (backward costs two). A pass is never counted as less than a quarter of
one over the global batch, because on a GPU a small one takes as long as a larger one; on one core a pass over 1 image of 16 x 16 pixels
took 4 % of one over 64, over 4 images 7 %. A token that is drawn counts as three tokens of a sequence: 64 texts of 128 tokens took
2.3 times as long, token by token, as one pass over all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainjobs.api.evaluation import LONGEST_SAMPLE, SAMPLES
from trainjobs.api.follows import followed
from trainjobs.api.job import Spec

SHARE = 10  # evaluations that the manifest leaves open take one part in so many of the run, at most
LOOKS = 10  # a run, where there is time
TRAINED = 3  # forward passes that a row of a step costs
TOKEN = 3  # tokens of a sequence that a token costs which is drawn alone
SMALLEST = 4  # a pass counts at least as one part in so many of a pass over the global batch
GRIDS = (64, 49, 36, 25, 16, 9, 4)  # numbers of samples, each a square
WORTH = 16  # samples worth drawing ten times; where they are too many, more are drawn once


@dataclass(frozen=True)
class Beside:
    """Held-out scores every `every` steps, None for only after the last; `samples` are drawn each time, or (not `each`) only then. A
    checkpoint every `save` steps, None when the clock decides. `score` and `draw` are what one evaluation costs, in steps. `told` says
    what was chosen otherwise than usual, "" when nothing was."""

    every: int | None
    samples: int
    each: bool
    save: int | None
    score: float
    draw: float
    told: str

    def drawn(self, last: bool) -> int:
        """Samples of an evaluation."""
        return self.samples if self.each or last else 0


def beside(spec: Spec, heldout: int, generated: int) -> Beside:
    """Of a job whose scores look at so many held-out samples and draw so many samples of their own."""
    given, steps = spec.evaluation, spec.training.steps
    tenth = max(1, math.ceil(steps / LOOKS))
    often = math.ceil(steps / (given.every_steps or tenth))
    once, budget = score(spec, heldout, generated), steps / (SHARE - 1)
    # Whoever keeps the best checkpoint has asked for a score of each, and so has a rate or an end that follows one.
    asked = given.every_steps is not None or spec.checkpoints.keep.best is not None or bool(followed(spec))
    every = given.every_steps or (tenth if asked or often * once <= budget / 2 else None)
    left = budget - once * (often if every else 1)
    samples, each = chosen(spec, often if every else 1, left)
    if given.every_steps is not None and given.samples is not None:
        each = True
    if not each and not asked and once == 0.0:
        every, each = None, True  # there would be nothing to see in between
    told = told_of(spec, every is None, samples, each, often, once)
    return Beside(every, samples, each, save_interval(spec), once, draw(spec, samples), told)


def chosen(spec: Spec, often: int, left: float) -> tuple[int, bool]:
    """How many samples, and whether at every one of `often` evaluations, for the cost of `left` steps; four if nothing fits."""
    counts = (spec.evaluation.samples,) if spec.evaluation.samples else GRIDS
    for count in counts:
        if (count >= WORTH or spec.evaluation.samples) and often * draw(spec, count) <= left:
            return count, True
    return next((count for count in counts if draw(spec, count) <= left), counts[-1]), often == 1


def told_of(spec: Spec, at_the_end: bool, samples: int, each: bool, often: int, once: float) -> str:
    """The choice, and what it spares."""
    usual = spec.evaluation.samples or SAMPLES
    few = samples < usual
    if not (at_the_end and often > 1) and not few and each:
        return ""
    count = f"samples: {usual} -> {samples}" if few else f"samples: {samples}"
    only = ", only at the end" if not each or at_the_end else ""
    scores = "; held-out scores only at the end" if at_the_end and often > 1 else ""
    spared = often * (once + draw(spec, usual)) / spec.training.steps
    times = f"{often} evaluations" if often > 1 else "an evaluation"
    why = f"{times} of {usual} samples would count as {spared:.0%} of the training"
    return f"{count}{only}{scores}: {why}; evaluation.everySteps and evaluation.samples decide otherwise"


def score(spec: Spec, heldout: int, generated: int) -> float:
    """What the scores of one evaluation cost, in steps."""
    smallest = spec.training.batch.global_ / SMALLEST
    held = max(float(heldout), smallest) if heldout and not spec.gan else 0.0  # nothing is measured of a GAN on held-out samples
    looks = 2 if spec.training.ema else 1  # the average, and the weights themselves
    return looks * held / (TRAINED * spec.training.batch.global_) + draw(spec, generated)


def draw(spec: Spec, count: int) -> float:
    """What `count` samples cost, in steps."""
    if count == 0:
        return 0.0
    weight = min(1.0, TOKEN / spec.language.network.context_length) if spec.language else 1.0
    rows = max(count * weight, spec.training.batch.global_ / SMALLEST)
    return passes(spec) * rows / (TRAINED * spec.training.batch.global_)


def passes(spec: Spec) -> int:
    """Passes of a network, one after the other, that a sample takes. Of a custom objective nobody knows: one is taken."""
    if spec.diffusion:
        return spec.diffusion.evaluations
    if spec.language is None or spec.language.task == "masked":
        return 1
    return min(spec.language.network.context_length, LONGEST_SAMPLE)


def due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def dues(after: int, steps: int, every: int | None) -> int:
    """How often it is due behind step `after`; the last step always is."""
    if after >= steps:
        return 0
    within = steps // every - after // every if every else 0
    return within + (0 if every and steps % every == 0 else 1)


def save_interval(spec: Spec) -> int | None:
    """Steps between checkpoints: as the manifest says, else a tenth of the run; None when the clock decides."""
    every = spec.checkpoints.every
    return math.ceil(spec.training.steps / 10) if every is None else every.steps
