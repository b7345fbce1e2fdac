"""When a GAN grows, counted image by image, and what its real samples look like meanwhile."""

from __future__ import annotations

import pytest
import torch

from trainjobs.api.gan import Progressive
from trainjobs.objectives.gan.growing import Grown, Growth, whole

GROWTH = Growth(Progressive(start=4, fade_images=30, stable_images=20), size=16, shown=10)


def test_levels_and_fades_go_by_images_shown() -> None:
    # Two steps of 4 x 4; a fade of three, and two; a fade of three, and the rest.
    found = [GROWTH.at(step) for step in range(12)]
    assert [one.level for one in found] == [0, 0, *[1] * 5, *[2] * 5]
    assert [one.alpha for one in found] == pytest.approx([1, 1, 0, 1 / 3, 2 / 3, 1, 1, 0, 1 / 3, 2 / 3, 1, 1])
    assert GROWTH.at(10**6) == Grown(2, 1.0)


def test_a_level_begins_at_the_first_step_behind_so_many_images() -> None:
    uneven = Growth(Progressive(start=8, fade_images=0, stable_images=25), size=32, shown=10)
    assert [uneven.begins(level) for level in (1, 2, 3)] == [0, 3, 5]
    assert [(one.level, one.alpha) for one in map(uneven.at, range(6))] == [(1, 1)] * 3 + [(2, 1)] * 2 + [(3, 1)]


def test_real_samples_are_faded_as_generated_ones_are() -> None:
    real = torch.arange(256.0).view(1, 1, 16, 16)
    quarter = real.view(1, 1, 4, 4, 4, 4).mean(dim=(3, 5))
    torch.testing.assert_close(Grown(0, 1.0).shrunk(real), quarter)
    eight = real.view(1, 1, 8, 2, 8, 2).mean(dim=(3, 5))
    mixed = 0.75 * quarter.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0.25 * eight
    torch.testing.assert_close(Grown(1, 0.25).shrunk(real), mixed)
    assert torch.equal(Grown(2, 1.0).shrunk(real), real)


def test_samples_have_the_size_of_the_images() -> None:
    assert torch.equal(whole(torch.tensor([[[[1.0, 2.0]] * 2]]), 4)[0, 0, 0], torch.tensor([1.0, 1.0, 2.0, 2.0]))
