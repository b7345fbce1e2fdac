"""What was foreseen, beside what was measured."""

from __future__ import annotations

import json

import pytest

from trainjobs.plan.forecast import LIMIT, MOST, Actual, Forecast, beside, chosen, read, text

WAY = Forecast("a", 2, 1, 8, 100 * 2**20, (0.010, 0.020), (1.0, 2.0), "probe on cpu")


def test_a_plan_survives_being_written() -> None:
    other = Forecast("b", 1, 0, 16, 7)
    assert read(text([WAY, other])) == [WAY, other]
    assert len(read(text([WAY] * 40))) == MOST


@pytest.mark.parametrize(
    "written",
    [
        *(None, 3, "", "{", "{}", "[3]", "[[]]", "[" * 5000, '"' + "x" * LIMIT + '"'),
        *('[{"nodes": "a", "ranks": true, "stage": 0, "micro": 1, "memory": 1}]', '[{"ranks": -1, "stage": 0, "micro": 1, "memory": 1}]'),
        '[{"ranks": 1, "stage": 0, "micro": 1, "memory": 1e300}]',
    ],
)
def test_what_somebody_else_wrote_is_no_plan(written: object) -> None:
    assert read(written) == []


@pytest.mark.parametrize("pair", ["[2, 1]", "[1]", "[true, 2]", '["1", 2]', "[NaN, 1]", "[1, Infinity]", "[-1, 2]", "5"])
def test_a_range_that_is_none_is_left_out(pair: str) -> None:
    (found,) = read(f'[{{"ranks": 1, "stage": 0, "micro": 1, "memory": 1, "seconds": {pair}, "usd": {pair}}}]')
    assert (found.seconds, found.usd) == (None, None)


def test_only_the_way_that_the_run_goes_is_compared() -> None:
    other = Forecast("b", 2, 1, 8, 5)
    assert chosen([WAY], 2, 1, 8) == WAY
    assert chosen([WAY], 2, 1, 8, "elsewhere") == WAY, "planned for a GPU, run on a profile"
    assert chosen([WAY, other], 2, 1, 8, "b") == other
    assert chosen([WAY, other], 2, 1, 8, "elsewhere") is None
    for ranks, stage, micro in ((1, 1, 8), (2, 0, 8), (2, 1, 4)):
        assert chosen([WAY], ranks, stage, micro) is None


MIB = 2**20


@pytest.mark.parametrize(
    ("actual", "missed"),
    [
        (Actual(114 * MIB, 0.020, 2.0, True), ["", "", ""]),
        (Actual(86 * MIB, 0.010, 1.0, True), ["", "", ""]),
        (
            Actual(116 * MIB, 0.021, 2.1, False),
            ["above it by more than 15%", "above the range", "above the range, which is of the training alone"],
        ),
        (
            Actual(84 * MIB, 0.009, 0.5, True),
            ["below it by more than 15%", "below the range", "below the range, which is of the training alone"],
        ),
        (Actual(None, None, 0.5, False), [""]),
        (Actual(), []),
    ],
)
def test_a_miss_of_more_than_the_range_is_told(actual: Actual, missed: list[str]) -> None:
    assert [line.missed for line in beside(WAY, actual)] == missed


def test_in_words() -> None:
    memory, time, cost = map(str, beside(WAY, Actual(100 * MIB, 0.025, 1.5)))
    assert memory == "memory 100 MiB foreseen, 100 MiB measured"
    assert time == "time 10 to 20 ms a step foreseen, 25 ms measured: above the range"
    assert cost == "cost $1.00 to $2.00 foreseen, $1.50 measured"
    assert json.loads(text([WAY]))[0]["basis"] == "probe on cpu"
