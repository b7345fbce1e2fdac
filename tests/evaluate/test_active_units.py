"""Active units: dimensions whose means move with the sample, over all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainjobs.evaluate.active_units import ActiveUnits, active
from trainjobs.noise import Noise
from trainjobs.objectives.phase import Batch
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


def test_nothing_held_out_is_no_score() -> None:
    score = ActiveUnits(lambda b: b.data["point"])
    score.add(None, None)
    assert score.result(World(0, 1, torch.device("cpu"))) == {}
