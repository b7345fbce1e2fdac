"""How long a step takes, from rows that a run wrote: a spread, without what is no step."""

from __future__ import annotations

import pytest

from trainjobs.plan.measured import enough, pace, seconds


def rows(*times: float, first: int = 1) -> list[dict[str, float]]:
    return [{"step": first + number, "time": time, "samples": 64.0 * number} for number, time in enumerate(times)]


def test_the_spread_of_the_steps_and_a_tenth_beyond_it() -> None:
    found = pace(rows(*(100.0 + 2 * number for number in range(12))), [], 2, "probe on cpu")
    assert found is not None
    assert (found.low, found.median, found.high, found.ranks) == pytest.approx((1.8, 2.0, 2.2, 2))
    assert found.basis == "probe on cpu: 11 steps, median 2 s, 2 s to 2 s"


def test_steps_that_warm_up_do_not_count() -> None:
    slow = [float(10 * number) for number in range(10)]
    found = pace(rows(*slow, *(90.0 + 0.5 * number for number in range(1, 11))), [], 1, "probe", warm=10)
    assert found is not None
    assert found.median == 0.5
    assert found.basis.startswith("probe: 10 steps, median 500 ms")


def of(*lengths: tuple[float, int]) -> list[dict[str, float]]:
    """Rows with these seconds of a step, and steps, between them."""
    made = [{"step": 10, "time": 0.0, "samples": 640.0}]
    for each, count in lengths:
        step, time = made[-1]["step"] + count, made[-1]["time"] + each * count
        made.append({"step": step, "time": time, "samples": 64.0 * step})
    return made


def test_of_ten_intervals_the_slow_one_is_in_the_range() -> None:
    found = pace(of(*[(0.03, 16)] * 9, (0.05, 10)), [], 1, "probe", warm=10)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.9 * 0.03, 1.1 * 0.05))


def test_of_thirty_intervals_one_at_each_end_in_ten_is_not() -> None:
    given = [0.02] * 2 + [0.03] * 26 + [0.04] * 2
    found = pace(of(*((each, 16) for each in given)), [], 1, "history")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.9 * 0.03, 1.1 * 0.03))


def test_the_range_holds_the_rate_of_all_that_was_seen() -> None:
    """One step in twenty takes fifty times as long: no percentile tells it, and every run of 500 steps pays for it."""
    given = of(*([(0.03, 1)] * 19 + [(1.5, 1)]) * 2)
    found = pace(given, [], 1, "history")
    assert found is not None
    mean = given[-1]["time"] / 40
    assert found.median == pytest.approx(0.03)
    assert found.low < mean < found.high


@pytest.mark.parametrize(
    ("lengths", "is_enough"),
    [
        ([(0.03, 300)], False),  # nine seconds
        ([(0.03, 340)], True),
        ([(2.0, 1)] * 9, False),  # up to step 19
        ([(2.0, 1)] * 10, True),
    ],
)
def test_a_probe_is_twenty_steps_and_ten_seconds(lengths: list[tuple[float, int]], is_enough: bool) -> None:
    warming = [{"step": number, "time": 30.0 * number - 300.0, "samples": 1.0} for number in range(1, 10)]
    assert enough([*warming, *of(*lengths)], 20, 10, 10.0) == is_enough
    assert not enough(warming, 20, 10, 10.0)


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
