"""What a rank needs at its peak, by stage: the terms by hand, and which stage is taken."""

from __future__ import annotations

import pytest

from trainjobs.plan.memory import NOTHING, SPARE, Beside, Weights, fits, lowest, moments, peak, states

P = Weights({"model": 1000})


def test_terms_by_hand() -> None:
    """Adam in fp32 on two ranks: 4 + 8 bytes of a weight at stage 0; from stage 1 on 4 whole, 12 divided, and twice a bucket of 4."""
    assert [states(P, stage, 2, "fp32") for stage in range(4)] == [12_000, 4_000 + 6_000 + 8_000, 18_000, 10_000 + 8_000 + 4_000]
    assert [states(P, stage, 2, "bf16") for stage in range(4)] == [12_000, 2_000 + 6_000 + 4_000, 12_000, 8_000 + 4_000 + 2_000]


def test_what_a_step_needs_is_that_of_its_precision_and_stage() -> None:
    beside = Beside(whole=700, halved=300)
    assert peak(P, beside, 0, 2, "bf16") == states(P, 0, 2, "bf16") + 700
    assert peak(P, beside, 2, 2, "bf16") == states(P, 2, 2, "bf16") + 300
    assert peak(P, beside, 2, 2, "fp32") == states(P, 2, 2, "fp32") + 700


def test_frozen_weights_are_weights_alone_and_divided_at_stage_3_where_they_are_gathered() -> None:
    frozen = Weights({"model": 1000}, frozen=500)
    assert [states(frozen, stage, 2, "fp32") - states(P, stage, 2, "fp32") for stage in range(4)] == [2000, 2000, 2000, 1000 + 2000]


def test_the_bucket_is_that_of_the_largest_network_and_bounded() -> None:
    assert states(Weights({"a": 1000, "b": 3000}), 1, 1, "fp32") == 4000 * 16 + 2 * 4 * 3000
    huge = Weights({"a": 2_000_000_000})
    assert states(huge, 1, 1, "bf16") == 2_000_000_000 * 14 + 2 * 2 * 500_000_000


def test_moments_of_optimizers() -> None:
    assert [moments(one) for one in (["adamw"], ["sgd"], ["rmsprop", "sgd"], [])] == [2, 0, 1, 0]


def test_a_higher_stage_may_need_more_and_every_one_is_computed() -> None:
    """Two ranks in fp32: stages 1 and 3 need more than stage 0, so a job that does not fit there fits nowhere, and stays at stage 0."""
    room = int(states(P, 0, 2, "fp32") / (1 - SPARE)) + 1
    assert lowest(P, NOTHING, 2, "fp32", room) == 0
    assert lowest(P, NOTHING, 2, "fp32", room - 2000) == 0, "none fits: the one that needs least"
    assert lowest(P, NOTHING, 64, "fp32", room - 2000) == 0, "two buckets of its own size are all that 64 ranks would save"
    large = Weights({"model": 2_000_000_000})  # more than a bucket
    assert lowest(large, NOTHING, 64, "fp32", 16 * 10**9) == 1
    assert lowest(P, NOTHING, 64, "bf16", int(states(P, 1, 64, "bf16"))) == 1, "stage 3 needs 2 (b + 1) P where it gathers all: no less"
    assert lowest(large, NOTHING, 64, "fp32", 5000, highest=2) == 1


@pytest.mark.parametrize("stage", range(4))
def test_one_rank_gains_nothing(stage: int) -> None:
    assert states(P, stage, 1, "fp32") >= states(P, 0, 1, "fp32")


def test_a_share_of_the_device_is_kept_free() -> None:
    assert fits(92, 100)
    assert not fits(93, 100)
