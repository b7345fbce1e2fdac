"""Where the seconds of one job go, from `gtj submit` to Succeeded: ours against KubeRay's, the node's and Ray's."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from tests.e2e.cluster import Object
from tests.e2e.jobs import Team, manifest
from tests.e2e.sight import Sight, condition, record


def of(kind: str) -> Callable[[Object], bool]:
    """A pod of that kind whose Ray container runs."""

    def there(pod: Object) -> bool:
        states = (pod.get("status") or {}).get("containerStatuses") or ()
        return pod["metadata"].get("labels", {}).get("ray.io/node-type") == kind and any("running" in one["state"] for one in states)

    return there


def deployment(name: str) -> Callable[[Object], bool]:
    return lambda ray: (ray.get("status") or {}).get("jobDeploymentStatus") == name


def test_where_the_seconds_go(team: Team) -> None:
    with Sight(team.cluster, team.namespace) as sight:
        began = time.time()
        team.submit(manifest("vae", steps=60, every=20))
        sent = time.time()
        team.reach("vae", 20)
        notes = team.timeline("vae")
        team.succeed("vae")
        ended = time.time()
    spans = {
        "gtj submit": (began, sent),
        "job to RayJob": (sight.first("generativetrainingjobs", lambda job: True), sight.first("rayjobs", lambda ray: True)),
        "RayJob to first pod": (sight.first("rayjobs", lambda ray: True), sight.first("pods", lambda pod: True)),
        "pods to head running": (sight.first("pods", lambda pod: True), sight.first("pods", of("head"))),
        "head running to workers running": (sight.first("pods", of("head")), sight.first("pods", of("worker"))),
        "workers running to Ray job running": (sight.first("pods", of("worker")), sight.first("rayjobs", deployment("Running"))),
        "Ray job running to first checkpoint known": (
            sight.first("rayjobs", deployment("Running")),
            sight.first("generativetrainingjobs", lambda job: (job.get("status") or {}).get("checkpoint")),
        ),
        "Ray job complete to job Succeeded": (
            sight.first("rayjobs", deployment("Complete")),
            sight.first("generativetrainingjobs", condition("Complete")),
        ),
        "whole": (began, ended),
    }
    seconds = {name: round(end - start, 3) for name, (start, end) in spans.items() if start is not None and end is not None}
    assert set(seconds) == set(spans), f"not seen: {set(spans) - set(seconds)}"
    ours = {
        "operator": seconds["job to RayJob"] + seconds["Ray job complete to job Succeeded"],
        "looking at data and bucket": notes["checks"],
        "data, networks": notes["model"] - notes["imports"],
        "looking for a checkpoint": notes["resume"] - notes["initialize"],
    }
    ours = {name: round(value, 3) for name, value in ours.items()}
    record(
        "timeline", {"started": _time(began), "seconds": seconds, "trainer": notes, "ours": {**ours, "sum": round(sum(ours.values()), 3)}}
    )
    # Each thing after the one it follows from; how long it took is for the record, not for a test on a machine that others use, too.
    assert all(value >= -0.1 for value in seconds.values()), seconds


def _time(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
