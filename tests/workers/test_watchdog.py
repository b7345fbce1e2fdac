"""The watchdog's decisions, by a clock of the test's; that a hung worker really ends is shown in tests/e2e_local/test_stall.py."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures
from trainjobs.workers.watchdog import STARTUP, Watchdog, describe


class Ledger:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def verdict(self, retries: int) -> JobError | None:
        raise AssertionError

    def record(self, rank: int, error: Exception) -> None:
        self.said.append(failures.account(rank, error, "the log"))

    def explained(self) -> bool:
        raise AssertionError


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    ledger, clock, ended = Ledger(), Clock(), list[int]()
    watchdog = Watchdog(ledger, 1, 60.0, tmp_path / "logs" / "stacks-1.txt", now=clock, end=ended.append)
    watchdog._thread = threading.Thread(target=lambda: None)  # the test looks, not the thread
    return watchdog, ledger, clock, ended


def test_steps_in_time_are_left_alone(parts: Any) -> None:
    watchdog, ledger, clock, ended = parts
    with watchdog:
        for step in range(1, 5):
            watchdog.heartbeat(step)
            clock.time += 59.0
            assert not watchdog.look()
    assert not ledger.said
    assert not ended
    assert not watchdog._stacks.exists()


def test_an_evaluation_of_hours_is_left_alone_while_it_goes_on(parts: Any) -> None:
    """Every pass of a network is a sign of life; that the loop gives them is shown in tests/equivalence/test_going_back.py."""
    watchdog, ledger, clock, _ = parts
    with watchdog:
        watchdog.heartbeat(7)
        for _ in range(200):
            clock.time += 59.0
            assert not watchdog.look()
            watchdog.heartbeat(7)
        clock.time += 61.0
        assert watchdog.look(), "but not when it hangs"
    assert ledger.said[0]["where"] == "after step 7"


def test_a_worker_that_hangs_says_where_and_ends(parts: Any) -> None:
    watchdog, ledger, clock, ended = parts
    with watchdog:
        watchdog.heartbeat(7)
        clock.time += 61.0
        assert watchdog.look()
        (said,) = ledger.said
        assert (said["code"], said["rank"], said["known"], said["victim"]) == ("GTJ0210", 1, False, False)
        assert said["what"] == "no step for 61 s"
        assert said["where"] == "after step 7"
        assert "test_watchdog.py" in said["why"] or "watchdog.py" in said["why"]
        assert "test_a_worker_that_hangs" in watchdog._stacks.read_text()
    assert ended == [1]


def test_before_the_first_step_there_is_more_time(parts: Any) -> None:
    watchdog, ledger, clock, _ = parts
    with watchdog:
        clock.time += STARTUP + 59.0
        assert not watchdog.look()
        clock.time += 2.0
        assert watchdog.look()
    assert ledger.said[0]["where"] == "before the first step"
    assert ledger.said[0]["what"] == "no step for 661 s"


def test_a_worker_in_a_collective_is_a_victim(tmp_path: Path) -> None:
    code = compile(
        "def all_reduce():\n    return sys._getframe()\nframe = all_reduce()", "/x/torch/distributed/distributed_c10d.py", "exec"
    )
    scope: dict[str, Any] = {"sys": sys}
    exec(code, scope)
    stalled = describe({1: scope["frame"]}, 1, 3, 60.0, tmp_path)
    assert stalled.waiting
    assert "waits for another worker" in stalled.failure.line()
