"""Active units: dimensions whose means move with the sample, over all ranks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo, Source
from trainjobs.evaluate.active_units import ActiveUnits, active
from trainjobs.evaluate.evaluation import asked_for, chosen
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Batch, Encoding
from trainjobs.objectives.vae import VaeObjective
from trainjobs.world import World


def batch(means: Tensor) -> Batch:
    return Batch({"point": means}, Noise.of(0, 0, "heldout", torch.arange(len(means))), len(means))


class Two(World):
    """Two ranks, of which the other one has this."""

    def __init__(self, other: list[Any]) -> None:
        super().__init__(0, 2, torch.device("cpu"))
        object.__setattr__(self, "other", other)

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]  # type: ignore[attr-defined]


def test_dimensions_that_move_by_more_than_a_tenth_are_active() -> None:
    """numpy's variance is the oracle: 0.04, 0.0100 just above and just below the limit, and none."""
    numpy = pytest.importorskip("numpy")
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    means = signs * torch.tensor([0.2, 0.1001, 0.0999, 0.0]) + torch.tensor([0.0, 3.0, -3.0, 5.0])
    assert (numpy.var(means.numpy().astype("f8"), axis=0) > 0.01).tolist() == [True, True, False, False]
    assert active(means) == 2


def test_the_score_is_over_all_ranks() -> None:
    """Within either rank nothing moves; between them the first dimension does."""
    here, there = torch.zeros(4, 2), torch.tensor([[1.0, 0.0]] * 4)
    score = ActiveUnits(lambda b: b.data["point"])
    score.add(batch(here), None)
    assert score.result(World(0, 1, torch.device("cpu"))) == {"heldout/active_units": 0.0}
    assert score.result(Two([there])) == {"heldout/active_units": 1.0}


def test_it_is_measured_where_it_is_asked_for_and_there_are_latents() -> None:
    given = {"data": {"source": "builtin:digits"}, "training": {"steps": 1}}
    info = DataInfo("image", (1, 8, 8), 16, 8)
    source = cast(Source, SimpleNamespace(info=info))
    for family, there in (("vae", True), ("diffusion", False)):
        spec = Spec.model_validate({**given, family: {}})
        objective = build(spec, info).objective
        assert isinstance(objective, Encoding) == there
        kinds = [type(score) for score in asked_for(spec, source, objective, {"active_units"})]
        assert (ActiveUnits in kinds) == there
        assert ActiveUnits not in [type(score) for score in asked_for(spec, source, objective, {"loss"})]
    assert chosen({"heldout/active_units": 3.0, "heldout/bits": 2.0}, {"active_units"}) == {"heldout/active_units": 3.0}


def test_a_vae_s_latents_are_its_means() -> None:
    torch.manual_seed(0)
    spec = Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})
    objective = build(spec, DataInfo("image", (1, 8, 8), 16, 8)).objective
    assert isinstance(objective, VaeObjective)
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    given = Batch({"image": images}, Noise.of(0, 0, "heldout", torch.arange(5)), 5)
    with torch.no_grad():
        mean = objective.autoencoder.encoder(images).chunk(2, dim=1)[0]  # type: ignore[operator]
        torch.testing.assert_close(objective.latents(given), mean)


def test_nothing_held_out_is_no_score() -> None:
    score = ActiveUnits(lambda b: b.data["point"])
    score.add(None, None)
    assert score.result(World(0, 1, torch.device("cpu"))) == {}
