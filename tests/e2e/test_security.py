"""What a job's pods may do, and who may talk to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import ROOT, Cluster
from tests.e2e.jobs import Team, manifest
from tests.e2e.software import CLIENT, Toolbox, gentrain, namespace


@pytest.fixture
def running(team: Team) -> Team:
    team.submit(manifest("faces", steps=100000))
    team.reach("faces", 5)
    return team


def test_pods_and_head(running: Team, cluster: Cluster, toolbox: Toolbox) -> None:
    """Non-root under the restricted standard, with Ray's tokens; nobody without one gets anything out of the head."""
    team = running
    labels = cluster.get("namespace", team.namespace, "")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = team.pods("faces")
    assert len(pods) == 3
    for pod in pods:
        said = team.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", "id -u; touch /usr/x; ls /var/run/secrets", check=False)
        assert said.stdout.split()[0] == "1000"
        assert "Read-only file system" in said.stderr
        assert "No such file" in said.stderr, "a service account's token is mounted"
        for container in pod["spec"]["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
    (cluster_,) = cluster.items("rayclusters", team.namespace)
    assert cluster_["spec"]["authOptions"]["mode"] == "token"
    (head,) = team.pods("faces", "head")
    address = head["status"]["podIP"]
    code = CLIENT.format(url=f"http://{address}:8265/api/jobs/")
    inside = team.kubectl("exec", head["metadata"]["name"], "-c", "ray-head", "--", "python", "-c", code).stdout
    assert inside.strip() == "401", "Ray's dashboard answers without a token"
    token = code.replace("{}", "{'Authorization': 'Bearer ' + os.environ['RAY_AUTH_TOKEN']}")
    inside = team.kubectl("exec", head["metadata"]["name"], "-c", "ray-head", "--", "python", "-c", token).stdout
    assert inside.strip() == "200", "and does with it"


def test_another_namespace_cannot_reach_the_head(running: Team, cluster: Cluster, toolbox: Toolbox) -> None:
    """Shown by trying. The chart's policy lets in the job's own pods, the operator and KubeRay, and nobody else."""
    (head,) = running.pods("faces", "head")
    address, ports = head["status"]["podIP"], (6379, 8265, 8090)
    assert all(toolbox.reaches(address, port) for port in ports), "without a policy everybody gets in"
    gentrain(cluster, f"--set=networkPolicy.jobs.namespaces={{{running.namespace}}}", chart=ROOT / "charts" / "gentrain")
    try:
        cluster.until(
            "an end of the way in (does anything enforce network policies here?)",
            lambda: not any(toolbox.reaches(address, port) for port in ports),
            60,
        )
        # Those who are meant to get in still do: the job goes on, and the operator hears of it.
        step = running.progress("faces")["step"]
        running.reach("faces", step + 50)
        cluster.until("news in the status", lambda: running.status("faces")["progress"]["step"] > step, 60)
    finally:
        gentrain(cluster, chart=ROOT / "charts" / "gentrain")


def test_two_teams_do_not_see_each_other(team: Team, cluster: Cluster, tmp_path: Path) -> None:
    """An editor of one namespace may do nothing in the other: neither see its jobs nor make some there."""
    team.submit(manifest("ours", steps=100000, compute__profiles=["no-such-profile"]))
    other = f"{team.namespace}-other"
    cluster.apply(namespace(other))
    try:
        cluster.kubectl("create", "serviceaccount", "person", "-n", other)
        cluster.kubectl("create", "rolebinding", "person", "--clusterrole=edit", f"--serviceaccount={other}:person", "-n", other)
        person = f"--as=system:serviceaccount:{other}:person"
        # The roles that carry `edit` are put together a moment after the chart is installed.
        cluster.until("the right to see jobs", lambda: allowed(cluster, person, "list", other), 60)
        assert allowed(cluster, person, "create", other)
        assert not allowed(cluster, person, "list", team.namespace)
        assert not allowed(cluster, person, "create", team.namespace)
        said = cluster.kubectl("get", "gtj", "-n", team.namespace, person, check=False)
        assert "Forbidden" in said.stderr
        assert cluster.kubectl("get", "gtj", "-n", other, person).stdout == ""
    finally:
        cluster.kubectl("delete", "namespace", other, "--wait=false")


def allowed(cluster: Cluster, person: str, verb: str, space: str) -> bool:
    kind = "generativetrainingjobs.gentrain.dev"
    return cluster.kubectl("auth", "can-i", verb, kind, "-n", space, person, check=False).stdout.strip() == "yes"
