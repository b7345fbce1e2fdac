"""docs/start/cluster.md asks for a node of a size: Kubernetes' own scheduler places the page's own manifest on one of exactly that size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import rayjob
from tests.cluster.control_plane import ControlPlane
from trainjobs.api.job import Job
from trainjobs.api.profile import ProfileSpec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "start" / "cluster.md").read_text()
# What the kubelet and the system keep for themselves of a node with 4 CPUs and 16 GiB, on GKE, EKS and AKS, the most of each.
KEPT = {"cpu": 0.18, "memory": 2.9}
OTHERS: dict[str, Object] = {
    # Requests of what else is there: KubeRay's chart, ours, and what a managed cluster runs on every node.
    "kuberay": {"cpu": "100m", "memory": "512Mi"},
    "gentrain-0": {"cpu": "100m", "memory": "192Mi"},
    "gentrain-1": {"cpu": "100m", "memory": "192Mi"},
    "system": {"cpu": "700m", "memory": "700Mi"},
}


def node() -> Object:
    """One node of the size that the page names."""
    found = re.search(r"one node with (\d+) CPUs and (\d+) GiB", PAGE)
    assert found, "the page names no size"
    cpu, memory = int(found[1]) - KEPT["cpu"], int(found[2]) - KEPT["memory"]
    room = {"cpu": f"{int(1000 * cpu)}m", "memory": f"{int(1024 * memory)}Mi", "pods": "110"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": {"capacity": room, "allocatable": room}}


def pods() -> list[Object]:
    """Head and workers of the page's manifest, on the profile that it names, as KubeRay would make them."""
    manifest = yaml.safe_load((ROOT / "manifests" / "cluster" / "vae-digits.yaml").read_text())
    (name,) = manifest["spec"]["compute"]["profiles"]
    assert f"kubectl apply -f manifests/profiles/{name}.yaml" in PAGE
    profile = yaml.safe_load((ROOT / "manifests" / "profiles" / f"{name}.yaml").read_text())["spec"]
    job = {**manifest, "metadata": {**manifest["metadata"], "namespace": "default", "uid": "u"}}
    made = rayjob(job, Job.model_validate(manifest).spec, ProfileSpec.model_validate(profile), 1, "image")
    cluster = made["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    templates = [cluster["headGroupSpec"]["template"], *[group["template"]] * group["replicas"]]
    return [pod(f"job-{number}", template["spec"]) for number, template in enumerate(templates)]


def pod(name: str, body: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def test_the_pages_own_manifest_fits_the_node_that_the_page_asks_for(own_cluster: ControlPlane) -> None:
    own_cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(node()))
    own_cluster.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(node()))
    others = [pod(name, {"containers": [{"name": "c", "image": "i", "resources": {"requests": sizes}}]}) for name, sizes in OTHERS.items()]
    for one in [*others, *pods()]:
        own_cluster.kubectl("create", "-f", "-", stdin=json.dumps(one))
    own_cluster.start_scheduler()
    own_cluster.kubectl("taint", "nodes", "node", "node.kubernetes.io/not-ready-", check=False)
    own_cluster.kubectl("wait", "--for=condition=PodScheduled", "pods", "--all", "--timeout=60s")
    # One more worker would not: the size that the page names is no idle talk.
    own_cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod("more", pods()[-1]["spec"])))
    said = own_cluster.kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable", "pod/more", "--timeout=60s")
    assert "met" in said.stdout
