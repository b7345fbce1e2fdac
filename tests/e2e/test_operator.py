"""The operator lost, moved, upgraded and tested, and the API server gone for a while: jobs do not notice."""

from __future__ import annotations

import time

import pytest

from tests.e2e.cluster import ROOT, Cluster
from tests.e2e.jobs import Team, manifest
from tests.e2e.sight import record
from tests.e2e.software import RELEASE, SYSTEM, gentrain


def leader(cluster: Cluster) -> str:
    """The pod that holds the lease."""
    (lease,) = cluster.items("leases", SYSTEM)
    holder = str(lease["spec"].get("holderIdentity") or "")
    return next((pod["metadata"]["name"] for pod in cluster.items("pods", SYSTEM) if pod["metadata"]["name"] in holder), "")


def fresh(team: Team, name: str, since: int, seconds: float = 90) -> int:
    """The step in the status, once it is beyond `since`: an operator is at work."""

    def there() -> int | None:
        step = (team.status(name).get("progress") or {}).get("step") or 0
        return step if step > since else None

    step: int = team.cluster.until(f"a step beyond {since} in the status of {name}", there, seconds)
    return step


def undisturbed(team: Team, name: str) -> None:
    """One attempt, never restarted, and no group of workers begun anew."""
    status = team.status(name)
    assert (status["attempts"], status.get("restarts", {})) == (1, {})
    assert team.progress(name).get("restarts", 0) == 0


def test_two_replicas_and_one_leader(cluster: Cluster) -> None:
    ready = cluster.get("deployment", RELEASE, SYSTEM)["status"]["readyReplicas"]
    assert ready == 2
    assert leader(cluster)


def test_leader_killed(team: Team, cluster: Cluster) -> None:
    """The other replica takes over; the job trains on, and nothing of it is lost or started twice."""
    team.submit(manifest("lead", steps=10**6, every=500))
    team.reach("lead", 50)
    before, old = fresh(team, "lead", 0), leader(cluster)
    killed = time.time()
    cluster.kubectl("delete", "pod", old, "-n", SYSTEM, "--grace-period=0", "--force")
    cluster.until("another leader", lambda: leader(cluster) not in ("", old), 60)
    moved = time.time() - killed
    fresh(team, "lead", before)
    again, lost = time.time() - killed, team.lost("lead", team.progress("lead")["step"], killed)
    record("operator-killed", {"leaderMovedSeconds": round(moved, 1), "statusAgainSeconds": round(again, 1), "stepsLost": lost})
    assert lost == 0
    undisturbed(team, "lead")


def test_upgrade_under_a_running_job(team: Team, cluster: Cluster) -> None:
    team.submit(manifest("upgraded", steps=10**6, every=500))
    team.reach("upgraded", 50)
    before = fresh(team, "upgraded", 0)
    gentrain(cluster, f"--set-string=podAnnotations.changed={time.time():.0f}", chart=ROOT / "charts" / "gentrain")
    fresh(team, "upgraded", before)
    undisturbed(team, "upgraded")


@pytest.mark.root
def test_api_server_restarted(team: Team, cluster: Cluster) -> None:
    if cluster.node is None:
        pytest.skip("a cluster of somebody's own is not treated like that")
    team.submit(manifest("server", steps=10**6, every=500))
    team.reach("server", 50)
    before = fresh(team, "server", 0)
    cluster.node.stop("kube-apiserver")
    time.sleep(10)  # what is measured is a server that is away, not one that comes back at once
    cluster.node.start("kube-apiserver")
    fresh(team, "server", before, 120)
    undisturbed(team, "server")


def test_helm_test(cluster: Cluster) -> None:
    said = cluster.run("helm", "test", RELEASE, "--namespace", SYSTEM, "--timeout", "10m").stdout
    assert "Phase:          Succeeded" in said
    cluster.kubectl("delete", "gtj,pod,sa,role,rolebinding", "-l", "app.kubernetes.io/component=test", "-n", SYSTEM)
