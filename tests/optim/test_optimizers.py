"""torch's optimizers from the manifest: one by one against the papers' formulas, two updates long."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.training import Optimizer
from trainjobs.optim import optimizers
from trainjobs.optim.groups import Group

START = torch.tensor([1.0, -2.0, 0.5, 3.0])
GRADIENTS = (torch.tensor([0.1, -0.3, 2.0, 0.0]), torch.tensor([-0.2, 0.4, 1.0, 0.5]))


def settings(**fields: Any) -> Optimizer:
    return Optimizer.model_validate(fields)


def moved(chosen: Optimizer) -> Tensor:
    """The weights after one update per gradient."""
    parameter = nn.Parameter(START.clone())
    optimizer = optimizers.build([Group("net", (("w", parameter),), chosen)])
    for gradient in GRADIENTS:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def adam(rate: float, beta1: float, beta2: float, l2: float, decoupled: float) -> Tensor:
    """Kingma and Ba, 2015, algorithm 1; with `decoupled` weight decay, Loshchilov and Hutter, 2019, algorithm 2."""
    w, m, v = START.clone(), torch.zeros(4), torch.zeros(4)
    for t, g in enumerate(GRADIENTS, start=1):
        g = g + l2 * w
        w = w - rate * decoupled * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w = w - rate * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + 1e-8)
    return w


def rmsprop(rate: float, momentum: float, l2: float) -> Tensor:
    """Tieleman and Hinton, 2012, with torch's smoothing of 0.99."""
    w, v, buffer = START.clone(), torch.zeros(4), torch.zeros(4)
    for g in GRADIENTS:
        g = g + l2 * w
        v = 0.99 * v + 0.01 * g * g
        buffer = momentum * buffer + g / (v.sqrt() + 1e-8)
        w = w - rate * buffer
    return w


def sgd(rate: float, momentum: float, l2: float) -> Tensor:
    w, buffer = START.clone(), torch.zeros(4)
    for t, g in enumerate(GRADIENTS):
        g = g + l2 * w
        buffer = g if t == 0 else momentum * buffer + g
        w = w - rate * buffer
    return w


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (settings(name="adam", learningRate=0.01), adam(0.01, 0.9, 0.999, 0, 0)),
        (settings(name="adam", learningRate=0.01, betas=[0.0, 0.9], weightDecay=0.1), adam(0.01, 0.0, 0.9, 0.1, 0)),
        (settings(name="adamw", learningRate=0.01), adam(0.01, 0.9, 0.999, 0, 0)),
        (settings(name="adamw", learningRate=0.01, betas=[0.5, 0.9], weightDecay=0.1), adam(0.01, 0.5, 0.9, 0, 0.1)),
        (settings(name="rmsprop", learningRate=0.01), rmsprop(0.01, 0, 0)),
        (settings(name="rmsprop", learningRate=0.01, momentum=0.9, weightDecay=0.1), rmsprop(0.01, 0.9, 0.1)),
        (settings(name="sgd", learningRate=0.1), sgd(0.1, 0, 0)),
        (settings(name="sgd", learningRate=0.1, momentum=0.9, weightDecay=0.1), sgd(0.1, 0.9, 0.1)),
    ],
    ids=lambda value: value.name if isinstance(value, Optimizer) else "",
)
def test_follows_the_formula(chosen: Optimizer, expected: Tensor) -> None:
    assert torch.allclose(moved(chosen), expected, rtol=1e-6, atol=1e-7)


def test_groups_have_rates_and_decays_of_their_own() -> None:
    network = nn.Linear(2, 3)
    one = Group("weight", (("weight", network.weight),), settings(learningRate=0.1, weightDecay=0.5))
    other = Group("bias", (("bias", network.bias),), settings(learningRate=0.01, betas=[0.5, 0.9]))
    found = optimizers.build([one, other]).param_groups
    assert [(len(group["params"]), group["lr"], group["weight_decay"], group["betas"]) for group in found] == [
        (1, 0.1, 0.5, (0.9, 0.999)),
        (1, 0.01, 0.0, (0.5, 0.9)),
    ]


def test_weights_are_edited_at_the_end_of_each_step_and_by_it_alone() -> None:
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.5, 0.05]]))
    group = Group("net", tuple(module.named_parameters()), settings(name="sgd", learningRate=0.1))
    optimizer = optimizers.build([group], after=lambda tensor: tensor.clamp_(-0.1, 0.1))
    assert module.weight.tolist() == [[0.5, pytest.approx(0.05)]]
    module.weight.grad = torch.tensor([[0.0, 1.0]])
    optimizer.step()
    assert module.weight.tolist() == [[pytest.approx(0.1), pytest.approx(-0.05)]]
