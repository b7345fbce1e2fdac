"""Batch norm of averaged weights has the statistics of what the average draws, in the block and nowhere else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.evaluate.running_norms import BATCHES, ROWS, estimated
from trainjobs.evaluate.setting import Setting
from trainjobs.models.normalization import BatchNorm
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch, Samples
from trainjobs.world import World

SPEC = Spec.model_validate({"gan": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})
CPU = World(0, 1, torch.device("cpu"))


class Drawing:
    """Draws from one layer and batch norm; passes the other layer never."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.ModuleDict({"linear": nn.Linear(4, 3), "norm": BatchNorm(3), "other": BatchNorm(3), "plain": nn.BatchNorm1d(3)})
        for layer in self.network.values():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                assert layer.running_mean is not None
                layer.running_mean.fill_(7.0)

    def hidden(self, noise: Noise) -> Tensor:
        h: Tensor = self.network["linear"](noise.normal("z", 4))
        return h

    def sample(self, batch: Batch) -> Samples:
        return Samples(points=self.network["plain"](self.network["norm"](self.hidden(batch.noise))))


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


def setting(drawing: Drawing) -> Setting:
    source: Any = SimpleNamespace()
    objective: Any = drawing
    return Setting(SPEC, source, objective, {"net": drawing.network}, CPU, 8)


def test_statistics_are_the_mean_over_all_batches(drawing: Drawing) -> None:
    drawing.network.train()
    with torch.no_grad(), estimated(setting(drawing), At(), {"net": None}):
        found = {name: drawing.network[name].running_mean.clone() for name in ("norm", "other")}
        variance = drawing.network["norm"].running_var.clone()
    noise = Noise.of(0, 0, "norms", torch.arange(BATCHES * ROWS))
    hidden = drawing.hidden(noise).view(BATCHES, ROWS, 3)
    torch.testing.assert_close(found["norm"], hidden.mean((0, 1)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance, hidden.var(1).mean(0), rtol=1e-5, atol=1e-6)
    assert torch.equal(found["other"], torch.full((3,), 7.0))


def test_afterwards_everything_is_as_it_was(drawing: Drawing) -> None:
    before = {name: value.clone() for name, value in drawing.network.state_dict().items()}
    with torch.no_grad(), estimated(setting(drawing), At(), {"net": None}):
        assert not torch.equal(drawing.network["norm"].running_mean, before["norm.running_mean"])
    assert all(torch.equal(before[name], value) for name, value in drawing.network.state_dict().items())
    norm = drawing.network["norm"]
    assert (norm.momentum, norm.training) == (0.1, True)


def test_networks_that_are_not_averaged_keep_theirs(drawing: Drawing) -> None:
    with estimated(setting(drawing), At(), {}):
        assert torch.equal(drawing.network["norm"].running_mean, torch.full((3,), 7.0))
