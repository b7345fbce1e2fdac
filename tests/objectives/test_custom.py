"""Objectives of the user's own: those of today's interface, and those that were written for the first."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Adaptive, Batch, Model, Network, Phase, Samples
from trainjobs.state import Stateful

INFO = DataInfo("image", (1, 8, 8), 10, 0)


def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError


def batch(size: int) -> Batch:
    return Batch({}, Noise.of(0, 0, "x", torch.arange(size)), size)


class First:
    """As objectives were written at first: `draws` is a bool, heldout gives means, sample takes a count."""

    phases = (Phase("train", "net", loss, draws=True), Phase("more", "net", loss, draws=False))

    def heldout(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": torch.tensor(2.5)}

    def sample(self, count: int, noise: Noise) -> Samples:
        return Samples(points=noise.normal("z", 2)[:count])


class FirstStateful(First):
    def __init__(self) -> None:
        self.p = 0.5

    def state(self) -> dict[str, Any]:
        return {"p": self.p}

    def load_state(self, state: dict[str, Any]) -> None:
        self.p = state["p"]


class Now:
    phases = (Phase("train", "net", loss),)
    highest_stage = 2
    adapts_every = 4

    def heldout(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        return {}

    def sample(self, batch: Batch) -> Samples:
        return Samples(texts=("",) * batch.size)

    def adapt(self, means: Any) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None: ...


def built(result: Any, monkeypatch: pytest.MonkeyPatch) -> Model:
    module = ModuleType("users_own")
    module.build = lambda spec, info: result  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_own", module)
    spec = {"custom": {"objective": "users_own:build"}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}}
    return build(Spec.model_validate(spec), INFO)


def test_one_of_the_first_interface_goes_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(1, 1)
    made = built(({"net": net}, First()), monkeypatch)
    assert made.modules == {"net": net}
    assert made.networks["net"].groups is None
    assert made.objective.highest_stage == 3
    assert [phase.advances for phase in made.objective.phases] == [True, False]
    total, count = made.objective.heldout(batch(4))["loss"]
    assert (total.item(), count.item()) == (10.0, 4.0)
    points = made.objective.sample(batch(3)).points
    assert points is not None
    assert points.shape == (3, 2)
    assert not isinstance(made.objective, Stateful)


def test_its_state_is_still_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    own = FirstStateful()
    objective = built(({"net": nn.Linear(1, 1)}, own), monkeypatch).objective
    assert isinstance(objective, Stateful)
    assert not isinstance(objective, Adaptive)
    objective.load_state({"p": 0.25})
    assert (own.p, objective.state()) == (0.25, {"p": 0.25})


def test_one_of_todays_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Now()
    made = built(Model({"net": Network(nn.Linear(1, 1), averaged=False)}, own), monkeypatch)
    assert made.objective is own
    assert isinstance(made.objective, Adaptive)
    mixed = built(({"net": nn.Linear(1, 1), "teacher": Network(nn.Linear(1, 1), groups={})}, own), monkeypatch)
    assert (mixed.objective, mixed.networks["teacher"].groups) == (own, {})


@pytest.mark.parametrize("result", [None, ({"net": "no module"}, First()), ({"net": nn.Linear(1, 1)}, object()), ({}, First())])
def test_what_is_neither_is_said(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError) as raised:
        built(result, monkeypatch)
    assert raised.value.code == "GTJ0214"
