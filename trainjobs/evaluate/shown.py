"""What a model's samples are looked at beside: real samples, and held-out ones as the model gives them back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainjobs.api.job import Spec
from trainjobs.data.latents import unencoded
from trainjobs.data.source import Source, squares
from trainjobs.evaluate.learned import texts
from trainjobs.evaluate.score import dealt, joined
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Reconstructing, Rows, Samples

PAIRS = 32  # reconstructions that are drawn, each under its original


@dataclass(frozen=True)
class Pairs:
    """Sample n of `rebuilt` is what the model made of sample n of `originals`."""

    originals: Samples
    rebuilt: Samples


def real(source: Source, spec: Spec, wanted: int) -> Samples | None:
    """`wanted` real samples: the first held-out ones, or of the training data where none is held out. None for data that cannot be
    looked at."""
    source = unencoded(source)
    info = source.info
    if info.heldout:
        return visible(source.heldout_batch(torch.arange(min(wanted, info.heldout))), source)
    rows = torch.arange(min(wanted, info.length))
    return visible(squares(source).batch(rows, spec.training.seed, Noise.of(spec.training.seed, 0, "shown", rows)), source)


def visible(rows: Rows, source: Source) -> Samples | None:
    """A batch of data as what people look at. The tokens of a text lose the one that is only predicted."""
    if "image" in rows:
        return Samples(images=rows["image"])
    if "point" in rows:
        return Samples(points=rows["point"])
    if "tokens" in rows and source.info.tokenizer is not None:
        if source.info.form:
            return Samples(texts=tuple(texts(rows, source.info.tokenizer.decode)))
        return Samples(texts=tuple(source.info.tokenizer.decode(tokens) for tokens in rows["tokens"][:, :-1].tolist()))
    return None


def reconstructions(setting: Setting, at: At) -> Pairs | None:
    """Held-out samples and what the model makes of them, on rank 0; elsewhere none. None for a model that reconstructs nothing.

    Every rank must call it, and each does its share: at ZeRO stage 3 a forward pass needs all of them.
    """
    source, objective, world = setting.source, setting.objective, setting.world
    if not isinstance(objective, Reconstructing) or not source.info.heldout:
        return None
    originals, rebuilt = [], []
    with setting.inference():
        for rows, counts in dealt(min(PAIRS, source.info.heldout), setting.micro, world.rank, world.size):
            batch = setting.heldout(rows, at)
            made = objective.reconstruct(batch)
            seen = visible(batch.data, source)
            if counts and seen is not None:
                originals.append(seen)
                rebuilt.append(made)
    # Turn by turn, as the rows were dealt.
    ours, theirs = world.collect(originals), world.collect(rebuilt)
    turns = max(map(len, ours), default=0)
    whole = [joined([share[turn] for turn in range(turns) for share in side if turn < len(share)]) for side in (ours, theirs)]
    return Pairs(*whole) if turns else None
