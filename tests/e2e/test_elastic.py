"""A group of workers that grows when there is room and goes on with fewer when a pod is gone: Ray's autoscaler and KubeRay do the rest."""

from __future__ import annotations

from tests.e2e.jobs import Team, environment, manifest


def size(team: Team, name: str, wanted: int, seconds: float = 240) -> None:
    """Wait until so many workers train."""
    team.cluster.until(f"{wanted} workers of {name}", lambda: working(team, name) == wanted, seconds)


def working(team: Team, name: str) -> int:
    told = team.progress(name)
    return int(told.get("workers") or 0) if told.get("phase") == "Running" else 0


def test_a_group_grows_and_goes_on_with_fewer(team: Team) -> None:
    """It begins with the smallest, and grows without making a step twice; a killed pod makes it smaller until there is another one."""
    soon = {"name": "GENTRAIN_RESIZE_SECONDS", "value": "5"}
    team.submit(manifest("elastic", steps=10**6, every=50, compute__workers="1-2", pod__env=[*environment(), soon]))
    size(team, "elastic", 1)
    assert len(team.pods("elastic", "worker")) >= 1
    size(team, "elastic", 2)
    grown = team.progress("elastic")
    began, onward = (row for row in team.rows("elastic", "attempts.jsonl") if row["event"] in ("started", "resumed"))
    assert (began["event"], onward["event"]) == ("started", "resumed")
    rows = [row["step"] for row in team.rows("elastic", "metrics.jsonl") if row["time"] < onward["time"]]
    assert onward["step"] >= max(rows), "steps were lost on the way to the larger group"
    assert grown["restarts"] == 0
    victim = team.pods("elastic", "worker")[0]["metadata"]["name"]
    team.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    size(team, "elastic", 1)
    size(team, "elastic", 2)
    status = team.status("elastic")
    assert (status["attempts"], status.get("restarts", {})) == (1, {})
    assert status["plan"]["workers"] == 2
