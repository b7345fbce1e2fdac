"""Which weights shrink, by how much, and which activations count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.training import Optimizer, Sparsity
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch, Network, Phase
from trainjobs.objectives.sparsity import cut_by_kind, marked, penalised
from trainjobs.optim import optimizers
from trainjobs.optim.groups import divided

BATCH = Batch({}, Noise.of(0, 0, "train.0", torch.arange(4)), 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3), nn.Conv1d(4, 2, 1))


def test_matrices_and_filters_shrink_and_nothing_else() -> None:
    module, sparsity = network(), Sparsity(weights=2.0)
    cut = {name: (n.module, n.groups, n.thaws) for name, n in cut_by_kind({"net": Network(module)}, sparsity).items()}
    groups = marked(divided(cut, lambda name: Optimizer(name="sgd", learning_rate=0.01)), sparsity)["net"]
    assert {path for group in groups if group.shrinks for path, _ in group.parameters} == {"1.weight", "3.weight"}
    before = {path: parameter.detach().clone() for path, parameter in module.named_parameters()}
    optimizer = optimizers.build(groups)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for path, parameter in module.named_parameters():
        w = before[path]
        expected = w.sign() * (w.abs() - 0.02).clamp(min=0) if path in ("1.weight", "3.weight") else w
        assert torch.allclose(parameter, expected, rtol=0, atol=1e-8)


def test_without_it_groups_are_as_they_were() -> None:
    networks = {"net": Network(network())}
    assert cut_by_kind(networks, Sparsity()) == networks


def test_the_loss_has_the_mean_of_what_layers_put_out() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x = torch.randn(4, 2)
    phase = Phase("train", "net", lambda batch: (module(x).square().mean(), {"loss": torch.zeros(())}))
    (ours,) = penalised([phase], {"net": module}, Sparsity(activations=0.5, layers=["net.1"]))
    loss, metrics = ours.loss(BATCH)
    h = module(x)
    torch.testing.assert_close(loss, h.square().mean() + 0.5 * h.abs().mean())
    torch.testing.assert_close(metrics["sparsity/activations"], h.abs().mean())
    assert penalised([phase], {"net": module}, Sparsity()) == (phase,)


def test_a_pattern_that_names_no_layer_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(JobError, match=r"net\.x\* names no layer") as refused:
        penalised([], {"net": module}, Sparsity(activations=0.5, layers=["net.x*"]))
    assert refused.value.code == "GTJ0108"
    assert "net.0" in refused.value.how
