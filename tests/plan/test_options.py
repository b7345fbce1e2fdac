"""Ways to run a job: which fit, how long they take and cost by hand, and in which order they are told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.operator.test_rayjob import spec as job_spec
from trainjobs.plan.devices import DEVICES, Device, device
from trainjobs.plan.memory import Beside, Weights
from trainjobs.plan.options import Option, Pool, Step, options

STEP = Step(Weights({"model": 1000}), {4: (Beside(4000, 2000), 40 * 10**9), 8: (Beside(6000, 3000), 80 * 10**9)})
SMALL = Pool("small", 40_000, Device("small", 40_000, single=1e12, half=4e12), per_node=4, price=2.0)
LARGE = Pool("large", 10**9, Device("large", 10**9, single=2e12, half=8e12), per_node=8, price=40.0)


def found(*pools: Pool, **more: Any) -> list[Option]:
    spec = job_spec(
        training={"steps": 9000, "batch": {"global": 64}, **more.pop("training", {})},
        compute={"workers": 2, "gpusPerWorker": 1, **more.pop("compute", {})},
        deepspeed={"stage": more.pop("stage", 0)},
    )
    return options(spec, STEP, pools)


def test_what_a_micro_batch_needs_lies_on_the_line_of_the_two_that_were_seen() -> None:
    assert [STEP.beside(micro).whole for micro in (1, 4, 8, 32)] == [2500, 4000, 6000, 18_000]
    assert STEP.flops(16) == 160 * 10**9
    assert Step(STEP.weights, {}).beside(4) == Beside(0, 0)
    spec = job_spec(training={"steps": 10, "batch": {"global": 8}}, compute={"gpusPerWorker": 1})
    assert options(spec, Step(STEP.weights, {}), [SMALL])[0].hours is None, "of a step that nobody knows there is no time"


def test_time_and_cost_by_hand() -> None:
    """Two ranks of 32 rows each, 10 GFLOP a row: 320 GFLOP a step, 9,000 of them, at 3 to 15 % of 1 TFLOP/s; a node of 2 USD an hour."""
    (one,) = found(SMALL)
    assert one.hours == pytest.approx((320e9 * 9000 / 1e12 / 0.15 / 3600, 320e9 * 9000 / 1e12 / 0.03 / 3600))
    assert one.usd == pytest.approx((one.hours[0] * 2, one.hours[1] * 2))
    (eight,) = found(SMALL, compute={"workers": 8})
    assert eight.usd == pytest.approx((eight.hours[0] * 4, eight.hours[1] * 4)), "eight workers take two nodes of four GPUs"


def test_the_largest_micro_batch_that_fits_is_taken() -> None:
    (one,) = found(Pool("tight", 27_000, SMALL.device, 4, 2.0))
    assert (one.cut.micro, one.cut.accumulation, one.fits) == (16, 2, True)
    (none,) = found(Pool("none", 9000))
    assert (none.cut.micro, none.fits) == (1, False)


def test_the_cheapest_comes_first_and_what_does_not_fit_last() -> None:
    assert [one.pool.name for one in found(LARGE, SMALL)] == ["small", "large"]
    assert [one.pool.name for one in found(LARGE, Pool("none", 9000, SMALL.device, 4, 0.1))] == ["large", "none"]
    assert found(SMALL, stage="auto")[0].stage == 0


def test_without_a_device_or_a_price_nothing_is_said() -> None:
    (one,) = found(Pool("this machine", 10**9))
    assert (one.hours, one.usd) == (None, None)
    (priceless,) = found(Pool("p", 10**9, SMALL.device, 4))
    assert priceless.hours is not None
    assert priceless.usd is None


def test_names_of_profiles_are_found() -> None:
    assert device("l4-24gb") == DEVICES["l4"]
    assert device("a100-80gb") == DEVICES["a100-80gb"]
    assert device("tpu-v5") is None
    assert all(one.half >= one.single for one in DEVICES.values())
