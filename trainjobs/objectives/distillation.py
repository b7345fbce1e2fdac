"""Distillation: a network learns what a frozen teacher makes of the same inputs, beside its own loss. `training.distillation`.

    L' = (1 - w) L + w D

with D the mean squared difference of the outputs, f_student and f_teacher, at the inputs that the student's loss gave it; of a language
model, whose outputs are the logits of tokens, KL(p_teacher || p_student), the mean over tokens (Hinton, Vinyals and Dean, "Distilling the
knowledge in a neural network", 2015, arXiv 1503.02531, at temperature 1). A mean over samples as L is one, so nothing depends on the cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.training import Distillation
from trainjobs.objectives.phase import Batch, Loss, Phase

TEACHER = "teacher"  # the network's name, which is in no checkpoint


def taught(phases: Sequence[Phase], networks: Mapping[str, nn.Module], asked: Distillation | None) -> tuple[Phase, ...]:
    """The phases, where there is a teacher those of its pupil with the term."""
    if asked is None:
        return tuple(phases)
    pupils = {"denoiser", "model"}
    return tuple(
        replace(phase, loss=partial(_taught, phase.loss, networks[phase.trains], networks[TEACHER], asked.weight))
        if phase.trains in pupils
        else phase
        for phase in phases
    )


def _taught(loss: Loss, pupil: nn.Module, teacher: nn.Module, weight: float, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    handle = pupil.register_forward_hook(
        lambda network, arguments, keywords, output: calls.append((arguments, keywords, output)), with_kwargs=True
    )
    try:
        own, metrics = loss(batch)
    finally:
        handle.remove()
    terms = []
    for arguments, keywords, output in calls:
        with torch.no_grad():
            wanted = teacher(*arguments, **keywords)
        terms.append(_difference(output, wanted))
    term = torch.stack(terms).mean()
    return (1.0 - weight) * own + weight * term, {**metrics, "distillation": term.detach()}


def _difference(ours: Any, theirs: Any) -> Tensor:
    if isinstance(ours, Tensor):
        return F.mse_loss(ours.float(), theirs.float())
    logits, wanted = ours.logits.float().flatten(0, -2), theirs.logits.float().flatten(0, -2)
    return F.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")
