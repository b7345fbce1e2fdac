"""Where the seconds of one job go, from `gtj submit` to Succeeded: ours against KubeRay's, the node's and Ray's."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from tests.e2e.cluster import Object
from tests.e2e.jobs import Team, manifest
from tests.e2e.sight import Sight, condition, record

OURS = 2.0  # seconds: everything that neither schedules, pulls, nor starts Ray


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
        "Ray job complete to job Succeeded": (
            sight.first("rayjobs", deployment("Complete")),
            sight.first("generativetrainingjobs", condition("Complete")),
        ),
        "whole": (began, ended),
    }
    seconds = {name: round(end - start, 3) for name, (start, end) in spans.items() if start is not None and end is not None}
    assert set(seconds) == set(spans), f"not seen: {set(spans) - set(seconds)}"
    ours = seconds["job to RayJob"] + seconds["Ray job complete to job Succeeded"]
    record("timeline", {"seconds": seconds, "trainer": notes, "ours": round(ours, 3), "started": _time(began)})
    assert ours < OURS, seconds


def _time(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
