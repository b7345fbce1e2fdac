"""Building an objective from a manifest: every family, and users' own code with its mistakes named."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import NETWORKS, Spec
from trainjobs.data.source import DataInfo
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Batch

IMAGES = DataInfo("image", (1, 8, 8), 100, 5)

OWN = """
import torch
from torch import nn
from trainjobs.objectives.phase import Phase, Samples

class Mean:
    def __init__(self, network):
        self.network = network
        self.phases = (Phase("train", trains="mean", loss=self.loss),)
    def loss(self, batch):
        loss = (self.network(torch.ones(batch.size, 1)) - batch.data["image"].flatten(1)).square().mean()
        return loss, {"loss": loss.detach()}
    def heldout(self, batch):
        return {}
    def sample(self, count, noise):
        return Samples(images=self.network(torch.ones(count, 1)).view(count, *self.shape))

def build(spec, info):
    network = nn.Linear(1, 64, bias=spec.custom.options.get("bias", True))
    objective = Mean(network)
    objective.shape = info.shape
    return {"mean": network}, objective

def wrong(spec, info):
    return {"another": nn.Linear(1, 1)}, build(spec, info)[1]

def nothing(spec, info):
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_objective.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_objective", raising=False)
    return "own_objective"


def spec(**family: Any) -> Spec:
    return Spec.model_validate({**family, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})


@pytest.mark.parametrize("family", ["gan", "vae", "diffusion"])
def test_every_phase_trains_a_network_of_its_family_and_samples_are_as_many_as_asked(family: str) -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "gan": {"generator": {"channels": 2}, "discriminator": {"channels": 2}},
        "vae": {"network": {"channels": 2}},
        "diffusion": {"network": {"channels": 4}, "sampler": {"steps": 2}},
    }
    model = build(spec(**{family: small[family]}), IMAGES)
    networks, objective = model.modules, model.objective
    assert tuple(networks) == NETWORKS[family]
    for phase in objective.phases:
        data = {"image": torch.rand(4, 1, 8, 8) * 2 - 1} if phase.advances else {}
        loss, metrics = phase.loss(Batch(data, Noise.of(0, 0, phase.name, torch.arange(4)), 4))
        loss.backward()
        assert loss.shape == ()
        assert any(p.grad is not None for p in networks[phase.trains].parameters())
        assert all(math.isfinite(float(value)) and not getattr(value, "requires_grad", False) for value in metrics.values())
    for network in networks.values():
        network.eval()
    with torch.no_grad():
        images = objective.sample(Batch({}, Noise.of(0, 0, "samples", torch.arange(3)), 3)).images
    assert images is not None
    assert images.shape == (3, 1, 8, 8)
    assert images.dtype == torch.float32


def test_a_users_own_objective_is_built_with_its_options(own: str) -> None:
    model = build(spec(custom={"objective": f"{own}:build", "options": {"bias": False}}), IMAGES)
    networks, objective = model.modules, model.objective
    assert [name for name, _ in networks["mean"].named_parameters()] == ["weight"]
    loss, _ = objective.phases[0].loss(Batch({"image": torch.ones(2, 1, 8, 8)}, Noise.of(0, 0, "train", torch.arange(2)), 2))
    loss.backward()
    assert networks["mean"].weight.grad is not None


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("no_such_module_of_mine:build", "GTJ0102", "no_such_module_of_mine"),
        ("own_objective:bild", "GTJ0102", "bild"),
        ("own_objective:wrong", "GTJ0214", "mean"),
        ("own_objective:nothing", "GTJ0214", "did not return"),
    ],
)
def test_mistakes_of_users_objectives_are_named(own: str, path: str, code: str, says: str) -> None:
    with pytest.raises(JobError) as raised:
        build(spec(custom={"objective": path}), IMAGES)
    assert (raised.value.code, raised.value.where) == (code, "custom.objective")
    assert says in raised.value.line()


def test_an_error_within_the_users_module_is_not_hidden(own: str, tmp_path: Path) -> None:
    """Only what cannot be imported is ours to explain; the rest keeps its traceback."""
    (tmp_path / "own_objective.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        build(spec(custom={"objective": f"{own}:build"}), IMAGES)
