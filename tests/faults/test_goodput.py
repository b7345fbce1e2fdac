"""The best goodput against Young's interval, against Daly's estimate, and against a run counted second by second."""

from __future__ import annotations

import math

import pytest

from bench.goodput import best, goodput

COST, RESTART, BETWEEN = 0.1, 5.0, 1000.0


def test_young_and_daly_where_failures_are_rare() -> None:
    share, interval = best(COST, RESTART, BETWEEN, 0.01)
    assert interval == pytest.approx(math.sqrt(2 * COST * BETWEEN), rel=0.01)
    assert share == pytest.approx(1 - math.sqrt(2 * COST / BETWEEN) - RESTART / BETWEEN, abs=1e-3)


@pytest.mark.parametrize(("interval", "restart", "between"), [(10.0, 20.0, 60.0), (1.2, 59.0, 72.0), (14.0, 5.0, 1000.0)])
def test_a_run_that_is_counted(interval: float, restart: float, between: float) -> None:
    """Each time it goes on from a checkpoint, and loses what was done since the last; hits come at every moment of an interval alike."""
    useful, moments = 0.0, 1000
    for moment in range(moments):
        working = between - restart + (moment / moments - 0.5) * (interval + COST)
        useful += working // (interval + COST) * interval
    assert goodput(interval, COST, restart, between) == pytest.approx(useful / moments / between, abs=COST / between + 1e-3)


def test_a_run_that_is_never_up_gains_nothing() -> None:
    assert best(COST, 30.0, 30.0, 0.1)[0] == 0.0
