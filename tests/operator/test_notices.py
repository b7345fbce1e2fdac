"""What is told by webhook, given a status: once for what happens, and in words that are no markup."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gentrain_operator import notices
from gentrain_operator.kube.resource import Object

NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
SINCE = "2026-01-01T11:30:00Z"
JOB: Object = {"metadata": {"namespace": "team", "name": "job", "uid": "u1"}}


def status(type_: str, value: str, reason: str, phase: str = "Running", since: str = SINCE, **more: Any) -> Object:
    one = {"type": type_, "status": value, "reason": reason, "message": "", "lastTransitionTime": since}
    return {"phase": phase, "conditions": [one], **more}


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (status("Complete", "True", "Succeeded", "Succeeded"), "Finished"),
        (status("Failed", "True", "Failed", "Failed"), "Failed"),
        (status("Suspended", "True", "BudgetReached", "Suspended"), "BudgetReached"),
        (status("Running", "False", "Stalled"), "Stalled"),
        (status("QuotaReserved", "False", "WaitingForQuota", "Queued", "2026-01-01T11:00:00Z"), "Queued"),
    ],
)
def test_each_of_the_five_is_noted_once(seen: Object, kind: str) -> None:
    first = notices.noted({}, seen, NOW)
    assert [one["kind"] for one in first] == [kind]
    assert notices.noted({"notices": first}, seen, NOW) == first


@pytest.mark.parametrize(
    "seen",
    [
        status("Running", "True", "Stepping"),
        status("Running", "False", "Recovering", "Recovering"),
        status("Suspended", "True", "Suspended", "Suspended"),
        status("Suspended", "False", "BudgetReached", "Running"),
        status("QuotaReserved", "False", "WaitingForQuota", "Queued", "2026-01-01T11:00:01Z"),
    ],
)
def test_nothing_else_is(seen: Object) -> None:
    assert notices.noted({}, seen, NOW) == []


def test_what_happens_again_is_told_again() -> None:
    first = notices.noted({}, status("Running", "False", "Stalled"), NOW)
    again = notices.noted({"notices": first}, status("Running", "False", "Stalled", since="2026-01-01T11:50:00Z"), NOW)
    assert [one["since"] for one in again] == [SINCE, "2026-01-01T11:50:00Z"]


def test_of_more_than_sixteen_those_that_are_told_go_first() -> None:
    known = [{"kind": "Stalled", "since": f"2026-01-01T10:{n:02}:00Z", **({"toldAt": SINCE} if n < 10 else {})} for n in range(16)]
    found = notices.noted({"notices": known}, status("Failed", "True", "Failed", "Failed"), NOW)
    assert len(found) == notices.KEPT
    assert found[-1]["kind"] == "Failed"
    assert [one for one in found if "toldAt" not in one] == [*known[10:], {"kind": "Failed", "since": SINCE}]
    assert known[0] not in found


def test_marked_is_what_was_told() -> None:
    found = notices.noted({}, status("Failed", "True", "Failed", "Failed"), NOW)
    assert notices.marked(found, frozenset({"u1/Failed/" + SINCE}), JOB, NOW) == [{**found[0], "toldAt": "2026-01-01T12:00:00Z"}]
    assert notices.marked(found, frozenset({"u2/Failed/" + SINCE}), JOB, NOW) == found


def test_what_is_posted() -> None:
    seen = status("Failed", "True", "Failed", "Failed", message="GTJ0208 the loss is not finite", cost={"usd": "3.41"})
    seen |= {"progress": {"step": 120, "totalSteps": 500}, "failure": {"code": "GTJ0208"}}
    found = notices.body({**JOB, "status": seen}, {"kind": "Failed", "since": SINCE})
    assert found["text"] == "team/job failed (step 120 of 500, 3.41 USD): GTJ0208 the loss is not finite"
    assert found["job"] == {
        "id": f"u1/Failed/{SINCE}",
        "event": "Failed",
        "since": SINCE,
        "namespace": "team",
        "name": "job",
        "uid": "u1",
        "phase": "Failed",
        "message": "GTJ0208 the loss is not finite",
        "step": 120,
        "totalSteps": 500,
        "usd": "3.41",
        "failure": "GTJ0208",
    }


def test_a_pod_s_words_mention_nobody() -> None:
    """<!channel> wakes everybody in a channel of Slack."""
    seen = status("Failed", "True", "Failed", "Failed", message="<!channel> & <http://evil|look>" + "x" * 5000)
    text = notices.body({**JOB, "status": seen}, {"kind": "Failed", "since": SINCE})["text"]
    assert not {"<", ">"} & set(text)
    assert "&lt;!channel&gt; &amp; " in text
    assert len(text) <= notices.TEXT
