"""What a checkpoint says of weights that nobody trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainjobs.checkpointer.untrained import frozen_digest, hidden_digest
from trainjobs.objectives.custom import current


def linear(seed: int, *, frozen: bool = False) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2).requires_grad_(not frozen)


def test_only_what_is_frozen_counts() -> None:
    assert frozen_digest({"net": linear(0)}) is None
    one = frozen_digest({"net": linear(0), "teacher": linear(1, frozen=True)})
    assert one is not None
    assert one == frozen_digest({"net": linear(5), "teacher": linear(1, frozen=True)})
    assert one != frozen_digest({"net": linear(0), "teacher": linear(2, frozen=True)})


@dataclass(frozen=True)
class Hides:
    net: nn.Module
    features: Any


def test_modules_that_an_objective_hides_are_found_wherever_it_has_them() -> None:
    net = linear(0)
    assert hidden_digest(Hides(net, None), {"net": net}) is None
    found = [
        hidden_digest(Hides(net, hidden), {"net": net}) for hidden in (linear(1), [linear(1)], {"vgg": linear(1)}, Hides(net, linear(1)))
    ]
    assert all(found)
    assert hidden_digest(Hides(net, linear(1)), {"net": net}) == found[0]
    assert hidden_digest(Hides(net, linear(2)), {"net": net}) != found[0]


def test_an_objective_of_the_first_interface_hides_them_no_better() -> None:
    class Old:
        phases = ()

        def __init__(self, features: nn.Module) -> None:
            self.features = features

        def heldout(self, batch: Any) -> dict[str, Any]:
            return {}

        def sample(self, count: int, noise: Any) -> None: ...

    assert hidden_digest(current(Old(linear(1))), {}) is not None
    assert hidden_digest(current(Old(linear(1))), {}) != hidden_digest(current(Old(linear(2))), {})


def test_files_stand_for_the_frozen_weights_that_were_read_from_them() -> None:
    nets = {"net": linear(0), "base": linear(1, frozen=True), "teacher": linear(2, frozen=True)}
    one = frozen_digest(nets, {"base": "digest", "net": ""})
    assert one == frozen_digest({**nets, "base": linear(7, frozen=True)}, {"base": "digest"})  # the weights are not looked at
    assert one != frozen_digest(nets, {"base": "other"})
    assert one != frozen_digest({**nets, "teacher": linear(3, frozen=True)}, {"base": "digest"})
    assert frozen_digest({"base": linear(1)}, {"base": "digest"}) is None  # all of it is trained
