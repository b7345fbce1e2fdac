"""What is computed of memory, against the ZeRO paper's sums, which are written out here and held to the paper's own figures."""

from __future__ import annotations

import pytest

from trainjobs.plan.memory import BUCKET, Weights, states

BILLION, GIGABYTE = 10**9, 10**9


def paper(parameters: int, stage: int, workers: int, precision: str, frozen: int = 0) -> float:
    """Bytes of weights, gradients and Adam's states on one worker (Rajbhandari et al., "ZeRO", 2020, section 3 and figure 1).

    fp32: 4 weights + 4 gradients + 8 moments; bf16: 2 + 2 + 12 (fp32 master and moments). Weights that are not trained are weights alone,
    split at stage 3 as well.
    """
    weights, gradients, optimizer = (4.0, 4.0, 8.0) if precision == "fp32" else (2.0, 2.0, 12.0)
    optimizer /= workers if stage >= 1 else 1
    gradients /= workers if stage >= 2 else 1
    weights /= workers if stage >= 3 else 1
    return parameters * (weights + gradients + optimizer) + frozen * weights


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_figure_1_of_the_paper(stage: int, gigabytes: float) -> None:
    """7.5 billion parameters, 64 workers, mixed precision with Adam (Rajbhandari et al., 2020, figure 1: 120, 31.4, 16.6, 1.9 GB)."""
    assert round(paper(7_500_000_000, stage, 64, "bf16") / GIGABYTE, 1) == gigabytes


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
    found = [paper(int(parameters * BILLION), stage, workers, "bf16") / GIGABYTE for stage in (1, 2, 3)]
    assert found == pytest.approx(gigabytes, rel=5e-3, abs=0.05)


@pytest.mark.parametrize("workers", [1, 4, 64])
@pytest.mark.parametrize("frozen", [0, 64 * 10**7])
def test_where_the_states_are_the_papers_and_what_deepspeed_keeps_beside_them(workers: int, frozen: int) -> None:
    """Gradients are what a step needs, not a state, where they are whole; two buckets are there from stage 1 on; at stage 3 the weights are
    gathered while the network computes."""
    parameters = 64 * 10**9
    weights, twice = Weights({"model": parameters}, frozen), 2 * 2 * BUCKET
    assert states(weights, 0, workers, "fp32") == paper(parameters, 0, workers, "fp32", frozen) - 4 * parameters
    assert states(weights, 1, workers, "bf16") - twice == paper(parameters, 1, workers, "bf16", frozen) - 2 * parameters
    gathered = 2 * (parameters + frozen)
    assert states(weights, 3, workers, "bf16") - twice - gathered == paper(parameters, 3, workers, "bf16", frozen)
