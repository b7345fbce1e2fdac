"""The operator as a process where many jobs stand already: what each of them costs it, and that it leaves them as they are."""

from __future__ import annotations

import re

import pytest
import yaml

from bench.operator_scale import ROOT, scale

pytestmark = pytest.mark.slow

GOAL = 200e6  # bytes, with ten thousand jobs


def test_ten_thousand_jobs_stay_below_the_goal_and_the_charts_limit_and_nothing_is_written() -> None:
    """Measured with 500 and 2,500, whose RayJobs are 40 KiB each; what another one adds is the same from there on."""
    (few,), (many,) = scale(500), scale(2500)
    assert few["writes"] == many["writes"] == {}
    assert many["rayjobBytes"] > 36 * 1024
    each = (many["scrape"]["peak"] - few["scrape"]["peak"]) / 2000
    assert each < 12_000
    whole = many["scrape"]["peak"] + 7500 * max(each, 0)
    assert whole < GOAL
    limit = yaml.safe_load((ROOT / "charts" / "gentrain" / "values.yaml").read_text())["resources"]["limits"]["memory"]
    mebibytes = re.fullmatch(r"(\d+)Mi", limit)
    assert mebibytes
    assert int(mebibytes[1]) * 2**20 > GOAL
