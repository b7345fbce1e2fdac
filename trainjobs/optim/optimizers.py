"""torch's optimizers, from the manifest.

They are handed to DeepSpeed as client optimizers, so that the update is torch's own at every ZeRO stage and needs no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, optim

from trainjobs.api.training import Optimizer
from trainjobs.optim.groups import Group

After = Callable[[Tensor], object] | None


def build(groups: Sequence[Group], after: After = None) -> optim.Optimizer:
    """The optimizer of one network, which has at least one group, all of one kind; the learning rates are set before every step.

    `after` edits in place, at the end of each step, every tensor that the optimizer has: a weight, or under ZeRO a flat piece of some. An
    edit outside of the step would be lost from stage 1 on, because ZeRO writes the weights anew from these.
    """
    optimizer = _named(groups)
    if after is not None:
        optimizer.register_step_post_hook(partial(_edit, after))
    return optimizer


def _edit(after: Callable[[Tensor], object], optimizer: optim.Optimizer, arguments: Any, keywords: Any) -> None:
    with torch.no_grad():
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                after(tensor)


def _named(groups: Sequence[Group]) -> optim.Optimizer:
    parameters = [_options(group.settings) | {"params": [parameter for _, parameter in group.parameters]} for group in groups]
    match groups[0].settings.name:
        case "adam":
            return optim.Adam(parameters, fused=True)
        case "adamw":
            return optim.AdamW(parameters, fused=True)
        case "rmsprop":
            return optim.RMSprop(parameters)
        case "sgd":
            return optim.SGD(parameters, lr=groups[0].settings.learning_rate)


def _options(spec: Optimizer) -> dict[str, Any]:
    common = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    return {**common, "betas": tuple(spec.betas)} if spec.name in ("adam", "adamw") else {**common, "momentum": spec.momentum}


# Optimizers that DeepSpeed lists as tested under ZeRO; the others are elementwise too, so partitioning does not change them.
TESTED_BY_DEEPSPEED = ("adam", "adamw")
