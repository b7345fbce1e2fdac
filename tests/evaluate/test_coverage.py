"""Mode coverage on mixtures whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from trainjobs.data.ring import MODES, SIGMA, draw
from trainjobs.evaluate.coverage import Coverage, coverage


def test_the_true_mixture_covers_all_modes_at_the_chi_square_share() -> None:
    scores = coverage(draw(torch.arange(20_000)), MODES, SIGMA)
    assert scores.covered == 8
    assert scores.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)


def test_a_collapsed_generator_covers_what_it_hits() -> None:
    assert coverage(torch.tensor(MODES[3]).expand(100, 2), MODES, SIGMA) == Coverage(covered=1, high_quality=1.0)


def test_points_between_the_modes_are_of_low_quality() -> None:
    angle = torch.arange(8) * math.tau / 8 + math.tau / 16
    between = 2.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    assert coverage(between, MODES, SIGMA) == Coverage(covered=0, high_quality=0.0)
    assert coverage(torch.full((4, 2), float("nan")), MODES, SIGMA) == Coverage(covered=0, high_quality=0.0)


def test_three_sigma_is_the_edge_and_a_mode_may_need_more_samples() -> None:
    points = torch.tensor([[2.99, 0.0], [3.01, 0.0], [0.0, 0.0]]) * SIGMA
    assert coverage(points, [(0.0, 0.0)], SIGMA).high_quality == pytest.approx(2 / 3)
    assert coverage(points, [(0.0, 0.0)], SIGMA, least=2).covered == 1
    assert coverage(points, [(0.0, 0.0)], SIGMA, least=3).covered == 0


def test_a_point_counts_for_the_nearest_mode_alone() -> None:
    modes = [(0.0, 0.0), (1.0, 0.0)]  # nearer to each other than three sigma
    assert coverage(torch.tensor([[0.4, 0.0]]), modes, 1.0) == Coverage(covered=1, high_quality=1.0)
    assert coverage(torch.tensor([[0.4, 0.0], [0.6, 0.0]]), modes, 1.0).covered == 2


def test_points_of_a_network_in_half_precision_and_with_a_gradient_are_scored() -> None:
    points = torch.tensor(MODES, dtype=torch.bfloat16, requires_grad=True)
    assert coverage(points, MODES, SIGMA).covered == len(MODES)
