"""Restarts that count against nothing: profiles in order, and progress that forgives."""

from __future__ import annotations

from typing import Any

from gentrain_operator.diagnose import Failure
from gentrain_operator.free_restarts import CAP, counted, exhausted, worn
from tests.operator.test_decide import NOW, ONE, UNSCHEDULABLE, child, decided, failed, pod, profile, reasons, seen

LOST = {"message": "Ray head pod not found."}


def test_a_profile_without_nodes_is_not_tried_again_first() -> None:
    compute, profiles = {"profiles": ["a", "b"], "gpusPerWorker": 0}, profile("a") | profile("b")
    ended = decided(seen(ONE, [child()], pods=[pod(conditions=UNSCHEDULABLE)], compute=compute, profiles=profiles)).status
    assert ended is not None
    again = decided(seen({**ended, "retryAt": None}, compute=compute, profiles=profiles), NOW).status
    assert again is not None
    assert again["plan"]["profile"] == "b"


def test_preemptions_with_progress_between_them_move_to_no_other_profile_and_wait_no_longer() -> None:
    status: dict[str, Any] = dict(ONE)
    for step in range(1, 50):
        status = {**status, "attempts": step, "checkpoint": {"uri": "u", "step": step}}
        decision = decided(seen(status, [failed(step, **LOST)]))
        assert decision.again == 10
        status = decision.status or {}
        assert not worn(status["sinceProgress"])


def test_restarts_without_a_commit_end_and_say_why() -> None:
    status: dict[str, Any] = dict(ONE)
    for attempt in range(1, CAP + 1):
        decision = decided(seen({**status, "attempts": attempt}, [failed(attempt, **LOST)]))
        status = decision.status or {}
        assert ("Failed" in reasons(decision)) is (attempt == CAP)
    assert status["failure"]["code"] == "GTJ0217"
    assert "20 attempts" in status["failure"]["detail"]


def test_a_commit_starts_the_count_over() -> None:
    before = {"sinceProgress": {"step": 5, "restarts": 3, "moves": 2, "free": 19}, "checkpoint": {"step": 6}}
    since = counted(before, moved=False)
    assert since == {"step": 6, "restarts": 1, "moves": 0, "free": 1}
    assert exhausted(since, Failure("GTJ0213", "Infrastructure", "lost", "")) is None
