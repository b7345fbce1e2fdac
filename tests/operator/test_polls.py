"""How often head pods are asked, and until when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from gentrain_operator import polls, report
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key
from gentrain_operator.polls import Endpoint, Polls

KEY = Key("team", "job")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds(polls: Polls, clock: Clock, count: int) -> Iterator[int]:
    """So many seconds pass; at the end of each, what is due is polled."""
    for second in range(count):
        clock.now = float(second)
        yield second
        key = polls._queue.take()
        if key is not None:
            polls.poll(key)
            polls._queue.done(key)


def test_a_report_that_changed_wakes_its_job() -> None:
    woken: list[Key] = []
    answers: list[Any] = [{"step": 1}, {"step": 1}, report.Unreadable("down"), {"step": 2}]

    def read(address: str, port: int) -> Object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    polls = Polls(woken.append, read=read, clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for _ in range(4):
        polls.poll(KEY)
    assert woken == [KEY, KEY]
    assert polls.report(KEY) == {"step": 2}


def test_the_report_of_an_older_attempt_is_forgotten() -> None:
    polls = Polls(lambda key: None, read=lambda address, port: {"step": 1}, clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    polls.poll(KEY)
    polls.follow(KEY, None)
    assert polls.report(KEY) == {"step": 1}  # the attempt's last words
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 2))
    assert polls.report(KEY) is None
    polls.forget(KEY)
    polls.poll(KEY)


def test_an_attempt_that_ends_is_asked_for_its_last_words_until_it_answers_no_more() -> None:
    clock, asked = Clock(), []
    answers: list[Any] = [{"step": 7}, {"step": 9}, {"step": 9, "checkpoint": {"step": 9}}, report.Unreadable("gone"), {"step": 99}]

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for second in seconds(polls, clock, 60):
        if second >= 5:
            polls.follow(KEY, None)  # at every look from now on
    assert asked == [0, 5, 6, 7]
    assert polls.report(KEY) == {"step": 9, "checkpoint": {"step": 9}}


def test_last_words_are_not_taken_from_another_driver() -> None:
    answers = [{"startedAt": 1.0, "step": 7}, {"startedAt": 2.0, "step": 3}]
    polls = Polls(lambda key: None, read=lambda address, port: answers.pop(0), clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    polls.poll(KEY)
    polls.follow(KEY, None)
    polls.poll(KEY)
    polls.poll(KEY)  # asks nobody: there is no answer left
    assert polls.report(KEY) == {"startedAt": 1.0, "step": 7}


def test_dead_endpoints_are_asked_less_and_less() -> None:
    clock, asked = Clock(), []

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        raise report.Unreadable("down")

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for _ in seconds(polls, clock, 400):
        pass
    assert asked == [0, 10, 30, 70, 150, 270, 390]


def test_a_driver_that_is_on_its_way_is_asked_as_often_as_one_that_runs() -> None:
    """A refused connection costs nothing; and a failure is served for 20 s only."""
    clock, asked = Clock(), []

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        raise report.Unreadable("refused", refused=True)

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for _ in seconds(polls, clock, 35):
        pass
    assert asked == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, 3),
        ({"step": 5, "etaSeconds": 400.0}, 10),
        ({"step": 5, "etaSeconds": 400.0, "phase": "Stopping"}, 1),
        ({"step": 5, "etaSeconds": 4.5}, 4.5),
        ({"step": 5, "etaSeconds": 0}, 1),
        ({"step": 5, "etaSeconds": math.nan}, 10),
        ({"step": 5, "etaSeconds": "x"}, 10),
        ({"step": 0, "etaSeconds": 2}, 3),
    ],
)
def test_the_end_is_asked_for_in_time(told: Object, seconds: float) -> None:
    assert polls.after(told) == seconds
