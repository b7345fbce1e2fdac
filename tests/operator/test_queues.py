"""What is read from Kueue's objects."""

from __future__ import annotations

import datetime

import pytest

from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.queues import again, held, look


def workload(created: str, *true: str) -> Object:
    conditions = [{"type": one, "status": "True", "message": f"{one} at {created}"} for one in true]
    return {"metadata": {"name": created, "creationTimestamp": created}, "status": {"conditions": conditions}}


class Answers:
    """A server that has these Workloads, in this order."""

    def __init__(self, *workloads: Object) -> None:
        self.workloads = workloads

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0) -> Object:
        return {"items": list(self.workloads)[: limit or None] if resource.kind == "Workload" else [{"metadata": {"name": "team"}}]}


def test_of_the_slices_of_an_elastic_job_the_one_that_is_not_over_counts() -> None:
    """Kueue finishes the Workload whose place a larger one takes; the list is in the order of their names."""
    old, new = workload("2026-01-01T00:00:00Z", "Finished"), workload("2026-01-01T00:05:00Z", "Evicted")
    for answer in (Answers(old, new), Answers(new, old)):
        found = held("team", look(answer, "here", {"metadata": {"uid": "u"}}))
        assert found.reason == "Preempted"
        assert found.message.endswith("Evicted at 2026-01-01T00:05:00Z")
    assert look(Answers(), "here", {"metadata": {"uid": "u"}}).workload is None


@pytest.mark.parametrize(("waited", "seconds"), [(0, 30), (29, 30), (120, 120), (3600, 300)])
def test_the_longer_a_job_waits_the_less_often_kueue_is_asked(waited: int, seconds: float) -> None:
    """A thousand jobs that wait for an hour cost seven requests a second, not seventy."""
    now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    since = (now - datetime.timedelta(seconds=waited)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "QuotaReserved", "status": "False", "reason": "WaitingForQuota", "lastTransitionTime": since}
    assert again({"conditions": [condition]}, now) == seconds
    assert again({"conditions": [{**condition, "status": "True"}]}, now) == 30
    assert again({}, now) == 30
