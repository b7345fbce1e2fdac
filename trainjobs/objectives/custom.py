"""An objective of the user's own.

Its `build(spec, info)` returns a Model, or (networks, objective), where a network may be a plain module: it is trained as a whole.
Objectives that were written for the interface as it first was go on working: they have no `highest_stage`, draw samples by
`sample(count, noise)`, and give a held-out score as the mean over a batch.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.objectives.phase import Batch, Model, Network, Objective, Phase, Samples, over
from trainjobs.state import Stateful

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def build(spec: Spec, info: DataInfo) -> Model:
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
        made = result if isinstance(result, Model) else _model(*result)
        names = set(made.networks)
        trained = {phase.trains for phase in made.objective.phases}
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
    return made


def _model(networks: Mapping[str, nn.Module | Network], objective: Any) -> Model:
    """TypeError or AttributeError for what is no such thing."""
    whole = {name: network if isinstance(network, Network) else Network(network) for name, network in networks.items()}
    for network in whole.values():
        if not isinstance(network.module, nn.Module):
            raise TypeError(f"a network is a torch module, not {type(network.module).__name__}")
    return Model(whole, current(objective))


def current(objective: Any) -> Objective:
    """The objective, as one of today's interface."""
    if hasattr(objective, "highest_stage") and len(inspect.signature(objective.sample).parameters) == 1:
        return objective  # type: ignore[no-any-return]
    return EarlierStateful(objective) if isinstance(objective, Stateful) else Earlier(objective)


class Earlier:
    """An objective of the first interface."""

    def __init__(self, objective: Any) -> None:
        self.objective = objective
        self._counts = len(inspect.signature(objective.sample).parameters) == 2

    @property
    def phases(self) -> Sequence[Phase]:
        return tuple(self.objective.phases)

    @property
    def highest_stage(self) -> int:
        return int(getattr(self.objective, "highest_stage", 3))

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        found = self.objective.heldout(batch)
        return {name: value if isinstance(value, tuple) else over(value, batch.size) for name, value in found.items()}

    def sample(self, batch: Batch) -> Samples:
        made: Samples = self.objective.sample(batch.size, batch.noise) if self._counts else self.objective.sample(batch)
        return made


class EarlierStateful(Earlier):
    """One that has state, too."""

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.objective.state()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        self.objective.load_state(state)
