"""Distillation: a network learns what a frozen teacher makes of the same inputs, beside its own loss. `training.distillation`.

    L' = (1 - w) L + w D

with D the mean squared difference of the outputs, f_student and f_teacher, at the inputs that the student's loss gave it; of a language
model, whose outputs are the logits of tokens, KL(p_teacher || p_student), the mean over tokens (Hinton, Vinyals and Dean, "Distilling the
knowledge in a neural network", 2015, arXiv 1503.02531, at temperature 1). A mean over samples as L is one, so nothing depends on the cut.

With `features` F is added to D: the mean, over the layers that they name, of the mean squared difference of the layers' outputs (Romero et
al., "FitNets", 2015, arXiv 1412.6550, equation 3, without a regressor: the shapes are the same).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean
from trainjobs.api.training import Distillation
from trainjobs.objectives.deferred import Metrics
from trainjobs.objectives.phase import Batch, Loss, Phase

TEACHER = "teacher"  # the network's name, which is in no checkpoint


def taught(phases: Sequence[Phase], networks: Mapping[str, nn.Module], asked: Distillation | None) -> tuple[Phase, ...]:
    """The phases, where there is a teacher those of its pupil with the term."""
    if asked is None:
        return tuple(phases)
    pupils = {"denoiser", "model"}
    pairs = {phase.trains: _paired(phase.trains, networks, asked.features) for phase in phases if phase.trains in pupils}
    return tuple(
        replace(phase, loss=partial(_taught, phase.loss, networks[phase.trains], networks[TEACHER], asked.weight, pairs[phase.trains]))
        if phase.trains in pupils
        else phase
        for phase in phases
    )


Pairs = Sequence[tuple[str, nn.Module, nn.Module]]  # path, the pupil's layer, the teacher's


def _paired(name: str, networks: Mapping[str, nn.Module], features: Sequence[str]) -> Pairs:
    """JobError GTJ0108 for a pattern that names no layer, or one that the teacher has not."""
    ours, theirs = dict(networks[name].named_modules()), dict(networks[TEACHER].named_modules())
    found: dict[str, tuple[str, nn.Module, nn.Module]] = {}
    for pattern in features:
        chosen = [path for path in ours if path and fnmatchcase(f"{name}.{path}", pattern)]
        lacking = [path for path in chosen if path not in theirs]
        if not chosen or lacking:
            what = f"{pattern} names no layer" if not chosen else f"the teacher has no layer {lacking[0]}"
            known = [f"{name}.{path}" for path in ours if path and path in theirs]
            how = did_you_mean(pattern, known) or f"layers of both are {', '.join(known[:3])} and so on"
            raise JobError("GTJ0108", what, where="spec.training.distillation.features", how=how)
        found |= {path: (path, ours[path], theirs[path]) for path in chosen}
    return tuple(found.values())


def _taught(loss: Loss, pupil: nn.Module, teacher: nn.Module, weight: float, pairs: Pairs, batch: Batch) -> tuple[Tensor, Metrics]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    handle = pupil.register_forward_hook(
        lambda network, arguments, keywords, output: calls.append((arguments, keywords, output)), with_kwargs=True
    )
    with _heard([layer for _, layer, _ in pairs]) as ours:
        try:
            own, metrics = loss(batch)
        finally:
            handle.remove()
    terms = []
    with _heard([layer for _, _, layer in pairs]) as theirs:
        for arguments, keywords, output in calls:
            with torch.no_grad():
                wanted = teacher(*arguments, **keywords)
            terms.append(_difference(output, wanted))
    term, told = torch.stack(terms).mean(), dict[str, Tensor]()
    if pairs:
        hints = torch.stack(
            [
                _hint(path, *both)
                for (path, _, _), mine, its in zip(pairs, ours, theirs, strict=True)
                for both in zip(mine, its, strict=True)
            ]
        ).mean()
        told, term = {"distillation/features": hints.detach()}, term + hints
    return (1.0 - weight) * own + weight * term, {**metrics, "distillation": term.detach(), **told}


@contextmanager
def _heard(layers: Sequence[nn.Module]) -> Iterator[list[list[Any]]]:
    """What each layer puts out within the block, call by call."""
    heard: list[list[Any]] = [[] for _ in layers]
    handles = [
        layer.register_forward_hook(lambda layer, arguments, output, at=at: at.append(output))
        for layer, at in zip(layers, heard, strict=True)
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _hint(path: str, ours: Any, theirs: Any) -> Tensor:
    ours, theirs = (one[0] if isinstance(one, tuple) else one for one in (ours, theirs))
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
        shapes = [list(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in (ours, theirs)]
        why = f"it puts out {shapes[0]} here and {shapes[1]} in the teacher"
        how = "name layers that have the same width in both"
        raise JobError("GTJ0108", f"layer {path} cannot be compared", where="spec.training.distillation.features", why=why, how=how)
    return F.mse_loss(ours.float(), theirs.float())


def _difference(ours: Any, theirs: Any) -> Tensor:
    if isinstance(ours, Tensor):
        return F.mse_loss(ours.float(), theirs.float())
    logits, wanted = ours.logits.float().flatten(0, -2), theirs.logits.float().flatten(0, -2)
    return F.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")
