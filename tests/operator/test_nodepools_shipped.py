"""manifests/nodepools: the NodePools make nodes of which each profile's workers may have one, its heads another. Karpenter's reckoning in
short: a pod fits where it tolerates the taints, and a node of a type that the requirements allow has the labels that it selects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gentrain_operator.kube.resource import Object
from gentrain_operator.nodepools import KARPENTER_AWS, KARPENTER_AZURE
from gentrain_operator.rayjob import rayjob
from tests.operator.test_rayjob import JOB, spec
from trainjobs.api.parse import parse_profile
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan.catalogue import nodes

FOLDERS = sorted((Path(__file__).parents[2] / "manifests" / "nodepools").iterdir())
# By the folder: the provider, its words for GPUs, where its labels begin, and a type without GPUs.
CLOUDS: dict[str, tuple[str, dict[str, str], str, dict[str, str]]] = {
    "eks-karpenter": (
        "aws",
        KARPENTER_AWS,
        "karpenter.k8s.aws/instance",
        {
            "node.kubernetes.io/instance-type": "m7i.2xlarge",
            "karpenter.k8s.aws/instance-category": "m",
            "karpenter.k8s.aws/instance-generation": "7",
        },
    ),
    "aks-nap": (
        "azure",
        KARPENTER_AZURE,
        "karpenter.azure.com/sku",
        {
            "node.kubernetes.io/instance-type": "Standard_D8s_v5",
            "karpenter.azure.com/sku-family": "D",
            "karpenter.azure.com/sku-version": "5",
        },
    ),
}


def read(folder: Path, kind: str) -> list[Object]:
    found = [one for path in sorted(folder.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    return [one for one in found if one["kind"] == kind]


def profiles(folder: Path) -> dict[str, ProfileSpec]:
    found = {}
    for manifest in read(folder, "ComputeProfile"):
        profile, problems = parse_profile(manifest)
        assert profile is not None, problems
        assert not problems, problems
        found[manifest["metadata"]["name"]] = profile.spec
    return found


def types(cloud: str) -> Iterator[dict[str, str]]:
    """Labels of every type of node of the cloud: those with GPUs from the catalogue, and one without."""
    provider, words, domain, plain = CLOUDS[cloud]
    yield plain
    for name, node in nodes().items():
        if node.provider == provider and node.gpu in words:
            yield {
                "node.kubernetes.io/instance-type": name,
                f"{domain}-gpu-name": words[node.gpu],
                f"{domain}-gpu-count": str(node.gpus),
                "karpenter.k8s.aws/instance-category": name[0],
            }


def holds(one: dict[str, Any], labels: dict[str, str]) -> bool:
    """A requirement of a NodePool, or an expression of node affinity."""
    value, values = labels.get(one["key"]), one.get("values", [])
    match one["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
    raise AssertionError(one)


def made(cloud: str, pool: Object) -> list[dict[str, str]]:
    """Labels of the nodes that a NodePool can make."""
    template = pool["spec"]["template"]
    required = template["spec"]["requirements"]
    (capacity,) = next(one["values"] for one in required if one["key"] == "karpenter.sh/capacity-type")
    own = {
        **template["metadata"]["labels"],
        "karpenter.sh/capacity-type": capacity,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    found = [{**own, **labels} for labels in types(cloud)]
    return [labels for labels in found if all(holds(one, labels) for one in required)]


def tolerated(taint: dict[str, str], tolerations: list[dict[str, str]]) -> bool:
    return any(
        one.get("key") in (None, taint["key"])
        and (one.get("operator") == "Exists" or one.get("value") == taint["value"])
        and one.get("effect") in (None, taint["effect"])
        for one in tolerations
    )


def fits(pod: Object, cloud: str, pool: Object) -> bool:
    """Whether the pool can make a node for the pod."""
    if not all(tolerated(taint, pod.get("tolerations", [])) for taint in pool["spec"]["template"]["spec"].get("taints", [])):
        return False
    required = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms", [{"matchExpressions": []}])
    return any(
        pod.get("nodeSelector", {}).items() <= labels.items()
        and any(all(holds(one, labels) for one in term["matchExpressions"]) for term in terms)
        for labels in made(cloud, pool)
    )


def pods(profile: ProfileSpec) -> dict[str, Object]:
    job = spec(compute={"workers": 2, "gpusPerWorker": profile.accelerator.per_node})
    cluster = rayjob(JOB, job, profile, 1, "trainer:1")["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"]["template"]["spec"], "worker": cluster["workerGroupSpecs"][0]["template"]["spec"]}


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one.name in CLOUDS], ids=lambda one: one.name)
def test_workers_get_nodes_of_their_pool_and_heads_of_the_plain_one(folder: Path) -> None:
    pools = {one["metadata"]["name"]: one for one in read(folder, "NodePool")}
    seen = set()
    for name, profile in profiles(folder).items():
        kind = "cpu" if not profile.accelerator.per_node else "gpu-spot" if profile.capacity == "spot" else "gpu"
        for role, pod in pods(profile).items():
            found = [pool for pool, manifest in pools.items() if fits(pod, folder.name, manifest)]
            assert found == ["gentrain-cpu" if role == "head" else f"gentrain-{kind}"], (name, role)
        seen.add(kind)
    assert seen == {"cpu", "gpu", "gpu-spot"}


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one.name in CLOUDS], ids=lambda one: one.name)
def test_no_node_ends_for_its_age_and_each_has_its_class(folder: Path) -> None:
    classes = {one["metadata"]["name"]: one for kind in ("EC2NodeClass", "AKSNodeClass") for one in read(folder, kind)}
    for pool in read(folder, "NodePool"):
        template = pool["spec"]["template"]["spec"]
        assert template["expireAfter"] == "Never"
        assert "terminationGracePeriod" not in template, "it takes nodes from pods that are not to be disturbed"
        assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"
        own = classes[template["nodeClassRef"]["name"]]
        assert (own["kind"], own["apiVersion"].split("/")[0]) == (template["nodeClassRef"]["kind"], template["nodeClassRef"]["group"])


def test_gkes_pools_are_named_in_a_word() -> None:
    (folder,) = [one for one in FOLDERS if one.name not in CLOUDS]
    found = profiles(folder)
    assert sorted(found) == ["standard-cpu", "standard-l4", "standard-l4-spot"]
    worker = pods(found["standard-l4-spot"])["worker"]
    assert worker["nodeSelector"]["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    for taint in ({"key": "nvidia.com/gpu", "value": "present"}, {"key": "cloud.google.com/gke-spot", "value": "true"}):
        assert tolerated({**taint, "effect": "NoSchedule"}, worker["tolerations"])
        assert not tolerated({**taint, "effect": "NoSchedule"}, pods(found["standard-l4-spot"])["head"].get("tolerations", []))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}, "a taint that workers do not tolerate"),
        ({"requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]}, "nodes of another capacity"),
    ],
)
def test_canary_a_pool_that_does_not_fit_is_seen(change: dict[str, Any], why: str) -> None:
    (folder,) = [one for one in FOLDERS if one.name == "eks-karpenter"]
    pool = next(one for one in read(folder, "NodePool") if one["metadata"]["name"] == "gentrain-gpu")
    worker = pods(profiles(folder)["karpenter-l4"])["worker"]
    assert fits(worker, folder.name, pool)
    pool["spec"]["template"]["spec"] |= change
    assert not fits(worker, folder.name, pool), why
