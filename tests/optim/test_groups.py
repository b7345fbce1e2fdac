"""Groups of parameters: who is in which, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.training import Optimizer
from trainjobs.optim.groups import divided, grouped


def settings(name: str) -> Optimizer:
    return Optimizer.model_validate({"name": "sgd"} if name == "slow" else {"learningRate": 0.5})


def test_without_groups_a_network_is_one_under_its_own_name_less_what_is_frozen() -> None:
    net = nn.Linear(2, 3)
    net.bias.requires_grad_(False)
    (group,) = grouped("net", net, None, {}, settings)
    assert (group.name, [path for path, _ in group.parameters], group.thaws) == ("net", ["weight"], 0)


@pytest.mark.parametrize("groups", [{}, {"a": []}])
def test_a_network_without_any_is_frozen(groups: dict[str, list[nn.Parameter]]) -> None:
    net = nn.Linear(2, 3)
    assert divided({"net": (net, groups, {})}, settings) == {"net": []}
    assert not any(p.requires_grad for p in net.parameters())


def test_a_network_whose_parameters_are_all_frozen_is_no_error() -> None:
    assert grouped("net", nn.Linear(2, 3).requires_grad_(False), None, {}, settings) == []


def test_what_is_in_no_group_is_frozen() -> None:
    net = nn.Linear(2, 3)
    (group,) = divided({"net": (net, {"head": [net.bias]}, {"head": 7})}, settings)["net"]
    assert (net.weight.requires_grad, net.bias.requires_grad) == (False, True)
    assert [group.trains(step) for step in (0, 6, 7)] == [False, False, True]


NET, OTHER = nn.Linear(2, 3), nn.Linear(2, 3)


@pytest.mark.parametrize(
    ("groups", "thaws", "says"),
    [
        ({"a": [NET.weight], "b": [NET.weight]}, {}, "net.weight is in the groups a and b"),
        ({"a": [OTHER.weight]}, {}, "a parameter of shape [3, 2] that is not the network's"),
        ({"a": [NET.weight]}, {"b": 3}, "net thaws b, which is none of its groups"),
        ({"a": [NET.weight], "slow": [NET.bias]}, {}, "optimizers of several kinds (a: adamw, slow: sgd)"),
    ],
)
def test_what_is_refused_is_named(groups: Any, thaws: Any, says: str) -> None:
    with pytest.raises(JobError) as raised:
        grouped("net", NET, groups, thaws, settings)
    assert raised.value.code == "GTJ0214"
    assert says in raised.value.what
