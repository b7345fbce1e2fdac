"""Which ZeRO stage a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from trainjobs.api.job import Spec
from trainjobs.data.pretrained import base_of
from trainjobs.data.source import Source, squares
from trainjobs.engine.memory import device_memory
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Model
from trainjobs.objectives.shaped import highest_of, weights_of
from trainjobs.optim.groups import Group
from trainjobs.plan.batch import Cut
from trainjobs.plan.memory import NEGLIGIBLE, NOTHING, Beside, lowest, states
from trainjobs.world import World

UNKNOWN_SHARE = 0.4  # of the memory, left for a step of which nothing can be found out


def choose_stage(spec: Spec, model: Model, groups: Mapping[str, Sequence[Group]], world: World, source: Source, cut: Cut) -> int:
    """The manifest's ZeRO stage, or the lowest at which a rank's step fits: of an elastic group, however small it becomes. What a step
    needs beside the states is looked for only where the states are much of the memory: it takes seconds, no stage divides it,
    and an objective of the user's own may keep what such a look has made."""
    if spec.deepspeed.stage != "auto":
        return spec.deepspeed.stage
    weights = weights_of(model, groups)
    memory = world.share(device_memory(world.device))  # the same answer on unequal machines
    ranks = spec.compute.worker_range[0] * world.each if spec.compute.elastic else world.size
    precision, highest = spec.training.precision, highest_of(model, groups, spec)
    beside = NOTHING
    if states(weights, 0, ranks, precision) > NEGLIGIBLE * memory and ranks > 1 and not spec.custom:
        beside = world.lead(_beside, spec, model, source, cut, memory)
    return lowest(weights, beside, ranks, precision, memory, highest)


def _beside(spec: Spec, model: Model, source: Source, cut: Cut, memory: int) -> Beside:
    from trainjobs.engine.fake_step import Unknown, trace  # torch's fake tensors take a second to import, and few runs need them

    positions = torch.arange(cut.micro)
    rows = squares(source).batch(positions, spec.training.seed, Noise.of(spec.training.seed, 0, "plan", positions))
    make = partial(build, spec, source.info) if base_of(spec) is None else lambda: model  # weights that were read are not read again
    try:
        return trace(spec, make, {name: value.cpu() for name, value in rows.items()}, cut.accumulation).beside
    except Unknown:
        return Beside(round(UNKNOWN_SHARE * memory), round(UNKNOWN_SHARE * memory))
