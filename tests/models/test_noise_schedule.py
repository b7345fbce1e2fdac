"""gamma(t): monotone, its ends fixed, its slope the derivative."""

from __future__ import annotations

import pytest
import torch

from trainjobs.models.noise_schedule import FIRST, LAST, NoiseSchedule


def bent(seed: int) -> NoiseSchedule:
    """Any shape, not the nearly straight one that it starts with."""
    torch.manual_seed(seed)
    made = NoiseSchedule(32)
    with torch.no_grad():
        made.heights.copy_(4 * torch.randn(32))
        made.offsets.copy_(3 * torch.randn(32))
    return made


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gamma_is_monotone_its_ends_fixed_and_its_slope_the_derivative(seed: int) -> None:
    made = bent(seed)
    t = torch.linspace(0, 1, 1001, requires_grad=True)
    values, slopes = made(t)
    (derivative,) = torch.autograd.grad(values.sum(), t)
    assert values[0].item() == pytest.approx(FIRST, abs=1e-5)
    assert values[-1].item() == pytest.approx(LAST, abs=1e-5)
    assert (slopes > 0).all()
    assert (values.diff() > 0).all()
    torch.testing.assert_close(slopes, derivative, rtol=1e-4, atol=1e-4)


def test_it_starts_almost_straight() -> None:
    torch.manual_seed(0)
    t = torch.linspace(0, 1, 101)
    with torch.no_grad():
        made = NoiseSchedule()(t)[0]
    assert (made - (FIRST + (LAST - FIRST) * t)).abs().max() < 2.0  # of 18.3 from end to end


def test_weights_in_bf16_make_a_schedule_that_is_as_smooth() -> None:
    made = bent(0).bfloat16()
    t = torch.linspace(0, 1, 1001)
    with torch.no_grad():
        values, slopes = made(t)
    assert values.dtype == slopes.dtype == torch.float32
    assert (values.diff() > 0).all()
    assert values[-1].item() == pytest.approx(LAST, abs=1e-5)
