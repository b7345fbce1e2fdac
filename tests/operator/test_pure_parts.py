"""Names, quantities, conditions and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain_operator.conditions import Condition, events, is_true, settled
from gentrain_operator.kube.resource import Object
from gentrain_operator.names import attempt_of, label_value, rayjob_name
from gentrain_operator.present import duration
from gentrain_operator.quantity import amount, cpu, memory


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", fullmatch=True), st.integers(1, 999_999))
def test_any_job_name_gives_a_name_that_kuberay_takes(name: str, attempt: int) -> None:
    made = rayjob_name(name[:253].rstrip("-."), attempt)
    assert len(made) <= 47
    assert made[0].isalpha()
    assert all(character.isalnum() or character == "-" for character in made)
    assert attempt_of({"metadata": {"name": made}}) == attempt


def test_names_stay_readable_and_apart() -> None:
    assert rayjob_name("faces-wgan", 12) == "faces-wgan-a12"
    assert rayjob_name("n" * 60, 1) != rayjob_name("n" * 61, 1)
    assert rayjob_name("a.b", 1) != rayjob_name("a-b", 1)
    assert len(label_value("n" * 253)) <= 63


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("3k", 3000)])
def test_quantities(text: str, value: float) -> None:
    assert float(amount(text)) == value


def test_quantities_that_are_none() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        amount("3kM")


def test_shares_round_down() -> None:
    assert (cpu(amount("1") / 3), cpu(amount("4")), memory(amount("1Gi") / 3)) == ("333m", "4", "341Mi")


def test_conditions_are_in_order_and_keep_their_time() -> None:
    before = settled([], [Condition("Running", False, "Starting"), Condition("Accepted", True, "Accepted")], 1, "t1")
    assert [one["type"] for one in before] == ["Ready", "Accepted", "Running"]
    after = settled(before, [Condition("Accepted", True, "Accepted"), Condition("Running", True, "Stepping")], 2, "t2")
    assert [(one["lastTransitionTime"], one["observedGeneration"]) for one in after] == [("t2", 2), ("t1", 2), ("t2", 2)]
    assert is_true(after, "Running")
    assert not is_true(before, "Running")


def test_events_follow_from_changes() -> None:
    none: list[Object] = []
    first = settled(none, [Condition("Accepted", True, "Accepted"), Condition("ResourcesReady", False, "ScalingUp")], 1, "t")
    assert [event.reason for event in events(none, first)] == ["Accepted"]
    second = settled(
        first, [Condition("Accepted", True, "Accepted"), Condition("ResourcesReady", False, "Unschedulable", "no node")], 1, "t"
    )
    assert [(event.type, event.reason, event.note) for event in events(first, second)] == [("Warning", "Unschedulable", "no node")]
    assert list(events(second, second)) == []


@pytest.mark.parametrize(("length", "text"), [(0, "0s"), (45.9, "45s"), (60, "1m"), (200, "3m20s"), (4320, "1h12m"), (3600, "1h")])
def test_durations(length: float, text: str) -> None:
    assert duration(length) == text
