"""How much time is left, by a clock of the test's; and what was spent."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.monitor.times import Kind, Times
from trainjobs.plan.beside import Beside

STEPS = 20


def plan(**fields: Any) -> Beside:
    return Beside(**{"every": 2, "samples": 64, "each": True, "save": 5, "score": 1.0, "draw": 3.0, "told": "", **fields})


class Run:
    """A run whose steps take a second, its evaluations and saves as long as they are told to."""

    def __init__(self, takes: dict[Kind, float], asides: Beside, **more: Any) -> None:
        self.time, self.takes, self.plan, self.step = 100.0, takes, asides, 0
        self.times = Times(STEPS, asides, now=lambda: self.time, **more)
        self.times.begin(0)

    def go(self, until: int) -> float | None:
        """To step `until`, what is due there included; what is left then."""
        while self.step < until:
            self.step += 1
            self.time += 1.0
            self.times.look(self.step)
            last = self.step == STEPS
            if last or (self.plan.every and self.step % self.plan.every == 0):
                self.aside("drawings" if self.plan.drawn(last) else "scores")
            if last or (self.plan.save and self.step % self.plan.save == 0):
                self.aside("saves")
        return self.times.left(self.step)

    def aside(self, kind: Kind) -> None:
        with self.times.aside(kind, self.step):
            self.time += self.takes.get(kind, 0.0)

    def rest(self) -> float:
        """What is really left, by letting it happen."""
        now = self.time
        self.go(STEPS)
        return self.time - now


@pytest.mark.parametrize("until", [4, 10, 15, 19])
def test_a_run_that_draws_for_95_percent_of_its_time_knows_how_long_it_takes(until: int) -> None:
    """Ten evaluations of 38 s beside twenty steps of one. Before: "ETA 10s" with 200 s left."""
    run = Run({"drawings": 38.0, "saves": 0.5}, plan())
    told = run.go(until)
    assert told == pytest.approx(run.rest(), rel=0.01)


def test_an_evaluation_that_is_due_now_is_still_to_come() -> None:
    run = Run({"drawings": 38.0}, plan())
    run.go(9)
    run.step, run.time = 10, run.time + 1.0
    run.times.look(10)
    assert run.times.left(10) == pytest.approx(10 + 6 * 38.0)
    with run.times.aside("drawings", 10):
        run.time += 8.0
        assert run.times.left(10) == pytest.approx(10 + 6 * 38.0 - 8.0), "what is over of it is over"
        run.time += 100.0
        assert run.times.left(10) == pytest.approx(10 + 5 * 38.0), "it takes longer than the others: the rest does not become less"


def test_before_the_first_evaluation_it_counts_as_many_steps_as_it_has_passes() -> None:
    run = Run({}, plan())
    assert run.go(1) == pytest.approx(19 + 10 * (1.0 + 3.0))
    assert Run({}, plan(each=False)).go(1) == pytest.approx(19 + 9 * 1.0 + (1.0 + 3.0))
    assert Run({}, plan(every=None)).go(1) == pytest.approx(19 + (1.0 + 3.0))


def test_scores_and_drawings_are_told_apart() -> None:
    run = Run({"scores": 2.0, "drawings": 30.0}, plan(each=False, draw=29.0))
    told = run.go(10)
    assert told == pytest.approx(10 + 4 * 2.0 + (1.0 + 29.0))
    assert run.rest() == pytest.approx(10 + 4 * 2.0 + 30.0)


def test_saves_by_the_clock_are_counted_in_minutes() -> None:
    run = Run({"saves": 6.0}, plan(every=None, save=None, score=0.0, draw=0.0), minutes=1.0)
    run.go(5)
    run.aside("saves")
    assert run.times.left(5) == pytest.approx((15 + 6.0) * 1.1)


def test_nothing_is_told_before_a_step() -> None:
    assert Run({}, plan()).times.left(0) is None


def test_a_run_that_goes_back_does_again_what_it_did() -> None:
    run = Run({"drawings": 10.0}, plan(save=None))
    run.go(10)
    run.step = 4
    run.times.begin(4)
    told = run.times.left(4)
    assert told == pytest.approx(16 + 8 * 10.0)


def test_seconds_of_all_attempts_by_what_they_went_to() -> None:
    first = Run({"drawings": 10.0, "saves": 2.0}, plan())
    first.go(10)
    assert first.times.spent() == {"steps": 10.0, "evaluations": 50.0, "saves": 4.0}
    first.time += 86400.0  # killed, and resumed the next day
    again = Run({"drawings": 10.0, "saves": 2.0}, plan(), before=first.times.spent())
    assert again.times.spent() == first.times.spent()
    again.times.begin(5)
    again.step = 5
    again.go(STEPS)
    assert again.times.spent() == {"steps": 25.0, "evaluations": 130.0, "saves": 10.0}


@pytest.mark.parametrize("before", [{}, {"steps": "x", "evaluations": None}, {"other": 3.0}])
def test_what_an_earlier_version_left_counts_as_nothing(before: dict[str, object]) -> None:
    assert Run({}, plan(), before=before).times.spent() == {"steps": 0.0, "evaluations": 0.0, "saves": 0.0}
