"""An optimizer's settings by the names that torch's optimizers give them."""

from __future__ import annotations

from typing import Any

from trainjobs.api.training import Optimizer


def options(spec: Optimizer) -> dict[str, Any]:
    """Those of one group of parameters."""
    common = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    match spec.name:
        case "sgd":
            return {**common, "momentum": spec.momentum}
        case "rmsprop":
            return {**common, "momentum": spec.momentum, "alpha": spec.alpha, "eps": spec.eps}
        case _:
            return {**common, "betas": tuple(spec.betas), "eps": spec.eps}
