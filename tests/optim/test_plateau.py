"""The plateau's factor is that of torch's ReduceLROnPlateau, evaluation by evaluation, also when it goes on from its state."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from trainjobs.api.training import Schedule
from trainjobs.optim.plateau import Plateau


def values(seed: int) -> list[float]:
    """A metric that falls, jitters and stands."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(60, generator=generator)
    return [round(float(1.0 / (1 + n / 5) + 0.05 * noise[n]), 3) for n in range(60)]


@pytest.mark.parametrize(
    ("rises", "patience", "cooldown", "threshold", "least"), [*product((False, True), (0, 2), (0, 3), (0.0, 0.05), (0.0, 0.01))]
)
def test_ratio_is_torchs(rises: bool, patience: int, cooldown: int, threshold: float, least: float) -> None:
    schedule = Schedule(name="plateau", factor=0.5, patience=patience, cooldown=cooldown, threshold=threshold, min_ratio=least)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max" if rises else "min", 0.5, patience, threshold, "rel", cooldown, least, eps=0.0
    )
    ours, fell = Plateau(schedule, rises), 0
    for number, value in enumerate(values(3)):
        value = 2.0 - value if rises else value
        before = ours.ratio
        assert ours.told(value) == (ours.ratio < before)
        theirs.step(value)
        assert ours.ratio == optimizer.param_groups[0]["lr"]
        fell += ours.ratio < before
        if number % 3 == 0:
            again = Plateau(schedule, rises)
            again.load_state(ours.state())
            ours = again
    assert fell


def test_a_metric_that_is_no_number_is_no_better() -> None:
    plateau = Plateau(Schedule(name="plateau", patience=1), False)
    assert [plateau.told(value) for value in (float("nan"), float("nan"), 1.0, float("nan"))] == [False, True, False, False]
    assert plateau.best == 1.0
