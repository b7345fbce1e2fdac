"""An objective of the user's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.objectives.phase import Objective

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def build(spec: Spec, info: DataInfo) -> tuple[dict[str, nn.Module], Objective]:
    """What the user's own `build(spec, info)` returns, checked."""
    assert spec.custom is not None
    path = spec.custom.objective
    module, _, function = path.partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise JobError(
            "GTJ0102",
            f"{path} cannot be imported",
            where="custom.objective",
            why=str(error),
            how='Give "package.module:build" of a module on PYTHONPATH',
        ) from error
    result = make(spec, info)
    try:
        networks, objective = result
        names = set(networks)
        trained = {phase.trains for phase in objective.phases}
    except (TypeError, ValueError, AttributeError) as error:
        raise JobError(
            "GTJ0214",
            f"{path} did not return (networks, objective)",
            where="custom.objective",
            why=str(error),
            how="Return a dict of torch modules and an object with phases, heldout and sample",
        ) from error
    if not trained <= names:
        raise JobError(
            "GTJ0214",
            f"{path} trains {', '.join(sorted(trained - names))}, which is not among its networks",
            where="custom.objective",
            how=f"Its networks are {', '.join(sorted(names))}; Phase.trains names one of them",
        )
    return networks, objective
