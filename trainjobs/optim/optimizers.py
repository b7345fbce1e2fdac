"""torch's optimizers, from the manifest.

They are handed to DeepSpeed as client optimizers, so that the update is torch's own at every ZeRO stage and needs no compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import optim

from trainjobs.api.training import Optimizer
from trainjobs.optim.groups import Group


def build(groups: Sequence[Group]) -> optim.Optimizer:
    """The optimizer of one network, which has at least one group, all of one kind; the learning rates are set before every step."""
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
