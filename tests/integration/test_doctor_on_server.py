"""gtj doctor --cluster against a real API server: nodes as their clouds make them, and profiles, are what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.integration.test_nodepools_on_server import node
from trainjobs.cli.main import status

pytestmark = pytest.mark.slow

L4 = {
    "cloud.google.com/gke-nodepool": "l4",
    "cloud.google.com/gke-accelerator": "nvidia-l4",
    "node.kubernetes.io/instance-type": "g2-standard-8",
}


@pytest.fixture
def pool(installed: ControlPlane, namespace: str) -> Iterator[str]:
    """Two nodes of a pool, one of which has no device plugin yet, and a profile of them; what all are called."""
    node(installed, f"{namespace}-ready", L4, [("nvidia.com/gpu", "present")], 1)
    node(installed, f"{namespace}-bare", L4, [], 0)
    spec = {"provider": "gcp", "pool": "standard", "accelerator": {"type": "l4", "perNode": 1}, "node": {"cpu": "7", "memory": "28Gi"}}
    profile = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": namespace}, "spec": spec}
    installed.kubectl("create", "-f", "-", stdin=json.dumps(profile))
    yield namespace
    installed.kubectl("delete", "node", f"{namespace}-ready", f"{namespace}-bare")
    installed.kubectl("delete", "computeprofile", namespace)


def test_pools_profiles_and_what_is_missing(installed: ControlPlane, pool: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["doctor", "--cluster", "--kubeconfig", str(installed.kubeconfig), "-o", "json"]) == 4
    found = json.loads(capsys.readouterr().out)
    mine = [one for one in found["pools"] if one["accelerator"] == "nvidia-l4"]
    assert [(one["kind"], one["instanceType"], one["perNode"]) for one in mine] == [
        ("gcp/standard", "g2-standard-8", gpus) for gpus in (0, 1)
    ]
    assert [pool in one["profiles"] for one in mine] == [False, True]
    (missing,) = [one for one in found["findings"] if one["subject"] == "device plugin"]
    assert missing["level"] == "fail"
    assert f"{pool}-bare" in missing["detail"]

    assert status(["doctor", "--kubeconfig", str(installed.kubeconfig)]) == 4, "naming a cluster is asking for it"
    shown = capsys.readouterr().out
    assert "gcp/standard  g2-standard-8, 1 x nvidia-l4, 1 node" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_who_may_not_list_nodes_is_told_so(installed: ControlPlane, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    installed.kubectl("-n", namespace, "create", "serviceaccount", "nobody")
    token = installed.kubectl("-n", namespace, "create", "token", "nobody").stdout.strip()
    kubeconfig = installed.write_kubeconfig(f"nobody-{namespace}", token)
    assert status(["doctor", "--cluster", "--kubeconfig", str(kubeconfig)]) == 7
    told = capsys.readouterr().err
    assert "GTJ0303" in told
    assert "list the nodes" in told
