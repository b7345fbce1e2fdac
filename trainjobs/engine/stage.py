"""Which ZeRO stage a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from trainjobs.api.job import Spec
from trainjobs.data.source import Source
from trainjobs.engine.memory import device_memory
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Model
from trainjobs.optim.groups import Group
from trainjobs.plan.batch import Cut
from trainjobs.plan.memory import NEGLIGIBLE, NOTHING, Beside, Weights, lowest, moments, states
from trainjobs.world import World

UNKNOWN_SHARE = 0.4  # of the memory, left for a step of which nothing can be found out


def choose_stage(spec: Spec, model: Model, groups: Mapping[str, Sequence[Group]], world: World, source: Source, cut: Cut) -> int:
    """The manifest's ZeRO stage, or the lowest at which a rank's step fits: of an elastic group, however small it becomes. What a step
    needs beside the states is looked for only where the states are much of the memory: it takes seconds, no stage divides it,
    and an objective of the user's own may keep what such a look has made."""
    if spec.deepspeed.stage != "auto":
        return spec.deepspeed.stage
    trained = {name: sum(parameter.numel() for group in own for _, parameter in group.parameters) for name, own in groups.items() if own}
    every = sum(parameter.numel() for module in model.modules.values() for parameter in module.parameters())
    kinds = {group.settings.name for own in groups.values() for group in own}
    weights = Weights(trained, every - sum(trained.values()), moments(kinds))
    memory = world.share(device_memory(world.device))  # the same answer on unequal machines
    ranks = spec.compute.worker_range[0] * world.each if spec.compute.elastic else world.size
    precision, highest = spec.training.precision, 0 if "muon" in kinds else model.objective.highest_stage
    if (
        states(weights, 0, ranks, precision) <= NEGLIGIBLE * memory or ranks == 1 or spec.custom
    ):  # a custom one may keep what a fake step made
        return lowest(weights, NOTHING, ranks, precision, memory, highest)
    return lowest(weights, world.lead(_beside, spec, source, cut, memory), ranks, precision, memory, highest)


def _beside(spec: Spec, source: Source, cut: Cut, memory: int) -> Beside:
    from trainjobs.engine.fake_step import Unknown, trace  # torch's fake tensors take a second to import, and few runs need them

    positions = torch.arange(cut.micro)
    rows = source.batch(positions, spec.training.seed, Noise.of(spec.training.seed, 0, "plan", positions))
    try:
        return trace(spec, partial(build, spec, source.info), {name: value.cpu() for name, value in rows.items()}, cut.accumulation).beside
    except Unknown:
        return Beside(round(UNKNOWN_SHARE * memory), round(UNKNOWN_SHARE * memory))
