"""The learning rate's schedule, against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR

from trainjobs.api.training import Schedule
from trainjobs.optim.schedule import rate

STEPS = 37


def rates(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [rate(schedule, step, steps) for step in range(steps)]


def torchs(name: str, warmup: int, final: float, steps: int = STEPS) -> list[float]:
    """What torch.optim.lr_scheduler gives at every step, for a peak of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    after: LRScheduler
    if name == "cosine":
        after = CosineAnnealingLR(optimizer, T_max=steps - 1 - warmup, eta_min=final)
    elif name == "linear":
        after = LinearLR(optimizer, start_factor=1.0, end_factor=final, total_iters=steps - 1 - warmup)
    else:
        after = ConstantLR(optimizer, factor=1.0, total_iters=1)
    scheduler: LRScheduler = after
    if warmup > 1:
        warm = LinearLR(optimizer, start_factor=1 / warmup, end_factor=1.0, total_iters=warmup - 1)
        scheduler = SequentialLR(optimizer, [warm, after], milestones=[warmup])
    elif warmup == 1:
        scheduler = SequentialLR(optimizer, [LambdaLR(optimizer, lambda step: 1.0), after], milestones=[1])
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 2, 10])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_follows_torch(name: str, warmup: int, final: float) -> None:
    schedule = Schedule.model_validate({"name": name, "warmupSteps": warmup, "finalRatio": final})
    assert rates(schedule) == pytest.approx(torchs(name, warmup, final), abs=1e-12)


def test_by_hand() -> None:
    cosine = Schedule.model_validate({"name": "cosine", "warmupSteps": 2, "finalRatio": 0.5})
    assert rates(cosine, 7) == pytest.approx(
        [0.5, 1.0, 1.0, 0.5 + 0.5 * (0.5 + 0.5 * 2**-0.5), 0.75, 0.5 + 0.5 * (0.5 - 0.5 * 2**-0.5), 0.5]
    )
    linear = Schedule.model_validate({"name": "linear"})
    assert rates(linear, 5) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (3, 3), (3, 10)])
def test_short_runs_have_a_rate_at_every_step(name: str, steps: int, warmup: int) -> None:
    found = rates(Schedule.model_validate({"name": name, "warmupSteps": warmup}), steps)
    assert all(0.0 <= value <= 1.0 for value in found)
    assert found[0] > 0.0


def test_the_first_update_moves() -> None:
    assert rate(Schedule.model_validate({"warmupSteps": 100}), 0, 1000) == 0.01
