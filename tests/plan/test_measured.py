"""How long a step takes, from rows that a run wrote: a spread, without what is no step."""

from __future__ import annotations

import pytest

from trainjobs.plan.measured import pace, seconds


def rows(*times: float, first: int = 1) -> list[dict[str, float]]:
    return [{"step": first + number, "time": time, "samples": 64.0 * number} for number, time in enumerate(times)]


def test_the_spread_of_the_steps_and_a_tenth_beyond_it() -> None:
    found = pace(rows(*(100.0 + 2 * number for number in range(12))), [], 2, "probe on cpu")
    assert found is not None
    assert (found.low, found.median, found.high, found.ranks) == pytest.approx((1.8, 2.0, 2.2, 2))
    assert found.basis == "probe on cpu: 11 steps, median 2 s, 2 s to 2 s"


def test_of_twenty_steps_the_last_ten_count() -> None:
    slow = [float(10 * number) for number in range(10)]
    found = pace(rows(*slow, *(90.0 + 0.5 * number for number in range(1, 11))), [], 1, "probe", last=10)
    assert found is not None
    assert found.median == 0.5
    assert found.basis.startswith("probe: 10 steps, median 500 ms")


def test_what_is_done_beside_steps_does_not_count() -> None:
    given = rows(0.0, 1.0, 2.0, 30.0, 31.0)
    assert [each for each, _ in seconds(given, [{"event": "evaluated", "time": 15.0}])] == [1.0, 1.0, 1.0]
    assert [each for each, _ in seconds(given, [{"event": "note", "time": 15.0}])] == [1.0, 1.0, 28.0, 1.0]


def test_rows_of_several_steps_and_of_scores() -> None:
    given = [{"step": 1, "time": 0.0, "samples": 1}, {"step": 5, "time": 4.0, "heldout/loss": 1}, {"step": 11, "time": 20.0, "samples": 2}]
    assert seconds(given, []) == [(2.0, 10)]


def test_a_run_that_went_back_is_no_negative_time() -> None:
    assert seconds([{"step": 9, "time": 0.0, "samples": 1}, {"step": 3, "time": 5.0, "samples": 2}], []) == []


def test_too_few_say_nothing() -> None:
    assert pace(rows(0.0, 1.0, 2.0, 3.0, 4.0), [], 1, "history") is None
    assert pace([], [], 1, "history") is None
