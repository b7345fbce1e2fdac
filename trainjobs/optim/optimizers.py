"""torch's optimizers, from the manifest.

They are handed to DeepSpeed as client optimizers, so that the update is torch's own at every ZeRO stage and needs no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim

from trainjobs.optim.groups import Group
from trainjobs.optim.muon import Muon
from trainjobs.optim.options import options

After = Callable[[Tensor], object] | None


def build(groups: Sequence[Group], after: After = None) -> optim.Optimizer:
    """The optimizer of one network, which has at least one group, all of one kind; the learning rates are set before every step.

    `after` edits in place, at the end of each step, every tensor that the optimizer has: a weight, or under ZeRO a flat piece of some. An
    edit outside of the step would be lost from stage 1 on, because ZeRO writes the weights anew from these.
    """
    optimizer = _named(groups)
    if any(group.shrinks for group in groups):
        for group, there in zip(groups, optimizer.param_groups, strict=True):
            there["shrinks"] = group.shrinks  # in its own entry, because ZeRO steps with one group at a time
        optimizer.register_step_post_hook(_shrink)
    if after is not None:
        optimizer.register_step_post_hook(partial(_edit, after))
    return optimizer


def _edit(after: Callable[[Tensor], object], optimizer: optim.Optimizer, arguments: Any, keywords: Any) -> None:
    with torch.no_grad():
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                after(tensor)


def _shrink(optimizer: optim.Optimizer, arguments: Any, keywords: Any) -> None:
    """sign(w) max(|w| - lr lambda, 0), of every group with a lambda."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            for tensor in group["params"] if group["shrinks"] else []:
                tensor.copy_(torch.nn.functional.softshrink(tensor, float(group["lr"]) * group["shrinks"]))


def _named(groups: Sequence[Group]) -> optim.Optimizer:
    if groups[0].settings.name == "muon":
        return Muon(groups)
    parameters = [options(group.settings) | {"params": [parameter for _, parameter in group.parameters]} for group in groups]
    match groups[0].settings.name:
        case "adam":
            return optim.Adam(parameters, fused=True)
        case "adamw":
            return optim.AdamW(parameters, fused=True)
        case "rmsprop":
            return optim.RMSprop(parameters)
        case _:
            return optim.SGD(parameters, lr=groups[0].settings.learning_rate)


def keeps(optimizer: optim.Optimizer, parameter: Tensor, kind: str) -> bool:
    """Whether this kind of state is one that it has for the parameter: of torch's, whatever there is of one there is of all."""
    return optimizer.keeps(parameter, kind) if isinstance(optimizer, Muon) else True


# Optimizers that DeepSpeed lists as tested under ZeRO; the others are elementwise too, so partitioning does not change them.
TESTED_BY_DEEPSPEED = ("adam", "adamw")
