"""What `training` asks of any model: which of its parameters train from which step on, and what its losses have beside their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from trainjobs.api.job import Spec
from trainjobs.objectives.diffusion.objective import DiffusionObjective
from trainjobs.objectives.diffusion.progressive import Halving
from trainjobs.objectives.distillation import TEACHER, taught
from trainjobs.objectives.freezing import StillNorms, divided_by_thaw, optimizer_of
from trainjobs.objectives.phase import Model, Objective, Phase, clocked
from trainjobs.objectives.sparsity import cut_by_kind, marked, penalised
from trainjobs.optim.groups import Group, divided
from trainjobs.plan.memory import Weights, moments


def shaped(model: Model, spec: Spec) -> tuple[dict[str, list[Group]], StillNorms]:
    """The groups of every network, by training.optimizers, freeze, unfreeze and sparsity; and the batch norms that stand still with their
    parameters. Parameters that are in no group ask for no gradient from here on."""
    networks = divided_by_thaw(model.networks, spec.training)
    cut = {name: (n.module, n.groups, n.thaws) for name, n in cut_by_kind(networks, spec.training.sparsity).items()}
    groups = marked(divided(cut, partial(optimizer_of, spec)), spec.training.sparsity)
    groups = {name: [replace(group, renews=networks[name].renews) for group in own] for name, own in groups.items()}
    return groups, StillNorms.of(networks, spec.training)


def phases_of(objective: Objective, modules: Mapping[str, nn.Module], spec: Spec) -> tuple[Phase, ...]:
    """The phases of every step, with a teacher's term and that of activations."""
    asked = spec.training.distillation
    phases = objective.phases
    if asked is not None and asked.progressive:
        assert isinstance(objective, DiffusionObjective)
        phases, asked = [replace(phase, loss=Halving(objective, modules[TEACHER]).loss) for phase in phases], None
    return taught(penalised(clocked(phases), modules, spec.training.sparsity), modules, asked)


def weights_of(model: Model, groups: Mapping[str, Sequence[Group]]) -> Weights:
    """How many weights are trained, and how many are not, with the optimizer state of those."""
    trained = {name: sum(parameter.numel() for group in own for _, parameter in group.parameters) for name, own in groups.items() if own}
    every = sum(parameter.numel() for module in model.modules.values() for parameter in module.parameters())
    return Weights(trained, every - sum(trained.values()), moments({group.settings.name for own in groups.values() for group in own}))


def highest_of(model: Model, groups: Mapping[str, Sequence[Group]], spec: Spec) -> int:
    """The highest ZeRO stage at which the networks train with their optimizers, and compiled where they are to be."""
    muon = any(group.settings.name == "muon" for own in groups.values() for group in own)
    return 0 if muon else min(2 if spec.training.compile else 3, model.objective.highest_stage)
