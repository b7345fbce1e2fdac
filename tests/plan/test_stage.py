"""The ZeRO stage, against the numbers of the ZeRO paper."""

from __future__ import annotations

import pytest

from trainjobs.plan.stage import STATES_SHARE, lowest_stage, states_bytes

BILLION, GIGABYTE = 10**9, 10**9


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_figure_1_of_the_paper(stage: int, gigabytes: float) -> None:
    """7.5 billion parameters, 64 workers, mixed precision with Adam (Rajbhandari et al., 2020, figure 1: 120, 31.4, 16.6, 1.9 GB)."""
    assert round(states_bytes(7_500_000_000, stage, 64, "bf16") / GIGABYTE, 1) == gigabytes


@pytest.mark.parametrize(
    ("parameters", "workers", "gigabytes"),
    [
        # Table 1 of the paper, (P_os, P_os+g, P_os+g+p).
        (7.5, 1, (120.0, 120.0, 120.0)),
        (7.5, 4, (52.5, 41.3, 30.0)),
        (7.5, 1024, (30.1, 15.1, 0.12)),
        (128.0, 16, (608.0, 368.0, 128.0)),
        (1000.0, 256, (4046.0, 2054.0, 62.5)),
        (1000.0, 1024, (4011.0, 2013.0, 15.6)),
    ],
)
def test_table_1_of_the_paper(parameters: float, workers: int, gigabytes: tuple[float, float, float]) -> None:
    ours = [states_bytes(int(parameters * BILLION), stage, workers, "bf16") / GIGABYTE for stage in (1, 2, 3)]
    assert ours == pytest.approx(gigabytes, rel=5e-3, abs=0.05)


def test_fp32_holds_weights_gradients_and_two_moments() -> None:
    assert [states_bytes(1000, stage, 2, "fp32") for stage in range(4)] == [16_000, 12_000, 10_000, 8_000]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_lowest_stage_that_fits_is_taken(precision: str) -> None:
    for stage in range(4):
        need = states_bytes(10**6, stage, 8, precision)
        assert lowest_stage(10**6, 8, precision, int(need / STATES_SHARE) + 1) == stage
        assert lowest_stage(10**6, 8, precision, int(need / STATES_SHARE) - 8) == min(stage + 1, 3)


def test_when_nothing_fits_the_highest_is_taken() -> None:
    assert lowest_stage(10**12, 1, "bf16", 10**9) == 3
    assert lowest_stage(10**12, 64, "bf16", 10**9, highest=2) == 2


def test_one_worker_gains_nothing_from_a_stage() -> None:
    assert lowest_stage(10**6, 1, "fp32", 10**9) == 0
    assert len({states_bytes(10**6, stage, 1, "fp32") for stage in range(4)}) == 1


def test_frozen_weights_are_weights_alone_and_split_at_stage_3() -> None:
    assert states_bytes(100, 0, 4, "fp32", frozen=1000) == 100 * 16 + 1000 * 4
    assert states_bytes(100, 2, 4, "bf16", frozen=1000) == states_bytes(100, 2, 4, "bf16") + 1000 * 2
    assert states_bytes(100, 3, 4, "bf16", frozen=1000) == states_bytes(100, 3, 4, "bf16") + 1000 * 2 // 4
    assert lowest_stage(100, 4, "fp32", 10_000) == 0
    assert lowest_stage(100, 4, "fp32", 10_000, frozen=2000) == 3
