"""A group of workers that grows when there is room and goes on with fewer when a pod is gone: Ray's autoscaler and KubeRay do the rest."""

from __future__ import annotations

import time

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.jobs import Team, environment, manifest
from tests.e2e.sight import record


@pytest.mark.root
def test_a_group_grows_and_goes_on_with_fewer(team: Team, cluster: Cluster) -> None:
    """It begins with the smallest, and grows without making a step twice; a killed pod makes it smaller until there is another one."""
    soon = {"name": "GENTRAIN_RESIZE_SECONDS", "value": "5"}
    team.submit(manifest("elastic", steps=10**6, every=50, compute__workers="1-2", pod__env=[*environment(), soon]))
    team.reach("elastic", 1)
    began = sizes(team, 0.0, [1, 2])
    assert began[0] == (1, 0)
    rows = team.rows("elastic", "attempts.jsonl")
    (asked,) = (row for row in rows if row["event"] == "resized")
    assert (asked["step"], asked["message"]) == (began[1][1], "there is room for 2 workers instead of 1: a checkpoint is taken")

    workers = team.pods("elastic", "worker")
    killed = time.time()
    cluster.kubectl("cordon", workers[0]["spec"]["nodeName"])  # or the next pod is there before the group has begun
    try:
        team.kubectl("delete", "pod", workers[0]["metadata"]["name"], "--grace-period=0", "--force")
        sizes(team, killed, [1])
        fewer = time.time() - killed
    finally:
        cluster.kubectl("uncordon", workers[0]["spec"]["nodeName"])
    there = time.time()
    again = sizes(team, killed, [1, 2])
    record("elastic", {"killedToFewerSeconds": round(fewer, 1), "roomToMoreSeconds": round(time.time() - there, 1), "resizeSeconds": 5})
    assert again[0][1] <= again[1][1]
    team.cluster.until("the size in the status", lambda: team.status("elastic")["plan"]["workers"] == 2, 60)
    status = team.status("elastic")
    assert (status["attempts"], status.get("restarts", {})) == (1, {})


def sizes(team: Team, since: float, wanted: list[int], seconds: float = 120) -> list[tuple[int, int]]:
    """Wait for groups of so many workers, one after the other, that began after `since`: (workers, step they began at)."""
    found: list[tuple[int, int]] = []

    def there() -> bool:
        rows = [row for row in team.rows("elastic", "attempts.jsonl") if row["event"] in ("started", "resumed") and row["time"] > since]
        found[:] = [(int(row["message"].split()[0]), row["step"]) for row in rows]
        return [size for size, _ in found] == wanted

    try:
        team.cluster.until(f"groups of {wanted} workers", there, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}, but these: {found}\n{team.evidence('elastic')}") from error
    return found
