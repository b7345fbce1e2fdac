"""torch's optimizers, from the manifest.

They are handed to DeepSpeed as client optimizers, so that the update is torch's own at every ZeRO stage and needs no compiler.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn, optim

from trainjobs.api.training import Optimizer


def build(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The optimizer of one network; the learning rate is set before every step."""
    parameters = list(parameters)
    beta1, beta2 = spec.betas
    match spec.name:
        case "adam":
            return optim.Adam(parameters, lr=spec.learning_rate, betas=(beta1, beta2), weight_decay=spec.weight_decay, fused=True)
        case "adamw":
            return optim.AdamW(parameters, lr=spec.learning_rate, betas=(beta1, beta2), weight_decay=spec.weight_decay, fused=True)
        case "rmsprop":
            return optim.RMSprop(parameters, lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)
        case "sgd":
            return optim.SGD(parameters, lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)


# Optimizers that DeepSpeed lists as tested under ZeRO; the others are elementwise too, so partitioning does not change them.
TESTED_BY_DEEPSPEED = ("adam", "adamw")
