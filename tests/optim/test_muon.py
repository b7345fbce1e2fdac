"""Muon is torch's for matrices, and AdamW torch's for the rest, weight by weight."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.training import Optimizer
from trainjobs.optim import optimizers
from trainjobs.optim.groups import grouped
from trainjobs.optim.muon import Muon

SETTINGS = Optimizer(name="muon", learning_rate=0.02, weight_decay=0.1, muon_momentum=0.9, betas=[0.8, 0.95], eps=1e-6)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def train(module: nn.Module, step: list[torch.optim.Optimizer]) -> nn.Module:
    tokens = torch.arange(10)
    for _ in range(5):
        for optimizer in step:
            optimizer.zero_grad()
        module(tokens).square().mean().backward()
        for optimizer in step:
            optimizer.step()
    return module


def test_weights_are_those_of_torchs_muon_and_adamw() -> None:
    ours, theirs = network(), network()
    train(ours, [optimizers.build(grouped("net", ours, None, {}, lambda name: SETTINGS))])
    matrices = [theirs[1].weight, theirs[3].weight]  # type: ignore[index]
    others = [parameter for parameter in theirs.parameters() if all(parameter is not matrix for matrix in matrices)]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    train(theirs, [muon, torch.optim.AdamW(others, lr=0.02, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)])
    for (path, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (one - other).abs().max() <= 1e-7, path
        assert (one - dict(network().named_parameters())[path]).abs().max() > 1e-3


def test_rates_are_set_from_outside_as_of_any_optimizer() -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    optimizer = optimizers.build(grouped("net", module, None, {}, lambda name: SETTINGS))
    optimizer.param_groups[0]["lr"] = 0.0
    train(module, [optimizer])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_state_is_what_each_of_the_two_keeps() -> None:
    module = network()
    optimizer = optimizers.build(grouped("net", module, None, {}, lambda name: SETTINGS))
    train(module, [optimizer])
    for path, parameter in module.named_parameters():
        expected = {"momentum_buffer"} if path in ("1.weight", "3.weight") else {"exp_avg", "exp_avg_sq", "step"}
        assert set(optimizer.state[parameter]) == expected
        assert {kind for kind in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step") if optimizers.keeps(optimizer, parameter, kind)} == (
            expected
        )


def test_a_network_without_matrices_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Embedding(4, 4))
    with pytest.raises(JobError, match="nothing to train in net") as refused:
        Muon(grouped("net", module, None, {}, lambda name: SETTINGS))
    assert refused.value.code == "GTJ0108"
