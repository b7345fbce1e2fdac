"""Which ZeRO stage a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainjobs.api.job import Spec
from trainjobs.engine.memory import device_memory
from trainjobs.objectives.phase import Model
from trainjobs.optim.groups import Group
from trainjobs.plan.stage import lowest_stage
from trainjobs.world import World


def choose_stage(spec: Spec, model: Model, groups: Mapping[str, Sequence[Group]], world: World) -> int:
    """The manifest's ZeRO stage, or the lowest at which trained and frozen weights fit: of an elastic group, however small it becomes."""
    if spec.deepspeed.stage != "auto":
        return spec.deepspeed.stage
    trained = sum(parameter.numel() for own in groups.values() for group in own for _, parameter in group.parameters)
    every = sum(parameter.numel() for module in model.modules.values() for parameter in module.parameters())
    memory = world.share(device_memory(world.device))  # the same answer on unequal machines
    ranks = spec.compute.worker_range[0] * world.each if spec.compute.elastic else world.size
    highest = model.objective.highest_stage
    if any(group.settings.name == "muon" for own in groups.values() for group in own):
        highest = 0
    return lowest_stage(trained, ranks, spec.training.precision, memory, highest=highest, frozen=every - trained)
