"""The loss over the training pictures, at noise that is held out: `heldout/instance`.

Where a model is tuned on a handful of pictures (DreamBooth, textual inversion), none can be held out. But a picture is learned with a
noise and at a timestep that are drawn anew in each step, and those can be: the n pictures that are trained on, of which at most 256 are
looked at, are each given k = max(1, 256 / n) noises and timesteps, the same at every evaluation, none of which training draws. Row r is
picture r / k at position r / k of the first epoch; its loss is that of held-out pictures, with the timesteps of consecutive rows spread
evenly, and the mean is over all rows alike. It falls as the pictures are learned, and says nothing of other pictures: while it falls, the
model may forget what it could do before.
"""

from __future__ import annotations

from torch import Tensor

from trainjobs.evaluate.heldout import LOOKED_AT, Heldout
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch

WORD = "instance"  # of evaluation.metrics
NAME = "heldout/instance"


def rows_of(length: int) -> int:
    """How many rows there are, of so many training pictures."""
    return min(length, LOOKED_AT) * _each(length)


def instance(setting: Setting, at: At, looking: Looking) -> dict[str, float]:
    """{NAME: the mean}, equal on every rank; {} for an objective without a held-out loss. Every rank calls this, in inference."""
    score, objective = Heldout(setting.objective.heldout), setting.objective
    total = rows_of(setting.source.info.length)
    for rows, counts in looking.turns("evaluating training pictures,", total, setting.micro, setting.world):
        batch = _batch(setting, rows, at)
        if counts:
            score.add(batch, None)
        else:
            objective.heldout(batch)  # the other ranks need this one's share of the weights
    found = score.result(setting.world)
    return {NAME: found["heldout/loss"]} if "heldout/loss" in found else {}


def _batch(setting: Setting, rows: Tensor, at: At) -> Batch:
    seed = setting.spec.training.seed
    noise = Noise.of(seed, 0, WORD, rows.to(setting.world.device))
    data = setting.source.batch(rows // _each(setting.source.info.length), seed, noise)
    return Batch(data, noise, len(rows), at)


def _each(length: int) -> int:
    return max(1, LOOKED_AT // length)
